"""How far judges agree: Kendall's tau-b, Krippendorff's alpha, accuracy against people's choices.

Pure functions of numbers. NaN where nothing can be said, such as of judges who never differ.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aligncap.errors import MissingModelError
from aligncap.preference.store import Annotation

Scores = Sequence[float]


def kendall_tau_b(clips: Iterable[tuple[Scores, Scores]]) -> float:
    """Kendall's tau-b (Kendall, 1945) between two judges' scores of the candidates of each clip.

    Over all pairs of candidates of one clip, as pairs of two clips are never made: the sum of
    sign(a_i - a_j) sign(b_i - b_j), over its largest value without ties of both judges.
    """
    signs = [np.zeros((2, 0))]
    for pair in clips:
        first, second = np.asarray(pair, np.float64)
        upper = np.triu_indices(len(first), k=1)
        orders = [np.sign(np.subtract.outer(one, one))[upper] for one in (first, second)]
        signs.append(np.array(orders))
    a, b = np.concatenate(signs, axis=1)
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / scale if scale else math.nan


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | None]], level: Literal["nominal", "ordinal"]
) -> float:
    """Krippendorff's alpha, 1 - observed / expected disagreement (Krippendorff, 2011).

    `ratings` are one row a rater and one column a unit, None where a rater did not rate it. Units
    that fewer than two rated say nothing. 1 is agreement in all, 0 that of chance.
    """
    table = np.array(ratings, dtype=np.float64, ndmin=2)
    table = table[:, np.isfinite(table).sum(axis=0) > 1]
    if len(np.unique(table[np.isfinite(table)])) < 2:
        return math.nan
    try:
        from krippendorff import alpha
    except ModuleNotFoundError as error:
        raise MissingModelError(
            "the agreement of people needs krippendorff, which is not installed; "
            "run: pip install 'aligncap[serve]'"
        ) from error
    return float(alpha(table, level_of_measurement=level))


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
