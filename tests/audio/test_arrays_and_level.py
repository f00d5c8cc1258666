"""Samples in memory become waveforms; levels are those worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.audio import from_array, level_db
from aligncap.audio.activity import BAND_EDGES_HZ, band_levels_db
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ
from support.signals import noise, seconds, tone, waveform


def test_samples_at_16_khz_stay_what_they_are():
    sound = tone(300, length_s=1).astype(np.float32)
    assert np.array_equal(from_array(sound, RATE_HZ).samples, sound)


def test_the_array_given_is_left_alone():
    sound = 0.5 * noise(1)  # some of it beyond full scale
    before = sound.copy()
    from_array(sound, RATE_HZ)
    assert np.array_equal(sound, before)


@pytest.mark.parametrize(("kind", "full"), [("int16", 2**15), ("int32", 2**31), ("int8", 2**7)])
def test_whole_numbers_are_scaled_by_their_type(kind, full):
    half = np.full(10, full // 2, dtype=kind)
    assert from_array(half, RATE_HZ).samples == pytest.approx(0.5)


def test_unsigned_samples_rest_at_the_middle():
    made = from_array(np.array([0, 128, 192], dtype=np.uint8), RATE_HZ)
    assert made.samples == pytest.approx([-1.0, 0.0, 0.5])


def test_channels_are_averaged():
    left, right = tone(300, length_s=1), tone(700, length_s=1)
    made = from_array(np.stack([left, right], axis=1), RATE_HZ)
    assert made.samples == pytest.approx((left + right) / 2, abs=1e-6)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_other_rates_keep_pitch_and_length(rate_hz):
    times = np.arange(2 * rate_hz) / rate_hz
    made = from_array(0.5 * np.sin(2 * np.pi * 440 * times), rate_hz)
    assert made.duration_s == pytest.approx(2.0, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(made.samples * np.hanning(len(made.samples))))
    assert spectrum.argmax() / made.duration_s == pytest.approx(440, abs=0.5)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "said"),
    [
        (np.zeros(0), RATE_HZ, "no samples"),
        (np.zeros((2, 3, 4)), RATE_HZ, "shape"),
        (np.zeros(5, dtype=complex), RATE_HZ, "complex"),
        (np.array(["a"]), RATE_HZ, "real numbers"),
        (np.zeros((2, 48_000)), RATE_HZ, "transposed"),
        (np.array([0.0, np.nan]), RATE_HZ, "NaN"),
        (np.array([0.0, -np.inf]), RATE_HZ, "infinite"),
        (np.full(5, 20_000.0), RATE_HZ, "reach 20000"),
        (np.zeros(5), 0, "rate is 0"),
        (np.zeros(5), -16_000, "rate is -16000"),
        (np.zeros(3_700_000), 1_000, "longer than 60 minutes"),
    ],
)
def test_what_is_no_sound_is_refused(samples, rate_hz, said):
    with pytest.raises(AudioError, match=said) as caught:
        from_array(samples, rate_hz)
    assert "\n" not in str(caught.value)


def test_a_full_scale_sine_has_3_db_less_than_full_scale():
    assert level_db(waveform(tone(1000, length_s=1, peak=1.0))) == pytest.approx(-3.0103, abs=1e-3)


def test_a_square_wave_has_full_scale():
    square = np.sign(np.sin(2 * np.pi * 100 * seconds(1) + 0.1))
    assert level_db(waveform(square)) == pytest.approx(0.0, abs=1e-3)


def test_a_constant_is_no_level():
    assert level_db(waveform(np.full(1000, 0.5))) == -120.0


def test_silence_and_nothing_have_the_lowest_level():
    assert level_db(waveform(np.zeros(1000))) == -120.0
    assert level_db(waveform(np.zeros(0))) == -120.0


@settings(deadline=None)
@given(gain_db=st.floats(-40, 0))
def test_gain_adds_its_decibels(gain_db):
    sound = tone(300, length_s=0.1) + 0.05 * noise(0.1)
    before = level_db(waveform(sound))
    after = level_db(waveform(sound * 10 ** (gain_db / 20)))
    assert after - before == pytest.approx(gain_db, abs=1e-3)


def test_a_tone_is_found_in_its_band_with_its_level():
    levels = band_levels_db(waveform(tone(1_375, length_s=1, peak=1.0)).samples)
    middle = levels[len(levels) // 2]
    band = int(np.searchsorted(BAND_EDGES_HZ, 1_375)) - 1
    assert middle.argmax() == band
    assert middle[band] == pytest.approx(-3.0103, abs=0.1)


def test_white_noise_has_its_power_spread_by_bandwidth():
    levels = band_levels_db(waveform(0.1 * noise(10)).samples)
    power = 10 * np.log10(np.mean(10 ** (levels / 10), axis=0))
    widths = np.diff(BAND_EDGES_HZ)
    expected = -20 + 10 * np.log10(widths / (RATE_HZ / 2))
    # A narrow band holds a whole number of FFT bins (31 Hz each), not exactly its width.
    assert np.abs(power - expected).max() < 1.2
