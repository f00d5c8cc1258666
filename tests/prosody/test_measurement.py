"""Facts of an utterance: known signals, properties, and what cannot be told."""

import math

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.prosody import measure
from aligncap.prosody.measurement import (
    block_loudness,
    harmonicity_db,
    k_weighting,
    loudness,
    pauses,
    perturbation,
    spectral_tilt,
    syllable_nuclei,
)
from aligncap.prosody.pitch import pitch_track
from aligncap.values import RATE_HZ, Waveform

NAMES = {
    "pitch_median_hz",
    "pitch_offset_st",
    "pitch_range_st",
    "pitch_slope_st_per_s",
    "pitch_jumps_per_s",
    "loudness_db",
    "loudness_range_db",
    "loudness_slope_db_per_s",
    "pace_syllables_per_s",
    "pause_share",
    "pauses_per_s",
    "jitter",
    "shimmer",
    "harmonicity_db",
    "spectral_tilt_db_per_octave",
    "female_probability",
}


def tone(hertz: float, *, seconds: float = 3.0, amplitude: float = 1.0) -> Waveform:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return Waveform((amplitude * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32))


def voice(hertz: float, *, seconds: float = 2.0, beats_per_s: float = 4.0) -> Waveform:
    """A harmonic sound whose level beats like syllables."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * hertz * n * time_s) / n for n in range(1, 12))
    beat = 0.55 - 0.45 * np.cos(2 * np.pi * beats_per_s * time_s)
    return Waveform((0.1 * beat * sound).astype(np.float32))


@pytest.fixture(scope="module")
def clip(speech_data):
    return load(speech_data / "ravdess" / "03-01-05-01-01-01-01.flac")


def test_a_full_scale_sine_of_997_hz_has_the_loudness_the_standard_says():
    # ITU-R BS.1770-4: 0 dBFS at 997 Hz in one channel reads -3.01 LKFS.
    found = loudness(tone(997.0)).integrated
    assert found == pytest.approx(-3.01, abs=0.05)


def test_the_weighting_has_the_standards_gains():
    # The standard's curve: about -14 dB at 20 Hz, 0.7 dB at 1 kHz, 4 dB from 4 kHz on.
    gain_db = 10 * np.log10(k_weighting(RATE_HZ) + 1e-12)
    assert gain_db[1000] == pytest.approx(0.69, abs=0.1)
    assert gain_db[5000] == pytest.approx(4.0, abs=0.15)
    assert -16 < gain_db[20] < -12


def test_silence_between_words_is_gated_out():
    loud = tone(997.0, seconds=2.0, amplitude=0.1)
    gap = np.zeros(4 * RATE_HZ, np.float32)
    with_gap = Waveform(np.concatenate((loud.samples, gap, loud.samples)))
    alone, found = loudness(loud).integrated, loudness(with_gap).integrated
    assert alone is not None
    assert found == pytest.approx(alone, abs=0.4)


def test_blocks_of_less_than_a_block_are_one():
    assert block_loudness(tone(440.0, seconds=0.1)).shape == (1,)


def test_nuclei_are_counted_where_the_level_beats():
    sound = voice(180.0, beats_per_s=4.0)
    nuclei = syllable_nuclei(sound, pitch_track(sound))
    assert len(nuclei) == 8
    np.testing.assert_allclose(np.diff(nuclei), 0.25, atol=0.03)


@pytest.mark.parametrize(("dip_db", "count"), [(1.2, 1), (1.8, 1), (2.3, 9), (3.0, 9)])
def test_nuclei_are_parted_by_dips_of_two_decibels(dip_db, count):
    # Three beats a second for three seconds; smoothing takes 0.06 dB of a dip at most.
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 200.0 * n * time_s) / n for n in range(1, 12))
    level_db = -dip_db / 2 * (1 + np.cos(2 * np.pi * 3 * time_s))
    waveform = Waveform((0.1 * 10 ** (level_db / 20) * sound).astype(np.float32))
    assert len(syllable_nuclei(waveform, pitch_track(waveform))) == count


def test_pauses_by_hand():
    found = pauses([(0.5, 1.0), (1.1, 2.0), (2.5, 3.5)])
    assert (found.count, found.span_s) == (1, 3.0)
    assert found.seconds == pytest.approx(0.5)
    assert pauses([]).span_s == 0.0
    # A pause lasts a quarter of a second at least.
    assert pauses([(0.0, 1.0), (1.25, 2.0), (2.24, 3.0)]).count == 1


def test_perturbation_by_hand():
    # Middle frames are 12, 11, 12 … between neighbours of the other kind: each is 1 away.
    values = np.array([11.0, 12.0] * 8)
    assert perturbation(values, np.ones(16, bool)) == pytest.approx(1 / 11.5, rel=1e-6)
    assert perturbation(values, np.zeros(16, bool)) is None


def test_tilt_of_a_known_slope():
    # Power falling by 6 dB an octave as density is -6 dB/oct, whatever the band widths.
    random = np.random.default_rng(0)
    spectrum = np.fft.rfft(random.normal(0, 1, 8 * RATE_HZ))
    hertz = np.fft.rfftfreq(8 * RATE_HZ, 1 / RATE_HZ)
    sloped = np.fft.irfft(spectrum * (np.maximum(hertz, 20.0) / 1000.0) ** -1.0)
    from aligncap.prosody.measurement import log_mel

    mel = log_mel(Waveform((0.01 * sloped).astype(np.float32)))
    found = spectral_tilt(mel, np.ones(len(mel), bool))
    assert found == pytest.approx(-6.02, abs=0.5)


def test_a_clean_voice_is_more_harmonic_than_a_noisy_one():
    clean = voice(150.0)
    noise = np.random.default_rng(1).normal(0, 0.03, len(clean.samples)).astype(np.float32)
    one = harmonicity_db(pitch_track(clean))
    other = harmonicity_db(pitch_track(Waveform(clean.samples + noise)))
    assert one is not None
    assert other is not None
    assert one > other + 3


def test_every_fact_is_there_with_its_unit(clip):
    facts = measure(clip)
    assert {fact.name for fact in facts} == NAMES
    assert all(fact.unit for fact in facts if fact.name.endswith(("_hz", "_db", "_s")))


def test_gain_moves_loudness_by_itself_and_no_pitch_pace_or_quality(clip):
    one, other = measure(clip), measure(Waveform(clip.samples * np.float32(2.0)))
    moved = other.value("loudness_db") - one.value("loudness_db")
    assert moved == pytest.approx(20 * math.log10(2), abs=0.05)
    for name in ("pitch_median_hz", "pitch_range_st", "harmonicity_db"):
        assert other.value(name) == pytest.approx(one.value(name), rel=0.02)
    assert other.value("pace_syllables_per_s") == pytest.approx(
        one.value("pace_syllables_per_s"), rel=0.2
    )


def test_time_reversal_turns_the_slopes_around(clip):
    one, other = measure(clip), measure(Waveform(clip.samples[::-1].copy()))
    for name in ("pitch_slope_st_per_s", "loudness_slope_db_per_s"):
        # Blocks of loudness and the tracker's frames do not fall on the same moments backwards.
        assert other.value(name) == pytest.approx(-one.value(name), rel=0.4)


def test_ravdess_sentence_has_its_seven_syllables(clip):
    # "Kids are talking by the door".
    facts = measure(clip)
    assert facts.value("pace_syllables_per_s") * facts.speech_s == pytest.approx(7, abs=1.01)


@pytest.mark.parametrize("samples", [np.zeros(RATE_HZ), np.zeros(1)])
def test_where_nobody_speaks_nothing_is_told(samples):
    facts = measure(Waveform(samples.astype(np.float32)))
    assert facts.speech_s == 0
    assert all(fact.value is None and fact.reason and fact.confidence == 0 for fact in facts)


def test_clipped_speech_tells_no_loudness(clip):
    clipped = Waveform(np.clip(clip.samples * 200, -1, 1).astype(np.float32))
    facts = measure(clipped)
    assert "clipped" in facts["loudness_db"].reason
    assert "clipped" in facts["jitter"].reason


def test_gender_is_right_of_voices_that_are_told(speech_data):
    from aligncap.data.manifest import read_manifest
    from aligncap.data.splits import validation_split

    _, kept = validation_split(read_manifest(speech_data / "ravdess" / "manifest.jsonl"))
    told = []
    for one in kept[::6]:
        chance = measure(load(one.path)).value("female_probability")
        if chance is not None and not 0.15 < chance < 0.85:
            told.append((chance > 0.5) == (one.gender == "female"))
    assert len(told) >= 10
    assert np.mean(told) >= 0.9
