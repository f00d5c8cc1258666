"""Made segments: captions with measured facts, without a model."""

from aligncap.captioner.segments import Segment
from aligncap.values import EMOTIONS, Caption, Fact, Facts


def facts(pitch_hz, pace, loudness=-23.0) -> Facts:
    values = {"pitch_median_hz": pitch_hz, "pace_syllables_per_s": pace, "loudness_db": loudness}
    by_name = {
        name: Fact(name, value, "", 1.0 if value else 0.0, "" if value else "not told")
        for name, value in values.items()
    }
    return Facts(2.0, 2.0, by_name)


def spoken(
    start,
    end,
    emotion=None,
    *,
    text="Somebody speaks.",
    arousal=0.0,
    pitch_hz=200.0,
    pace=4.0,
    channel=None,
    **more,
) -> Segment:
    """A segment of speech; `emotion` has the probabilities that are not 0, "neutral" alone if
    there is none."""
    shares = dict.fromkeys(EMOTIONS, 0.0) | (emotion or {"neutral": 1.0})
    caption = Caption(
        *(text, "en", end - start, (), shares, arousal, 0.0),
        *(None, None, None, None, 1.0, 0.0, "fake"),
        **{"facts": facts(pitch_hz, pace), **more},
    )
    return Segment(start, end, "speech", caption, channel)
