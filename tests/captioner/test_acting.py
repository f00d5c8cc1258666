"""P_act of unseen speech: one for each mode, in the language of the caption."""

from types import MappingProxyType

import numpy as np
import pytest

from aligncap.captioner.prompts import ACOUSTIC_PROMPT_SOURCES, student_acoustic_prompt
from aligncap.errors import UnknownNameError
from aligncap.values import Fact, Facts, SpeechTokens

SLOW = Facts(
    3.0,
    2.5,
    MappingProxyType({"pace_syllables_per_s": Fact("pace_syllables_per_s", 2.0, "1/s", 0.9)}),
)
SAD = SpeechTokens(np.array([[1, 2]]), {"emotion": {"sad": 0.8, "happy": 0.2}})

EXPECTED = {
    ("none", "en"): "",
    ("measured", "en"): "Feeling slow",
    ("heard", "en"): "Feeling sad and slow",
    ("none", "zh"): "",
    ("measured", "zh"): "感到语速慢",
    ("heard", "zh"): "感到悲伤和语速慢",
}


@pytest.mark.parametrize(("mode", "language"), EXPECTED)
def test_each_mode_says_what_it_knows(mode, language):
    assert student_acoustic_prompt(mode, SLOW, SAD, language) == EXPECTED[mode, language]


def test_every_mode_is_tried():
    assert {mode for mode, _ in EXPECTED} == set(ACOUSTIC_PROMPT_SOURCES)


def test_an_unknown_mode_is_named():
    with pytest.raises(UnknownNameError, match="guessed"):
        student_acoustic_prompt("guessed", SLOW, SAD, "en")
