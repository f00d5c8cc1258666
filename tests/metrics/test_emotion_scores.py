"""Emotion recall beside scikit-learn's balanced accuracy, and where the truth comes from."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from aligncap.errors import DataError
from aligncap.metrics.claims import macro_recall
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions, open_metric


def recall(*clips: ScoredClip, language: str = "en") -> float:
    return open_metric("emotion-recall", MetricOptions(language=language)).measure([*clips]).value


def clip(hypothesis: str, *references: str, emotion: str | None = None) -> ScoredClip:
    return ScoredClip("c", hypothesis, references, emotion=emotion)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns_balanced_accuracy(seed):
    chance = np.random.default_rng(seed)
    truth = chance.choice(["sad", "happy", "angry"], 60, p=[0.7, 0.2, 0.1]).tolist()
    named = chance.choice(sorted(set(truth)), 60).tolist()
    expected = balanced_accuracy_score(truth, named)
    assert macro_recall(truth, named) == pytest.approx(expected)
    clips = [clip(f"She is {a}.", "Speech.", emotion=b) for a, b in zip(named, truth, strict=True)]
    assert recall(*clips) == pytest.approx(expected)


def test_a_caption_that_names_nothing_is_wrong():
    # sad: one of two; happy: one of one.
    assert macro_recall(["sad", "sad", "happy"], [None, "sad", "happy"]) == 0.75
    clips = [clip("", "Sad."), clip("He is sad.", "Sad."), clip("A happy man.", "Happy.")]
    assert recall(*clips) == 0.75


@pytest.mark.parametrize(("truth", "named"), [([], []), (["sad"], [])])
def test_nothing_to_average_is_an_error(truth, named):
    with pytest.raises(DataError, match="macro recall"):
        macro_recall(truth, named)


def test_the_label_goes_before_the_references():
    assert recall(clip("She is sad.", "She is angry.", emotion="sad")) == 1


def test_without_a_label_most_references_decide():
    references = ("She is angry.", "Sad.", "An angry woman.")
    assert recall(clip("She is angry.", *references)) == 1
    assert recall(clip("She is sad.", *references)) == 0


@pytest.mark.parametrize("references", [("Sad.", "Angry."), ("Angry.", "Sad.")])
def test_of_as_many_the_order_of_references_does_not_decide(references):
    assert recall(clip("She is angry.", *references)) == 1


def test_a_clip_without_an_emotion_is_not_counted():
    told = clip("悲伤的女性。", "她很悲伤。")
    assert recall(told, clip("她很高兴。", "一位女性。"), language="zh") == 1
    assert math.isnan(recall(clip("她很高兴。", "一位女性。"), language="zh"))


def test_an_emotion_that_is_no_category_is_refused():
    with pytest.raises(DataError, match="c: emotion is 'joyous', must be one of angry, bored"):
        clip("", "Happy.", emotion="joyous")
