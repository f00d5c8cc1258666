"""Pairs as shared-prompt rows: all candidates of a clip behind one prompt, pairs as places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.draws import Draw
from aligncap.alignment.prompting import Example, Prompter
from aligncap.alignment.settings import BatchSettings, StudentSettings
from aligncap.captioner.batches import SharedPromptRow
from aligncap.errors import DataError
from aligncap.preference.rows import PreferenceRow
from aligncap.recipes import Count, recipe_section


def reads(act_mode: str) -> StudentSettings:
    """What the policy reads: P_act as it was trained with, as its candidates were made, nothing
    left out at random."""
    return StudentSettings(act_mode=act_mode, act_dropout=0.0)


@recipe_section
class PairBatchSettings(BatchSettings):
    """What one batch of pairs holds."""

    captions: Count = 16
    """Pairs among the first so many candidates of a clip count."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which responses of a batch are preferred to which, P pairs of R responses."""

    chosen: NDArray[np.int64]
    """[P]; places among the batch's responses."""
    rejected: NDArray[np.int64]
    """[P]"""
    reference: NDArray[np.float32] | None = None
    """[R]; log π_ref of each response, summed over its tokens."""


def with_pairs(rows: Sequence[PreferenceRow], *, candidates: int) -> list[PreferenceRow]:
    """The rows that hold a pair among their first `candidates`; DataError where none to train."""
    kept = [row for row in rows if any(max(pair) < candidates for pair in row.pairs)]
    if not any(row.clip.split == "train" for row in kept):
        raise DataError(
            f"none of {len(rows)} preference rows of split 'train' holds a pair; "
            "judge the candidates and make pairs first"
        )
    return kept


class PairBook:
    """Draws from preference rows as rows of ids, and their pairs."""

    def __init__(
        self,
        prompter: Prompter,
        rows: Sequence[PreferenceRow],
        *,
        candidates: int,
        act_mode: str,
    ) -> None:
        """`prompter` is over the clips of the same rows; of each the first `candidates` count."""
        self._reads = reads(act_mode)
        self._prompter, self._rows = prompter, rows
        self._pairs = [[p for p in row.pairs if max(p) < candidates] for row in rows]

    def row_of(self, draw: Draw) -> SharedPromptRow:
        """The clip's prompt, and every candidate that is in a pair, in order."""
        places = tuple(sorted({place for pair in self._pairs[draw.row] for place in pair}))
        whole = Draw(draw.row, self._rows[draw.row].language, places, None)
        return self._prompter.student_row(whole, self._reads)

    def pairs_of(self, draws: Sequence[Draw]) -> Pairs:
        """The pairs of a batch of these draws."""
        chosen: list[int] = []
        rejected: list[int] = []
        start = 0
        for draw in draws:
            pairs = self._pairs[draw.row]
            places = sorted({place for pair in pairs for place in pair})
            rank = {place: start + number for number, place in enumerate(places)}
            chosen += [rank[one] for one, _ in pairs]
            rejected += [rank[other] for _, other in pairs]
            start += len(places)
        return Pairs(np.array(chosen, dtype=np.int64), np.array(rejected, dtype=np.int64))

    def examples(self, draws: Sequence[Draw]) -> list[Example]:
        """Prompt and response of each candidate, in the order of the batch's responses."""
        rows = [self.row_of(draw) for draw in draws]
        return [Example(row.prompt_ids, said) for row in rows for said in row.responses]

    def all_draws(self) -> list[Draw]:
        """Every row once."""
        return [Draw(place, row.language, (), None) for place, row in enumerate(self._rows)]
