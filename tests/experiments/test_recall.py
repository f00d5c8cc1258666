"""Macro recall beside scikit-learn's, and whether its interval covers."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from aligncap.errors import DataError
from aligncap.experiments.recall import bootstrap_interval, macro_recall


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns_balanced_accuracy(seed):
    chance = np.random.default_rng(seed)
    truth = chance.choice(["sad", "happy", "angry"], 60, p=[0.7, 0.2, 0.1]).tolist()
    named = chance.choice(sorted(set(truth)), 60).tolist()
    assert macro_recall(truth, named) == pytest.approx(balanced_accuracy_score(truth, named))


def test_a_caption_that_names_nothing_is_wrong():
    # sad: one of two; happy: one of one.
    assert macro_recall(["sad", "sad", "happy"], [None, "sad", "happy"]) == 0.75


@pytest.mark.parametrize(("truth", "named"), [([], []), (["sad"], [])])
def test_nothing_to_average_is_an_error(truth, named):
    with pytest.raises(DataError, match="macro recall"):
        macro_recall(truth, named)


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
