"""The curves that are drawn of a recording, worked out by hand."""

import numpy as np
import pytest

from aligncap.prosody import curves_along, curves_of
from aligncap.prosody.curves import QUIETEST_LUFS
from aligncap.values import RATE_HZ, Waveform


def tone(hz: float, seconds: float, amplitude: float = 0.5) -> np.ndarray:
    """A buzz with ten harmonics."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = sum(np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 11))
    return (amplitude * wave / np.abs(wave).max()).astype(np.float32)


def test_a_tone_and_a_silence_are_drawn_where_they_are():
    sound = np.concatenate([tone(200, 1.0), np.zeros(RATE_HZ, np.float32)])
    found = curves_of(Waveform(sound))
    assert found.step_s == pytest.approx(0.01)
    assert {len(one) for one in (found.peak, found.pitch_hz, found.loudness_lufs)} == {200}
    assert found.peak[:100].min() > 0.4
    assert found.peak[100:].max() == 0.0
    assert found.pitch_hz[5:95] == pytest.approx(np.full(90, 200.0), rel=0.01)
    assert np.isnan(found.pitch_hz[105:]).all()
    assert found.loudness_lufs[-1] == QUIETEST_LUFS


def test_loudness_is_that_of_the_standard():
    # A sine of 997 Hz at full scale has -3.01 LUFS (BS.1770-4); half of it is 6.02 dB below.
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(RATE_HZ) / RATE_HZ)
    found = curves_of(Waveform(sine.astype(np.float32)))
    assert found.loudness_lufs == pytest.approx(np.full(100, -9.03), abs=0.1)


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.3, 1.999, 7.77])
def test_no_more_points_than_there_is_room_for(seconds):
    sound = tone(150, seconds)
    found = curves_of(Waveform(sound), most_points=100)
    points = len(found.peak)
    assert 1 <= points <= 100
    assert (points - 1) * found.step_s < seconds <= points * found.step_s + 1e-9
    assert found.peak.max() == np.abs(sound).max()


def test_silence_has_no_pitch():
    found = curves_of(Waveform(np.zeros(8000, np.float32)), most_points=7)
    assert np.isnan(found.pitch_hz).all()
    assert not found.peak.any()


@pytest.mark.parametrize("seconds", [0.5, 125.3])
def test_a_stream_has_the_curves_of_the_whole_stretch_by_stretch(seconds):
    half = round(seconds * RATE_HZ / 2)
    sound = np.concatenate([tone(200, seconds / 2)[:half], np.zeros(half, np.float32)])
    blocks = [sound[at : at + 70_001] for at in range(0, len(sound), 70_001)]
    stretches = list(curves_along(blocks, seconds, most_points=500))
    assert len(stretches) == -(-len(sound) // 655_360)  # of 40.96 s each
    (step_s,) = {one.step_s for one in stretches}
    found = {
        name: np.concatenate([getattr(one, name) for one in stretches])
        for name in ("peak", "pitch_hz", "loudness_lufs")
    }
    # As many points of the whole as give the same step.
    whole = curves_of(Waveform(sound), most_points=-(-len(sound) // round(step_s * RATE_HZ)))
    assert whole.step_s == pytest.approx(step_s)
    assert {len(one) for one in found.values()} == {len(whole.peak)}
    assert len(whole.peak) <= 500
    assert np.array_equal(found["peak"], whole.peak)
    # At the edge of a piece less is known of what is beyond.
    same = np.isclose(found["pitch_hz"], whole.pitch_hz, rtol=0.01, equal_nan=True)
    assert same.mean() > 0.98
    assert np.mean(np.abs(found["loudness_lufs"] - whole.loudness_lufs) < 0.5) > 0.97


def test_a_stream_that_is_longer_than_expected_has_more_points():
    sound = tone(150, 90.0)
    counts = [len(one.peak) for one in curves_along([sound], 1.0, most_points=100)]
    assert counts == [4096, 4096, 808]
    assert list(curves_along([], 1.0)) == []
