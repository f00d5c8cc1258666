"""Precision, recall and F1 of typed clues: what captions say of the voice, whatever their words.

A claim is a trait, a meaning and whether it is denied ("not loud" is not "loud"); a caption makes
each claim once, in English or Chinese. It stands in for SPICE, which reads English scenes. With
several references, a claim is right if any of them makes it, and what had to be said is what the
reference nearest to it says: no caption can say what each of them says.

Claims are counted over all clips (micro average), so a clip weighs as much as it has claims.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.scoring.findings import Claim, Findings
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.values import Floats, ScoredClip, Statistics

COLUMNS = ("right", "made", "recalled", "wanted")
"""Claims that some reference makes too, of how many; claims recalled of the nearest reference, of
how many."""


def nearest(made: Collection[Claim], references: Sequence[Collection[Claim]]) -> Collection[Claim]:
    """The claims of the reference of which most are made too; of several, of the one that has
    fewest others. Where nothing fits, of the one that claims most."""

    def nearness(wanted: Collection[Claim]) -> tuple[int, int]:
        recalled = sum(claim in made for claim in wanted)
        return recalled, -len(wanted) if recalled else len(wanted)

    return max(references, key=nearness)


def count_claims(
    made: Collection[Claim], references: Sequence[Collection[Claim]]
) -> tuple[int, int, int, int]:
    """The numbers of `COLUMNS` for one clip; no collection holds a claim twice."""
    right = sum(any(claim in wanted for wanted in references) for claim in made)
    wanted = nearest(made, references)
    return right, len(made), sum(claim in made for claim in wanted), len(wanted)


def precision(sums: Floats) -> Floats:
    """Share of the claims made that a reference makes; sums of `COLUMNS`, shape [..., 4] → [...].

    0 where nothing is claimed though there was something to say, NaN where there was not.
    """
    right, made, _, wanted = np.moveaxis(sums, -1, 0)
    silent = np.where(wanted > 0, 0.0, np.nan)
    return np.where(made > 0, right / np.maximum(made, 1), silent)


def recall(sums: Floats) -> Floats:
    """Share of the claims wanted that are made; sums of `COLUMNS`, shape [..., 4] → [...].

    NaN where the references claim nothing.
    """
    _, _, recalled, wanted = np.moveaxis(sums, -1, 0)
    return np.where(wanted > 0, recalled / np.maximum(wanted, 1), np.nan)


def f1(sums: Floats) -> Floats:
    """The harmonic mean of precision and recall; sums of `COLUMNS`, shape [..., 4] → [...].

    0 where one side claims nothing, NaN where both do.
    """
    p, r = precision(sums), np.nan_to_num(recall(sums))
    silent = np.where(np.isnan(p), np.nan, 0.0)
    return np.where(p + r > 0, 2 * p * r / np.where(p + r > 0, p + r, 1.0), silent)


VALUES = {"clue-precision": precision, "clue-recall": recall, "clue-f1": f1}


@dataclass(frozen=True, slots=True)
class ClueScore:
    """Precision, recall or F1 of the clues in one language."""

    name: str
    language: str
    findings: Findings

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:micro+nearest|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        rows = np.array([self._row(clip) for clip in clips], dtype=np.float64)
        return Statistics(rows.reshape(len(clips), len(COLUMNS)), VALUES[self.name])

    def _row(self, clip: ScoredClip) -> tuple[int, int, int, int]:
        made = self.findings.claims(clip.hypothesis, self.language)
        wanted = [self.findings.claims(text, self.language) for text in clip.references]
        return count_claims(made.keys(), [claims.keys() for claims in wanted])


def open_metric(name: str, options: MetricOptions) -> ClueScore:
    """`clue-precision`, `clue-recall` or `clue-f1`."""
    return ClueScore(name, options.language, options.findings)
