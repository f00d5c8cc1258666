"""What a long recording comes to: means by hand, planted turning points, bounded memory."""

import json
import math

import numpy as np
import pytest

from aligncap.captioner.segments import Segment
from aligncap.captioner.summary import MOST_PARTS, MOST_STEPS, Summarizer, changes, summarize
from aligncap.errors import NoSpeechError
from support.segments import spoken


def test_means_count_a_second_of_speech_once():
    found = [
        spoken(0, 1, {"sad": 1.0}, arousal=-0.5, pitch_hz=100.0, pace=3.0),
        Segment(1, 4, "music"),
        spoken(4, 7, {"sad": 0.2, "angry": 0.8}, arousal=0.5, pitch_hz=400.0, pace=5.0),
        Segment(7, 8, "speech", NoSpeechError("no speech")),
    ]
    (one,) = summarize(iter(found))
    assert (one.duration_s, one.failed, one.wordless) == (8, 1, 0)
    assert one.seconds == {"speech": 5, "music": 3}
    whole = one.whole
    assert (whole.utterances, whole.speech_s, whole.start_s, whole.end_s) == (2, 4, 0, 7)
    assert whole.emotion["sad"] == pytest.approx((1 + 3 * 0.2) / 4)
    assert whole.arousal == pytest.approx(0.25)
    assert whole.pitch_hz == pytest.approx(100 ** (1 / 4) * 400 ** (3 / 4))
    assert whole.syllables_per_s == pytest.approx(4.5)
    assert [part.utterances for part in one.parts] == [2]


def drawn(draw, start, mean, *, count):
    """Utterances whose values are spread about a mean."""
    for number in range(count):
        angry = float(np.clip(draw.normal(mean["angry"], 0.1), 0, 1))
        at = start + 3.0 * number
        yield spoken(
            *(at, at + 2, {"angry": angry, "neutral": 1 - angry}),
            arousal=float(draw.normal(mean["arousal"], 0.1)),
            pitch_hz=float(200 * 2 ** draw.normal(mean["pitch_st"] / 12, 0.1)),
            pace=float(draw.normal(4.0, 0.5)),
        )


CALM = {"angry": 0.2, "arousal": -0.2, "pitch_st": 0.0}
ANGRY = {"angry": 0.7, "arousal": 0.6, "pitch_st": 4.0}


@pytest.mark.parametrize("seed", range(4))
def test_turning_points_are_where_something_turns(seed):
    draw = np.random.default_rng(seed)
    found = [*drawn(draw, 0, CALM, count=20), *drawn(draw, 60, ANGRY, count=15)]
    found += drawn(draw, 105, CALM, count=25)
    (one,) = summarize(found)
    assert [part.start_s for part in one.parts] == pytest.approx([0, 60, 105], abs=3)
    up = changes(*one.parts[:2])
    assert up["arousal"] == pytest.approx(0.8, abs=0.15)
    assert up["pitch_st"] == pytest.approx(4, abs=1)
    assert up["emotion"] == pytest.approx(0.5, abs=0.1)
    lines = list(one.lines())
    assert "turns: more angry" in lines[2]
    assert len(lines) == 6


def test_without_a_change_nothing_turns():
    turned = 0
    for seed in range(15):
        draw = np.random.default_rng(seed)
        (one,) = summarize(drawn(draw, 0, CALM, count=60))
        turned += len(one.parts) > 1
    assert turned <= 2


def test_memory_does_not_grow_and_long_recordings_turn_too():
    draw, summarizer = np.random.default_rng(0), Summarizer()
    for mean, start in ((CALM, 0), (ANGRY, 1800)):
        for one in drawn(draw, start, mean, count=600):
            summarizer.add(one)
    (one,) = summarizer.summaries()

    assert MOST_STEPS / 2 <= len(one.steps) <= MOST_STEPS
    assert sum(step.utterances for step in one.steps) == one.whole.utterances == 1200
    assert len(one.parts) <= MOST_PARTS
    assert min(abs(part.start_s - 1800) for part in one.parts) < 50


def test_channels_are_summarized_apart_and_what_cannot_be_told_is_none():
    found = [spoken(0, 2, channel=1), spoken(1, 2, {"sad": 1.0}, channel=0, pitch_hz=None)]
    found.append(spoken(3, 4, channel=0, vocalization="laughing"))
    first, second = summarize(found)
    assert (first.channel, second.channel) == (0, 1)
    assert first.whole.likeliest[0] == ("sad", 1.0)
    assert (first.whole.pitch_hz, first.wordless) == (None, 1)
    record = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert (record["kind"], record["channel"], record["utterances"]) == ("summary", 1, 1)
    assert record["parts"][0]["pitch_hz"] is None


def test_nothing_said_is_no_part():
    (one,) = summarize([Segment(0, 3, "silence")])
    assert (one.parts, one.whole.utterances) == ((), 0)
    assert list(one.lines()) == [
        "Summary: 00:00:03, 0 utterances of 00:00:00 together, silence 00:00:03"
    ]
    assert summarize([])[0].duration_s == 0
    assert not any(isinstance(one, float) and math.isnan(one) for one in one.to_dict().values())


def test_times_may_be_whole_numbers():
    (one,) = summarize(spoken(2 * at, 2 * at + 1) for at in range(10))
    assert [part.utterances for part in one.parts] == [10]
