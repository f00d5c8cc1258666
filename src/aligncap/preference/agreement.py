"""How far judges agree: Kendall's tau-b, Krippendorff's alpha, accuracy against people's choices.

Pure functions of numbers. NaN where nothing can be said, such as of judges who never differ.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.store import Annotation

LEVELS = ("nominal", "ordinal", "interval")
"""What the values of a rating are: names, ranks, or numbers with equal steps."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Concordance:
    """How often two judges put two things into the same order."""

    same: int = 0
    opposite: int = 0
    tied_first: int = 0
    """Tied by the first judge only."""
    tied_second: int = 0

    def __add__(self, other: "Concordance") -> "Concordance":
        return Concordance(
            self.same + other.same,
            self.opposite + other.opposite,
            self.tied_first + other.tied_first,
            self.tied_second + other.tied_second,
        )

    @property
    def tau_b(self) -> float:
        """Kendall's tau-b, (P - Q) / sqrt((P + Q + T) (P + Q + U)) (Kendall, 1945)."""
        ordered = self.same + self.opposite
        scale = math.sqrt((ordered + self.tied_first) * (ordered + self.tied_second))
        return (self.same - self.opposite) / scale if scale else math.nan


def concordance(first: Sequence[float], second: Sequence[float]) -> Concordance:
    """Of all pairs among n things, how two judges' n scores order them.

    The concordances of several clips may be added: things of different clips are then never
    compared, as they are not when pairs are made.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} scores cannot be compared with {len(second)}")
    upper = np.triu_indices(len(first), k=1)
    a, b = (
        np.sign(np.subtract.outer(scores, scores))[upper]
        for scores in (np.asarray(first, np.float64), np.asarray(second, np.float64))
    )
    return Concordance(
        same=int((a * b > 0).sum()),
        opposite=int((a * b < 0).sum()),
        tied_first=int(((a == 0) & (b != 0)).sum()),
        tied_second=int(((a != 0) & (b == 0)).sum()),
    )


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b between two judges' scores of the same things."""
    return concordance(first, second).tau_b


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]], level: str) -> float:
    """Krippendorff's alpha, 1 - observed / expected disagreement (Krippendorff, 2011).

    `ratings` are one row a rater and one column a unit, None where a rater did not rate it. Units
    that fewer than two rated say nothing. 1 is agreement in all, 0 that of chance.
    """
    if level not in LEVELS:
        raise UnknownNameError("level of measurement", level, LEVELS)
    if len({len(row) for row in ratings}) > 1:
        raise DataError("each rater needs a rating or None for every unit")
    units = [[one for one in unit if one is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = sorted({one for unit in units for one in unit})
    coincidences = np.zeros((len(values), len(values)))
    for unit in units:
        counts = np.array([unit.count(value) for value in values], dtype=np.float64)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    margins = coincidences.sum(axis=1)
    distances = _distances(np.array(values), margins, level)
    observed = float((coincidences * distances).sum())
    expected = float((np.outer(margins, margins) * distances).sum())
    return 1 - float(margins.sum() - 1) * observed / expected if expected else math.nan


def _distances(values: Matrix, margins: Matrix, level: str) -> Matrix:
    """Squared differences between values, shape [values, values]."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.subtract.outer(values, values) ** 2
    # Ranks: how many ratings lie between two values, half of those at each end.
    places = np.cumsum(margins) - margins / 2
    return np.subtract.outer(places, places) ** 2


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a judge prefers what a person preferred."""

    value: float
    """A judge's tie counts half; NaN where nothing was compared."""
    compared: int
    """Choices that were no tie or skip, of candidates that the judge has judged."""


def accuracy_against(choices: Iterable[Annotation], scores: Mapping[str, float]) -> Accuracy:
    """The share of people's preferences that a judge's scores (by candidate) share."""
    right = compared = 0.0
    for choice in choices:
        first, second = choice.pair
        if choice.value and first in scores and second in scores:
            compared += 1
            sign = np.sign(scores[first] - scores[second])
            right += 0.5 if sign == 0 else float(sign == choice.value)
    return Accuracy(right / compared if compared else math.nan, int(compared))


def ratings_of(choices: Iterable[Annotation]) -> list[list[float | None]]:
    """People's choices as ratings: a row a person, a column for each pair that anybody judged."""
    values: dict[str, dict[tuple[str, str], int]] = {}
    for choice in choices:
        if choice.value is not None:
            values.setdefault(choice.annotator, {})[choice.pair] = choice.value
    pairs = sorted({pair for row in values.values() for pair in row})
    return [[row.get(pair) for pair in pairs] for _, row in sorted(values.items())]
