"""Whether the interval of macro recall covers."""

import numpy as np

from aligncap.experiments.validation import bootstrap_interval
from aligncap.metrics.claims import macro_recall


def test_the_interval_covers_the_true_recall_about_as_often_as_it_says():
    chance = np.random.default_rng(0)
    truth = ["sad"] * 60 + ["happy"] * 30
    covered = 0
    for trial in range(100):
        right = chance.random(90) < np.array([0.8] * 60 + [0.5] * 30)
        named = [label if hit else None for label, hit in zip(truth, right, strict=True)]
        low, high = bootstrap_interval(truth, named, draws=300, seed=trial)
        assert low <= macro_recall(truth, named) <= high
        covered += low <= (0.8 + 0.5) / 2 <= high
    assert 88 <= covered <= 100


def test_the_interval_is_the_same_each_time_and_closed_where_nothing_varies():
    truth = ["a", "b"] * 10
    named = [*truth[:15], *([None] * 5)]
    assert bootstrap_interval(truth, named) == bootstrap_interval(truth, named)
    assert bootstrap_interval(truth, truth) == (1.0, 1.0)
