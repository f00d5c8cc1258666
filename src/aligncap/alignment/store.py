"""The teacher's distributions on disk: memory-mapped arrays, filled as they are asked for.

    <key>/ids.npy          [tokens, k]   the k most probable text tokens
          log_probs.npy    [tokens, k]   float16
          log_rest.npy     [tokens]      float16, the log of the mass of all other tokens
          done.npy         [examples]    1 where an example's tokens are there

The key is a hash of everything the numbers depend on; another teacher, prompt or caption never
meets them. A killed run loses nothing: an example counts as done after its numbers are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.prompting import Example
from aligncap.storage import hash_of_parts, open_arrays

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


class DistributionStore:
    """Top-k distributions of a fixed list of examples, in a folder named after all of it."""

    def __init__(
        self, root: Path, examples: Sequence[Example], *, top_k: int, rows: int, signature: str
    ) -> None:
        """`rows` is the size of the text vocabulary; `signature` says who the teacher is."""
        self._place: dict[Example, int] = {}
        for example in examples:
            self._place.setdefault(example, len(self._place))
        lengths = [len(example.response_ids) for example in self._place]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.top_k = min(top_k, rows)
        described = f"1|{signature}|k={self.top_k}|rows={rows}|{digest_of(self._place)}"
        tokens, ids = int(self._starts[-1]), np.uint16 if rows <= 1 << 16 else np.uint32
        self.folder, self._arrays = open_arrays(
            root,
            described,
            {
                "ids": (ids, (tokens, self.top_k)),
                "log_probs": (np.float16, (tokens, self.top_k)),
                "log_rest": (np.float16, (tokens,)),
                "done": (np.uint8, (len(self._place),)),
            },
        )

    def __len__(self) -> int:
        """Different examples."""
        return len(self._place)

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Of these, the ones that are not there yet, each once."""
        done = self._arrays["done"]
        return [e for e in dict.fromkeys(examples) if not done[self._place[e]]]

    def put(self, example: Example, values: Distributions) -> None:
        """Keep an example's distributions, rounded to float16."""
        place = self._place[example]
        span = slice(self._starts[place], self._starts[place + 1])
        self._arrays["ids"][span] = values.ids
        self._arrays["log_probs"][span] = np.maximum(values.log_probs, LEAST_LOG)
        self._arrays["log_rest"][span] = np.maximum(values.log_rest, LEAST_LOG)
        self._arrays["done"][place] = 1

    def get(self, examples: Sequence[Example]) -> Distributions:
        """The distributions of these examples' tokens one after another, each summing to 1."""
        places = [self._place[example] for example in examples]
        tokens = np.concatenate([np.arange(self._starts[p], self._starts[p + 1]) for p in places])
        logs = np.column_stack(
            [self._arrays["log_probs"][tokens], self._arrays["log_rest"][tokens]]
        ).astype(np.float32)
        # float16 moves the sum by up to a thousandth; without this, agreement would cost.
        logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
        return Distributions(
            self._arrays["ids"][tokens].astype(np.int64), logs[:, :-1].copy(), logs[:, -1].copy()
        )


def digest_of(examples: Sequence[Example] | dict[Example, int]) -> str:
    """A hash of prompts and responses in their order."""
    ids = (ids for example in examples for ids in (example.prompt_ids, example.response_ids))
    return hash_of_parts(np.array([len(one), *one], dtype=np.int64).tobytes() for one in ids)
