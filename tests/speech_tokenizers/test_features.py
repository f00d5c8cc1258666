"""Features of the built-in encoder: invariances, and the spectrum by another road."""

import math

import numpy as np
import pytest
from scipy.signal import stft

from aligncap.prosody.measurement import HOP, MELS, hz_to_mel, log_mel, mel_filters, mel_to_hz
from aligncap.tokenizers.builtin import (
    Features,
    encoder_input,
    frame_energy,
    measure_features,
    nuclei_per_s,
)
from aligncap.values import RATE_HZ, Waveform


def tone(hz: float, seconds: float = 1.0, level: float = 0.3) -> Waveform:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return Waveform((level * np.sin(2 * np.pi * hz * time_s)).astype(np.float32))


def random_features(frames: int = 120, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    mel = random.normal(-4, 1, (frames, MELS)).astype(np.float32)
    pitch = np.where(random.random(frames) < 0.6, 180.0, 0.0).astype(np.float32)
    return Features(mel, pitch, random.random(frames).astype(np.float32))


@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_the_band_it_lies_in(hz):
    centres = mel_to_hz(np.linspace(hz_to_mel(50.0), hz_to_mel(7800.0), MELS + 2))[1:-1]
    loudest = log_mel(tone(hz))[50].argmax()
    assert abs(loudest - np.abs(centres - hz).argmin()) <= 1


def test_mel_power_agrees_with_scipys_short_time_transform():
    random = np.random.default_rng(1)
    waveform = Waveform(random.normal(0, 0.1, RATE_HZ).astype(np.float32))
    window = np.hanning(400)
    _, _, spectrum = stft(
        waveform.samples, window=window, nperseg=400, noverlap=400 - HOP, nfft=512,
        boundary=None, padded=False, scaling="spectrum",
    )  # fmt: skip
    power = np.abs(spectrum.T * window.sum()) ** 2
    expected = np.log(power @ mel_filters() / 400 + 1e-7)
    # Our first frame starts 120 samples before the waveform; 120 samples on, the frames coincide.
    ours = log_mel(Waveform(waveform.samples[120:]))
    np.testing.assert_allclose(ours[1:90], expected[1:90], atol=1e-2)


def test_every_band_hears_something():
    assert (mel_filters().max(axis=0) >= 0.4).all()


def test_level_changes_one_channel_only():
    features = random_features()
    louder = Features(features.mel + np.float32(1.5), features.pitch_hz, features.strength)
    one, other = encoder_input(features), encoder_input(louder)
    np.testing.assert_allclose(one.views, other.views, atol=1e-5)
    np.testing.assert_allclose(one.prosody[:, :5], other.prosody[:, :5], atol=1e-5)
    np.testing.assert_allclose(other.prosody[:, 5] - one.prosody[:, 5], 0.5, atol=1e-5)


def test_the_second_view_forgets_the_channel_and_the_first_does_not():
    features = random_features()
    response = np.linspace(-1, 1, MELS, dtype=np.float32)
    coloured = Features(features.mel + response, features.pitch_hz, features.strength)
    one, other = encoder_input(features), encoder_input(coloured)
    # Which frames count as active moves a little with the colour, hence the tolerance.
    assert np.abs(one.views[1] - other.views[1]).mean() < 0.05
    assert np.abs(one.views[0] - other.views[0]).mean() > 0.1


def test_energy_is_the_sum_over_bands():
    mel = random_features().mel
    np.testing.assert_allclose(frame_energy(mel), np.log(np.exp(mel).sum(1)), rtol=1e-5)


def test_silence_at_the_ends_is_cut_and_in_the_middle_kept():
    quiet, loud = np.zeros(RATE_HZ, np.float32), tone(400.0, 0.5).samples
    kept = measure_features(Waveform(np.concatenate((quiet, loud, quiet, loud, quiet))))
    assert len(kept) == pytest.approx(50 + 100 + 50 + 16, abs=3)


def test_one_sample_still_gives_a_frame():
    features = measure_features(Waveform(np.zeros(1, np.float32)))
    assert len(features) == 1
    assert np.isfinite(encoder_input(features).views).all()


@pytest.mark.parametrize("per_second", [3, 5])
def test_syllables_are_counted(per_second):
    frames = 300
    beat = np.sin(np.arange(frames) / 100 * per_second * 2 * np.pi)
    mel = np.repeat((-4 + 2 * beat)[:, None], MELS, 1).astype(np.float32)
    features = Features(mel, np.full(frames, 200.0, np.float32), np.ones(frames, np.float32))
    assert nuclei_per_s(features) == pytest.approx(per_second, abs=0.4)


def test_a_held_vowel_has_no_pace():
    frames = 100
    mel = np.full((frames, MELS), -4.0, np.float32)
    features = Features(mel, np.full(frames, 200.0, np.float32), np.ones(frames, np.float32))
    assert math.isnan(nuclei_per_s(features))
