"""The log-mel spectrogram of HTSAT-BART, by numpy alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from aligncap.audio import load
from aligncap.errors import RecipeError
from aligncap.tokenizers import open_tokenizer
from aligncap.values import Waveform
from support.signals import log_mel

RATE = 48_000


def write(path: Path, *, length_s: float) -> np.ndarray:
    """A recording at 48 kHz of noise and a tone at 12 kHz, whose second channel is the first turned
    over; the first at 32 kHz."""
    times = np.arange(round(length_s * RATE)) / RATE
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(times))
    sound = (noise + 0.2 * np.sin(2 * np.pi * 12_000 * times)).astype(np.float32)
    soundfile.write(path, np.stack([sound, -sound], axis=1), RATE, subtype="FLOAT")
    return soxr.resample(sound, RATE, 32_000)


def encoded(waveform: Waveform, **options: int) -> np.ndarray:
    tokens = open_tokenizer("log-mel", **options).encode(waveform)
    assert tokens.features is not None
    return tokens.features.read()


def test_the_published_front_end_hears_the_file_at_32_khz(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    sound = write(path, length_s=1.3)
    expected = log_mel(sound, 32_000, 320, 50, 14_000)
    found = encoded(load(path), rate_hz=32_000)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    # Of the waveform alone nothing is heard where the tone is.
    place = int(expected.mean(0).argmax())
    assert encoded(load(path)).mean(0)[place] < expected.mean(0)[place] - 40
    assert open_tokenizer("log-mel").fingerprint == "wavcaps-log-mel-1"
    assert open_tokenizer("log-mel", rate_hz=32_000).fingerprint != "wavcaps-log-mel-1"


def test_a_part_is_heard_where_it_is_and_ten_seconds_at_most(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    sound = write(path, length_s=12.0)
    part = load(path).part(16_000, 24_000)
    found = encoded(part, rate_hz=32_000)
    expected = log_mel(sound[32_000:48_000], 32_000, 320, 50, 14_000)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert encoded(load(path), rate_hz=32_000).shape == (1001, 64)
    # An array has no file to be read again.
    array = Waveform(part.samples)
    np.testing.assert_array_equal(encoded(array, rate_hz=32_000), encoded(array))


def test_another_rate_is_refused() -> None:
    with pytest.raises(RecipeError, match="rate_hz is 44100; take 32000"):
        open_tokenizer("log-mel", rate_hz=44_100)
