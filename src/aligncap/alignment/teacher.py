"""The frozen text teacher of KD, whose distributions are computed once (decisions 1, 2, 4).

A teacher is a model folder of its own (`FrozenTeacher`), or the base under the student's adapter,
which is the same weights with the adapter off (`AdapterOffTeacher`). `TeacherCache` keeps what it
predicts in memory-mapped arrays that are filled on first use:

    <key>/ids.npy          [tokens, k]   the k most probable text tokens
          log_probs.npy    [tokens, k]   float16
          log_rest.npy     [tokens]      float16, the log of the mass of all other tokens
          done.npy         [examples]    1 where an example's tokens are there

The key is a hash of everything the numbers depend on, so another teacher, prompt or caption has
another folder. A killed run loses nothing: an example is marked done after its numbers are written.
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
from aligncap.captioner.model import CaptionModel, adapter_disabled
from aligncap.captioner.prefill import TorchBatch
from aligncap.captioner.prompts import SharedPromptRow, collate, features_of, to_torch
from aligncap.storage import hash_of_parts, open_arrays

PROMPTS_PER_PASS = 32
"""Prompts in one forward pass of a frozen model."""

LEAST_LOG = -60_000.0
"""Stands for the log of 0: float16 ends at -65504."""


@dataclass(frozen=True, slots=True)
class Distributions:
    """The teacher's distribution of each response token, T tokens of one or more examples."""

    ids: NDArray[np.int64]
    """[T, k]; the k most probable text tokens."""
    log_probs: NDArray[np.float32]
    """[T, k]; of those, natural logarithm."""
    log_rest: NDArray[np.float32]
    """[T]; of all other tokens together."""


def top_k_of(logits: Tensor, k: int, *, temperature: float = 1.0) -> Distributions:
    """The k most probable tokens of softmax(logits / temperature), and the mass of the rest.

    `logits` is [N, V]; where k is V, the rest has log-probability -inf.
    """
    scaled = logits.float() / temperature
    top, ids = scaled.topk(k, dim=1)
    total = scaled.logsumexp(1, keepdim=True)
    rest = scaled.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True) - total
    return Distributions(
        ids.cpu().numpy(), (top - total).cpu().numpy(), rest.squeeze(1).cpu().numpy()
    )


class Teacher(Protocol):
    """A frozen text-prompted language model."""

    @property
    def fingerprint(self) -> str:
        """A hash of its weights."""

    @property
    def text_vocab_size(self) -> int:
        """The size V of the text vocabulary."""

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, V] of every token of every response, without gradient."""


class FrozenTeacher:
    """A model of its own, none of whose weights train."""

    def __init__(self, model: CaptionModel) -> None:
        self._model = model.requires_grad_(requires_grad=False).eval()
        self.fingerprint = frozen_fingerprint(model)
        self.text_vocab_size = model.vocabulary.text_vocab_size

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, V] of every token of every response."""
        with torch.inference_mode():
            return self._model.text_logits(batch_of(self._model, rows))


class AdapterOffTeacher:
    """The student itself with its adapter off: no second copy of the base is in memory."""

    def __init__(self, student: CaptionModel) -> None:
        self._student = student
        self.fingerprint = frozen_fingerprint(student)
        self.text_vocab_size = student.vocabulary.text_vocab_size

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, V] of every token of every response."""
        with adapter_disabled(self._student):
            return self._student.text_logits(batch_of(self._student, rows))


class FrozenCache:
    """What a frozen model computes for a fixed list of examples, kept on disk.

    The arrays are in a folder of `root` named by a hash of `described` (the model's weights and
    all settings) and the examples.
    """

    def __init__(
        self,
        root: Path,
        examples: Iterable[Example],
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
        digest = hash_of_parts(chain.from_iterable(map(_parts_of, self._place)))
        self.folder, self._arrays = open_arrays(
            root,
            f"1|{described}|{digest}",
            {name: (dtype, (rows, *shape)) for name, (dtype, shape) in arrays.items()}
            | {"done": (np.uint8, (len(self._place),))},
        )

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
    ) -> int:
        """Have `compute` put what is missing of these, given in groups of one prompt, short prompts
        first; returns how many were missing. Safe to stop and repeat."""
        done = self._arrays["done"]
        missing = [one for one in dict.fromkeys(examples) if not done[self._place[one]]]
        by_prompt: dict[tuple[int, ...], list[Example]] = {}
        for example in missing:
            by_prompt.setdefault(example.prompt_ids, []).append(example)
        groups = sorted(by_prompt.values(), key=lambda group: len(group[0].prompt_ids))
        for start in range(0, len(groups), PROMPTS_PER_PASS):
            compute(groups[start : start + PROMPTS_PER_PASS])
        return len(missing)


def _parts_of(example: Example) -> Iterator[str | bytes]:
    """What an example is, to be hashed."""
    for ids in (example.prompt_ids, example.response_ids):
        yield np.array([len(ids), *ids], dtype=np.int64).tobytes()
    if (features := features_of(example.prompt_ids)) is not None:
        yield features.key


class TeacherCache:
    """The top-k distributions of one teacher over a fixed list of examples.

    They are in a folder of `root` named by a hash of teacher, examples, top_k and temperature.
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
        size = teacher.text_vocab_size
        self._teacher, self._temperature, self._top_k = teacher, temperature, min(top_k, size)
        self._cache = FrozenCache(
            root,
            examples,
            described=f"{teacher.fingerprint}|t={temperature}|k={self._top_k}|rows={size}",
            arrays={
                "ids": (np.uint16 if size <= 1 << 16 else np.uint32, (self._top_k,)),
                "log_probs": (np.float16, (self._top_k,)),
                "log_rest": (np.float16, ()),
            },
            rows_of=lambda example: len(example.response_ids),
        )
        self.folder = self._cache.folder

    def fill(self, examples: Sequence[Example]) -> int:
        """Compute what is missing of these; returns how many were. Safe to stop and repeat."""
        return self._cache.fill(examples, self._compute)

    def lookup(self, examples: Sequence[Example]) -> Distributions:
        """The distributions of these examples' tokens one after another, each summing to 1."""
        self.fill(examples)
        logs = np.column_stack([self._cache.get(n, examples) for n in ("log_probs", "log_rest")])
        logs = logs.astype(np.float32)
        # float16 moves the sum by up to a thousandth: without this, a perfect student has a loss.
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        ids = self._cache.get("ids", examples).astype(np.int64)
        return Distributions(ids, logs[:, :-1].copy(), logs[:, -1].copy())

    def put(self, example: Example, values: Distributions) -> None:
        """Keep an example's distributions, rounded to float16."""
        rounded = {
            "ids": values.ids,
            "log_probs": np.maximum(values.log_probs, LEAST_LOG),
            "log_rest": np.maximum(values.log_rest, LEAST_LOG),
        }
        self._cache.put(example, rounded)

    def _compute(self, groups: Sequence[Sequence[Example]]) -> None:
        logits = self._teacher.text_logits(shared_rows(groups))
        found = top_k_of(logits, self._top_k, temperature=self._temperature)
        start = 0
        for example in chain.from_iterable(groups):
            span = slice(start, start + len(example.response_ids))
            own = Distributions(found.ids[span], found.log_probs[span], found.log_rest[span])
            self.put(example, own)
            start = span.stop


def shared_rows(groups: Iterable[Sequence[Example]]) -> list[SharedPromptRow]:
    """Groups of examples of one prompt each as rows of a batch."""
    return [
        SharedPromptRow(group[0].prompt_ids, tuple(e.response_ids for e in group))
        for group in groups
    ]


def batch_of(model: CaptionModel, rows: Sequence[SharedPromptRow]) -> TorchBatch:
    """Rows as a batch on the model's device."""
    return to_torch(collate(rows, model.vocabulary.pad_id), model.device)


def frozen_fingerprint(model: CaptionModel) -> str:
    """A hash of the weights that do not train: of a student with an adapter, its base."""
    return fingerprint_of((n, p) for n, p in model.named_parameters() if not p.requires_grad)


def fingerprint_of(weights: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of weights by name."""

    def parts() -> Iterator[str | memoryview]:
        for name, weight in sorted(weights, key=lambda one: one[0]):
            yield f"{name}{tuple(weight.shape)}{weight.dtype}"
            flat = weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
            yield flat.numpy().data

    return hash_of_parts(parts())[:32]
