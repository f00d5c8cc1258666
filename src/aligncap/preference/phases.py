"""A round of PPO's rollouts, and how it is kept.

A phase depends on the weights, its number and the seed only, and is
kept on disk until no checkpoint needs it any more: a run that was killed between two updates of a
phase goes on with the very same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.captioner.batches import SharedPromptRow
from aligncap.storage import atomic_file

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Phase:
    """Rollouts of some clips, N tokens of R responses in reading order."""

    rows: tuple[SharedPromptRow, ...]
    """The clips' prompts, and the responses that were drawn."""
    log_probs: Floats
    """[N]; of the policy that drew them."""
    values: Floats
    """[N]"""
    advantages: Floats
    """[N], whitened over the phase."""
    returns: Floats
    """[N]; what the value head is to say."""
    scores: Floats
    """[R]; the reward of each response, without what distance to the reference costs."""
    kl: float
    """log π - log π_ref of a response, mean over them, in nats."""
    coefficient: float
    """What a nat cost."""
    next_coefficient: float
    """What it costs in the next phase."""
    unfinished: float
    """Share of responses that were cut off."""

    def tokens_of(self, places: Sequence[int]) -> NDArray[np.int64]:
        """Where the tokens of these rows are among the N."""
        lengths = [sum(map(len, row.responses)) for row in self.rows]
        starts = [0, *accumulate(lengths)]
        return np.concatenate([np.arange(starts[p], starts[p + 1]) for p in places])


def save_phase(phase: Phase, path: Path) -> None:
    """Write a phase, whole or not at all."""
    arrays: dict[str, Any] = {
        field.name: getattr(phase, field.name) for field in fields(phase) if field.name != "rows"
    }
    arrays["prompts"], arrays["prompt_lengths"] = _flat([row.prompt_ids for row in phase.rows])
    said = [response for row in phase.rows for response in row.responses]
    arrays["responses"], arrays["response_lengths"] = _flat(said)
    arrays["counts"] = np.array([len(row.responses) for row in phase.rows])
    with atomic_file(path, "wb") as file:
        np.savez(file, **arrays)


def load_phase(path: Path) -> Phase:
    """The phase that `save_phase` wrote; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    prompts = _ragged(arrays.pop("prompts"), arrays.pop("prompt_lengths"))
    said = iter(_ragged(arrays.pop("responses"), arrays.pop("response_lengths")))
    counts = arrays.pop("counts").tolist()
    rows = tuple(
        SharedPromptRow(prompt, tuple(next(said) for _ in range(count)))
        for prompt, count in zip(prompts, counts, strict=True)
    )
    values: dict[str, Any] = {
        name: array if array.ndim else float(array) for name, array in arrays.items()
    }
    return Phase(rows=rows, **values)


def drop_phases(folder: Path, *, before: int) -> None:
    """Remove the phases that come before one, which no checkpoint can go back to."""
    for path in folder.glob("phase-*.npz"):
        if int(path.stem.rpartition("-")[2]) < before:
            path.unlink(missing_ok=True)


def phase_path(folder: Path, number: int) -> Path:
    """Where a phase is kept."""
    return folder / f"phase-{number}.npz"


def _flat(
    lists: Sequence[Sequence[int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(one) for one in lists], dtype=np.int64)
    return np.array([i for one in lists for i in one], dtype=np.int64), lengths


def _ragged(flat: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in np.split(flat, np.cumsum(lengths)[:-1])]
