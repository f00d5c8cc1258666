"""Clues that the tokenizer's heads hear: which are told, and in which order."""

from types import MappingProxyType

import pytest

from aligncap.clues import audible_clues, audible_gender, measured_clues
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
    return [(clue.trait, clue.meaning) for clue in audible_clues(*arguments)]


def test_what_is_heard_comes_before_what_is_measured():
    expected = [("emotion", "sad"), ("gender", "female"), ("pace", "slow")]
    assert said(readout(0.8, 0.99), SLOW) == expected


def test_the_likeliest_emotion_is_told_however_near_the_others_are():
    even = {"sad": 0.34, "happy": 0.33, "angry": 0.33}
    assert said({"emotion": even}, SLOW)[0] == ("emotion", "sad")


@pytest.mark.parametrize(
    ("female", "heard"), [(0.96, "female"), (0.94, None), (0.06, None), (0.04, "male")]
)
def test_a_gender_is_told_only_where_the_heads_are_sure(female, heard):
    assert audible_gender(readout(0.8, female), SLOW) == heard
    genders = [meaning for trait, meaning in said(readout(0.8, female), SLOW) if trait == "gender"]
    assert genders == ([heard] if heard else [])


@pytest.mark.parametrize(
    ("head", "voice", "told"),
    [
        (0.85, 0.85, "female"),  # 17/3 twice: odds of 32 to 1
        (0.85, 0.70, None),  # 17/3 * 7/3: 13 to 1, below 19 to 1
        (0.99, 0.20, "female"),  # 99 / 4
        (0.99, 0.01, None),  # they contradict each other
        (0.10, 0.20, "male"),  # 1 to 36
    ],
)
def test_head_and_measured_voice_are_two_witnesses(head, voice, told):
    measured = facts(female_probability=(voice, 0.9))
    assert audible_gender(readout(0.8, head), measured) == told


def test_a_tokenizer_without_heads_hears_nothing():
    assert audible_clues({}, SLOW) == measured_clues(SLOW)
    measured = facts(female_probability=(0.02, 0.9))
    assert said({}, measured) == [("gender", "male")]
