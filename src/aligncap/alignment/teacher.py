"""What is frozen, on disk: a teacher's distributions and a reference's log-probabilities, in
memory-mapped arrays that are filled as they are asked for. Of a teacher:

    <key>/ids.npy          [tokens, k]   the k most probable text tokens
          log_probs.npy    [tokens, k]   float16
          log_rest.npy     [tokens]      float16, the log of the mass of all other tokens
          done.npy         [examples]    1 where an example's tokens are there

The key is a hash of everything the numbers depend on; another teacher, prompt or caption never
meets them. A killed run loses nothing: an example counts as done after its numbers are written.

The frozen text teacher, whose distributions are computed once (decisions 1, 2, 4).

Two teachers answer alike: the frozen checkpoint that a small model starts from, and the base under
a model's adapter, which is the same weights with the adapter off.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aligncap.alignment.examples import Example
from aligncap.captioner.model import CaptionModel, TorchBatch, adapter_disabled
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.storage import hash_of_parts, open_arrays

ROWS_AT_ONCE = 32
"""Prompts in one forward pass of a frozen model."""

LEAST_LOG = -60_000.0
"""Stands for the log of nothing: float16 ends at -65504."""


@dataclass(frozen=True, slots=True)
class Distributions:
    """The teacher's distribution of each response token, T tokens of one or more examples."""

    ids: NDArray[np.int64]
    """[T, k]; the k most probable text tokens."""
    log_probs: NDArray[np.float32]
    """[T, k]; of those, natural logarithm."""
    log_rest: NDArray[np.float32]
    """[T]; of all other tokens together."""


class FrozenCache:
    """What a frozen model gives for a fixed list of examples, computed once and kept on disk.

    The arrays are in a folder of `root` named by a hash of `described` (the model's weights and
    all settings) and the examples, so that another model's numbers are never met.
    """

    def __init__(
        self,
        root: Path,
        examples: Sequence[Example],
        *,
        described: str,
        arrays: Mapping[str, tuple[type, tuple[int, ...]]],
        rows_of: Callable[[Example], int],
    ) -> None:
        """`arrays` are types and shapes of a row by name; an example has `rows_of(it)` rows."""
        self._place = {example: place for place, example in enumerate(dict.fromkeys(examples))}
        counts = [rows_of(example) for example in self._place]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        rows = int(self._starts[-1])
        self.folder, self._arrays = open_arrays(
            root,
            f"1|{described}|{digest_of(self._place)}",
            {name: (dtype, (rows, *shape)) for name, (dtype, shape) in arrays.items()}
            | {"done": (np.uint8, (len(self._place),))},
        )

    def __len__(self) -> int:
        """Different examples."""
        return len(self._place)

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Of these, the ones that are not there yet, each once."""
        done = self._arrays["done"]
        return [e for e in dict.fromkeys(examples) if not done[self._place[e]]]

    def put(self, example: Example, values: Mapping[str, object]) -> None:
        """Keep an example's rows of every array."""
        place = self._place[example]
        for name, rows in values.items():
            self._arrays[name][self._starts[place] : self._starts[place + 1]] = rows
        self._arrays["done"][place] = 1

    def get(self, name: str, examples: Sequence[Example]) -> NDArray[Any]:
        """The rows of these examples in one array, one after another."""
        places = [self._place[example] for example in examples]
        rows = [np.arange(self._starts[p], self._starts[p + 1]) for p in places]
        found: NDArray[Any] = self._arrays[name][np.concatenate([np.arange(0), *rows])]
        return found

    def fill(
        self,
        examples: Sequence[Example],
        compute: Callable[[Sequence[Sequence[Example]]], None],
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Have `compute` put what is missing of these, given in groups of one prompt; returns how
        many were missing. Safe to stop and repeat."""
        missing = self.missing(examples)
        groups = by_prompt(missing)
        for start in range(0, len(groups), ROWS_AT_ONCE):
            compute(groups[start : start + ROWS_AT_ONCE])
            if progress:
                progress(sum(map(len, groups[: start + ROWS_AT_ONCE])))
        return len(missing)


class DistributionStore:
    """Top-k distributions of a fixed list of examples, in a `FrozenCache`."""

    def __init__(
        self, root: Path, examples: Sequence[Example], *, top_k: int, rows: int, signature: str
    ) -> None:
        """`rows` is the size of the text vocabulary; `signature` says who the teacher is."""
        self.top_k = min(top_k, rows)
        self.cache = FrozenCache(
            root,
            examples,
            described=f"{signature}|k={self.top_k}|rows={rows}",
            arrays={
                "ids": (np.uint16 if rows <= 1 << 16 else np.uint32, (self.top_k,)),
                "log_probs": (np.float16, (self.top_k,)),
                "log_rest": (np.float16, ()),
            },
            rows_of=lambda example: len(example.response_ids),
        )
        self.folder = self.cache.folder

    def __len__(self) -> int:
        """Different examples."""
        return len(self.cache)

    def put(self, example: Example, values: Distributions) -> None:
        """Keep an example's distributions, rounded to float16."""
        rounded = {
            "ids": values.ids,
            "log_probs": np.maximum(values.log_probs, LEAST_LOG),
            "log_rest": np.maximum(values.log_rest, LEAST_LOG),
        }
        self.cache.put(example, rounded)

    def get(self, examples: Sequence[Example]) -> Distributions:
        """The distributions of these examples' tokens one after another, each summing to 1."""
        names = ("log_probs", "log_rest")
        logs = np.column_stack([self.cache.get(name, examples) for name in names])
        logs = logs.astype(np.float32)
        # float16 moves the sum by up to a thousandth; without this, agreement would cost.
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        ids = self.cache.get("ids", examples).astype(np.int64)
        return Distributions(ids, logs[:, :-1].copy(), logs[:, -1].copy())


def by_prompt(examples: Iterable[Example]) -> list[list[Example]]:
    """Examples that share a prompt together, short prompts first."""
    groups: dict[tuple[int, ...], list[Example]] = {}
    for example in examples:
        groups.setdefault(example.prompt_ids, []).append(example)
    return sorted(groups.values(), key=lambda group: len(group[0].prompt_ids))


def digest_of(examples: Sequence[Example] | dict[Example, int]) -> str:
    """A hash of prompts and responses in their order."""
    ids = (ids for example in examples for ids in (example.prompt_ids, example.response_ids))
    return hash_of_parts(np.array([len(one), *one], dtype=np.int64).tobytes() for one in ids)


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
        with adapter_disabled(self._student):
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
