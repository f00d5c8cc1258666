"""The pitch tracker against Praat's, on real voices, and against signals of known pitch."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.data.manifest import read_manifest
from aligncap.prosody import pitch_track
from aligncap.values import RATE_HZ, Waveform, once_per_waveform
from support.signals import harmonics, noise, seconds, waveform

parselmouth = pytest.importorskip("parselmouth", reason="the oracle, of the dev extra")

CLIPS = 12
"""Clips of each corpus, evenly spread."""


def compared(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Our pitch and Praat's of a clip at the same moments, 0 where unvoiced."""
    sound = load(path)
    track = pitch_track(sound)
    praat = parselmouth.Sound(sound.samples.astype(np.float64), RATE_HZ).to_pitch_ac(
        time_step=0.01, pitch_floor=60, pitch_ceiling=600
    )
    return track.frequency_hz, np.nan_to_num([praat.get_value_at_time(t) for t in track.times_s])


@pytest.mark.parametrize("corpus", ["ravdess", "emodb", "nemo", "ased", "secap"])
def test_pitch_agrees_with_praat_on_real_voices(speech_data, corpus):
    clips = [one.path for one in read_manifest(speech_data / corpus / "manifest.jsonl")]
    pairs = [compared(path) for path in clips[:: len(clips) // CLIPS][:CLIPS]]
    ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
    both = (ours > 0) & (theirs > 0)
    gross = np.abs(ours[both] / theirs[both] - 1) > 0.2
    assert gross.mean() < 0.03
    assert ((ours > 0) == (theirs > 0)).mean() > 0.88
    for one, other in pairs:
        shared = (one > 0) & (other > 0)
        if shared.sum() >= 20:
            apart_st = 12 * np.log2(np.median(one[shared]) / np.median(other[shared]))
            assert abs(apart_st) < 1.0


def steady(hertz: float) -> np.ndarray:
    return 0.1 * harmonics(np.full(RATE_HZ, hertz), top_hz=12 * hertz)


@pytest.mark.parametrize("hertz", [70.0, 110.0, 200.0, 330.0, 550.0])
def test_a_steady_voice_has_its_pitch_whatever_its_level(hertz):
    for level in (1.0, 0.01):
        inside = pitch_track(waveform(level * steady(hertz))).frequency_hz[10:-10]
        np.testing.assert_allclose(inside, hertz, rtol=0.005)


def test_a_glide_is_followed():
    wanted = np.geomspace(120, 240, RATE_HZ)
    track = pitch_track(waveform(0.1 * harmonics(wanted, top_hz=2640)))
    moments = np.minimum((track.times_s * RATE_HZ).astype(int), RATE_HZ - 1)
    np.testing.assert_allclose(track.frequency_hz[10:-10], wanted[moments][10:-10], rtol=0.02)


@pytest.mark.parametrize(("depth", "falls"), [(0.53, False), (0.7, True)])
def test_the_track_jumps_an_octave_only_for_a_clear_subharmonic(depth, falls):
    """Every other cycle is weakened for a tenth of a second, as a creaking voice does."""
    time_s = seconds(1)
    sound = 0.1 * sum(np.sin(2 * np.pi * 200.0 * n * time_s) / n for n in range(1, 12))
    odd = np.floor(200.0 * time_s).astype(int) % 2 == 1
    weak = odd & (np.abs(time_s - 0.5) < 0.05)
    inside = pitch_track(waveform(np.where(weak, 1 - depth, 1) * sound)).frequency_hz[5:-5]
    assert (inside > 0).all()
    # Ten frames of a slightly better octave do not pay for two jumps of 0.5 each.
    assert (inside < 150.0).any() == falls


def test_noise_silence_and_less_than_a_frame_have_no_pitch():
    assert pitch_track(waveform(0.1 * noise(1))).voiced.mean() < 0.05
    assert not pitch_track(waveform(np.zeros(RATE_HZ))).voiced.any()
    assert len(pitch_track(waveform(np.zeros(100))).frequency_hz) == 0


def test_the_pitch_of_a_waveform_is_computed_once_and_kept_no_longer_than_it() -> None:
    calls: list[str] = []

    @once_per_waveform
    def counted(waveform: Waveform) -> int:
        calls.append(waveform.source)
        return len(calls)

    waveform = Waveform(np.zeros(160, np.float32), "a")
    assert [counted(waveform), counted(waveform)] == [1, 1]
    assert counted(Waveform(waveform.samples, "b")) == 2
    kept = weakref.ref(waveform)
    del waveform
    assert kept() is None
