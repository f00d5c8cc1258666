"""Clues that the tokenizer's heads hear: which are told, and in which order."""

from types import MappingProxyType

import pytest

from aligncap.clues import heard_clues, heard_gender, measured_clues
from aligncap.values import Fact, Facts


def facts(**values: tuple[float, float]) -> Facts:
    """Facts by name from (value, confidence)."""
    named = {name: Fact(name, value, "unit", sure) for name, (value, sure) in values.items()}
    return Facts(3.0, 2.5, MappingProxyType(named))


SLOW = facts(pace_syllables_per_s=(2.0, 0.9))


def readout(sad: float, female: float) -> dict[str, dict[str, float]]:
    return {
        "emotion": {"happy": (1 - sad) / 2, "neutral": (1 - sad) / 2, "sad": sad},
        "gender": {"female": female, "male": 1 - female},
    }


def said(*arguments: object) -> list[tuple[str, str]]:
    return [(clue.trait, clue.meaning) for clue in heard_clues(*arguments)]


def test_what_is_heard_comes_before_what_is_measured():
    expected = [("emotion", "sad"), ("gender", "female"), ("pace", "slow")]
    assert said(readout(0.8, 0.99), SLOW) == expected


@pytest.mark.parametrize(("sad", "told"), [(0.34, False), (0.36, True)])
def test_an_emotion_that_is_hardly_likelier_than_others_is_not_told(sad, told):
    even = {"sad": sad, "happy": 0.33, "angry": 0.67 - sad}
    assert (("emotion", "sad") in said({"emotion": even}, SLOW)) == told


@pytest.mark.parametrize(
    ("female", "heard"), [(0.96, "female"), (0.94, None), (0.06, None), (0.04, "male")]
)
def test_a_gender_is_told_only_where_the_heads_are_sure(female, heard):
    assert heard_gender(readout(0.8, female)) == heard
    genders = [meaning for trait, meaning in said(readout(0.8, female), SLOW) if trait == "gender"]
    assert genders == ([heard] if heard else [])


def test_a_measured_gender_goes_before_a_heard_one():
    measured = facts(female_probability=(0.01, 0.9))
    assert [clue.meaning for clue in measured_clues(measured)] == ["male"]
    assert said(readout(0.8, 0.99), measured) == [("emotion", "sad"), ("gender", "male")]


def test_a_tokenizer_without_heads_hears_nothing():
    assert heard_clues({}, SLOW) == measured_clues(SLOW)
