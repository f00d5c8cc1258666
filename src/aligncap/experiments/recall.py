"""Macro recall, its bootstrap interval, and shares: pure functions of what was named."""

from collections.abc import Sequence

import numpy as np

from aligncap.errors import DataError


def macro_recall(truth: Sequence[str], named: Sequence[str | None]) -> float:
    """Mean over the classes of `truth` of the share of each that was named right (UAR).

    None counts as wrong. Raises DataError where there is nothing to average.
    """
    if len(truth) != len(named) or not truth:
        raise DataError(f"macro recall of {len(truth)} labels and {len(named)} answers")
    right: dict[str, list[bool]] = {}
    for label, answer in zip(truth, named, strict=True):
        right.setdefault(label, []).append(label == answer)
    return float(np.mean([np.mean(hits) for hits in right.values()]))


def bootstrap_interval(
    truth: Sequence[str], named: Sequence[str | None], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of macro recall over clips drawn with replacement, class by
    class, so that every class stays as large as it is."""
    random = np.random.default_rng(seed)
    hits = np.array([a == b for a, b in zip(truth, named, strict=True)])
    labels = np.array(truth)
    recalls = np.zeros(draws)
    classes = np.unique(labels)
    for label in classes:
        own = hits[labels == label]
        picks = random.integers(0, len(own), (draws, len(own)))
        recalls += own[picks].mean(axis=1)
    low, high = np.percentile(recalls / len(classes), [2.5, 97.5])
    return float(low), float(high)
