"""Which wording is told, by hand: model, heads and signal each have their say."""

import math
from types import MappingProxyType

import numpy as np
import pytest

from aligncap.captioner.captioner import CaptionHypothesis, PreparedSpeech, log_chance, rerank
from aligncap.captioner.runtimes import Hypothesis
from aligncap.values import Fact, Facts, SpeechTokens

FAST = Facts(
    3.0,
    2.5,
    MappingProxyType({"pace_syllables_per_s": Fact("pace_syllables_per_s", 7.0, "1/s", 0.9)}),
)


def heard(**emotions: float) -> PreparedSpeech:
    readout = {"emotion": emotions} if emotions else {}
    return PreparedSpeech(3.0, None, FAST, SpeechTokens(np.array([[1, 2]]), readout))


def wording(text: str, mean: float, tokens: int = 10) -> CaptionHypothesis:
    return CaptionHypothesis(text, Hypothesis.of(tuple(range(tokens)), mean * tokens, 1.0))


def told(utterance: PreparedSpeech, *wordings: CaptionHypothesis) -> str:
    return rerank(wordings, utterance, language="en")[0].text


SAD, ANGRY = wording("She sounds sad.", -1.0), wording("She sounds angry.", -1.1)


def test_without_other_witnesses_the_model_decides():
    assert told(heard(), ANGRY, SAD) == SAD.text


def test_the_heads_decide_between_wordings_that_are_nearly_as_probable():
    # 0.1 nats a token for sad against 0.1 * ln(0.8 / 0.1) = 0.21 for angry.
    assert told(heard(angry=0.8, sad=0.1), SAD, ANGRY) == ANGRY.text
    # ... but 0.1 * ln(0.5 / 0.4) = 0.02 is too little.
    assert told(heard(angry=0.5, sad=0.4), SAD, ANGRY) == SAD.text


def test_what_the_signal_contradicts_costs():
    slow, fast = wording("She speaks slowly.", -1.0), wording("She speaks fast.", -1.05)
    assert told(heard(), slow, fast) == fast.text


def test_naming_no_emotion_is_no_way_round_the_heads():
    nothing = wording("She is speaking.", -1.0)
    assert told(heard(sad=0.9), nothing, wording("She sounds sad.", -1.2)) == SAD.text


@pytest.mark.parametrize(
    ("emotions", "named", "expected"),
    [
        ({}, "sad", 0.0),
        ({"sad": 0.5}, "sad", math.log(0.5)),
        ({"sad": 0.5}, None, math.log(0.01)),
        ({"sad": 0.001}, "sad", math.log(0.01)),
    ],
)
def test_chances_have_a_floor(emotions, named, expected):
    assert log_chance(emotions, named) == pytest.approx(expected)
