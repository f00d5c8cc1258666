"""The frozen text teacher, whose distributions are computed once (decisions 1, 2, 4).

Two teachers answer alike: the frozen checkpoint that a small model starts from, and the base under
a model's adapter, which is the same weights with the adapter off.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from aligncap.alignment.prompting import Example
from aligncap.alignment.store import Distributions, DistributionStore
from aligncap.captioner.adapters import teacher_mode
from aligncap.captioner.batches import SharedPromptRow, collate, to_torch
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.reading import TorchBatch
from aligncap.storage import hash_of_parts


class Teacher(Protocol):
    """A frozen language model that reads text."""

    @property
    def fingerprint(self) -> str:
        """A hash of its weights."""

    @property
    def text_rows(self) -> int:
        """The size of the text vocabulary."""

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_rows] of every token of every response, without gradient."""


class FrozenTeacher:
    """A model of its own, none of whose weights train."""

    def __init__(self, model: CaptionModel) -> None:
        self._model = model.requires_grad_(requires_grad=False).eval()
        self.fingerprint = frozen_fingerprint(model)
        self.text_rows = model.vocabulary.text_rows

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_rows] of every token of every response."""
        with torch.inference_mode():
            return self._model.text_logits(batch_of(self._model, rows))


class AdapterOffTeacher:
    """The student itself with its adapter off: no second copy of the base is held."""

    def __init__(self, student: CaptionModel) -> None:
        self._student = student
        self.fingerprint = frozen_fingerprint(student)
        self.text_rows = student.vocabulary.text_rows

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_rows] of every token of every response."""
        with teacher_mode(self._student):
            return self._student.text_logits(batch_of(self._student, rows))


class TeacherCache:
    """The distributions of one teacher over a fixed list of examples, computed when first needed.

    They are float16, the `top_k` most probable tokens and the mass of the rest, in a folder of
    `root` named by a hash of teacher, examples (prompts and responses), top_k and temperature.
    """

    def __init__(
        self,
        root: Path,
        teacher: Teacher,
        examples: Sequence[Example],
        *,
        top_k: int,
        temperature: float = 1.0,
    ) -> None:
        self._teacher, self._temperature = teacher, temperature
        self.store = DistributionStore(
            root,
            examples,
            top_k=top_k,
            rows=teacher.text_rows,
            signature=f"{teacher.fingerprint}|t={temperature}",
        )

    def fill(
        self, examples: Sequence[Example], progress: Callable[[int], None] | None = None
    ) -> int:
        """Compute what is missing of these; returns how many were. Safe to stop and repeat."""
        return self.store.cache.fill(examples, self._compute, progress)

    def lookup(self, examples: Sequence[Example]) -> Distributions:
        """The distributions of these examples' tokens, one after another."""
        self.fill(examples)
        return self.store.get(examples)

    def _compute(self, groups: Sequence[Sequence[Example]]) -> None:
        found = top_k_of(
            self._teacher.text_logits(shared_rows(groups)),
            self.store.top_k,
            temperature=self._temperature,
        )
        start = 0
        for example in (example for group in groups for example in group):
            span = slice(start, start + len(example.response_ids))
            own = Distributions(found.ids[span], found.log_probs[span], found.log_rest[span])
            self.store.put(example, own)
            start = span.stop


def shared_rows(groups: Iterable[Sequence[Example]]) -> list[SharedPromptRow]:
    """Groups of one prompt each as rows of a batch."""
    return [
        SharedPromptRow(group[0].prompt_ids, tuple(e.response_ids for e in group))
        for group in groups
    ]


def top_k_of(logits: Tensor, k: int, *, temperature: float = 1.0) -> Distributions:
    """The k most probable tokens of softmax(logits / temperature), and the mass of the rest.

    `logits` is [N, text rows]; where k is all of them, the rest has log-probability -inf.
    """
    scaled = logits.float() / temperature
    top, ids = scaled.topk(k, dim=1)
    total = scaled.logsumexp(1, keepdim=True)
    rest = scaled.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True) - total
    return Distributions(
        ids.cpu().numpy(), (top - total).cpu().numpy(), rest.squeeze(1).cpu().numpy()
    )


def frozen_fingerprint(model: CaptionModel) -> str:
    """A hash of the weights that do not train: of a student with an adapter, its base."""
    return fingerprint_of((n, p) for n, p in model.named_parameters() if not p.requires_grad)


def fingerprint_of(weights: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of weights by name."""
    ordered = sorted(weights, key=lambda one: one[0])
    return hash_of_parts(chain.from_iterable(_hashed(*one) for one in ordered))[:32]


def _hashed(name: str, weight: Tensor) -> Iterator[str | memoryview]:
    yield f"{name}{tuple(weight.shape)}{weight.dtype}"
    flat = weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
    yield flat.numpy().data


def batch_of(model: CaptionModel, rows: Sequence[SharedPromptRow]) -> TorchBatch:
    """Rows as a batch where the model is."""
    return to_torch(collate(rows, model.vocabulary.pad_id), model.device)
