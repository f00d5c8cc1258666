"""The bootstrap interval of macro recall, class by class."""

from collections.abc import Sequence

import numpy as np


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
