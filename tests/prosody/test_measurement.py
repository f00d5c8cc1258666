"""Facts of an utterance: known signals, properties, and what cannot be told."""

import math

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.clues import clue_of, judge
from aligncap.clues.evidence import JUDGE_CONFIDENCE
from aligncap.data.manifest import read_manifest
from aligncap.data.splits import validation_split
from aligncap.prosody import measure, with_heard_pace
from aligncap.prosody.measurement import (
    block_loudness,
    harmonicity_db,
    k_weighting,
    log_mel,
    loudness,
    pauses,
    perturbation,
    slope_of,
    spectral_tilt,
    syllable_nuclei,
)
from aligncap.prosody.pitch import pitch_track
from aligncap.values import RATE_HZ, Fact, Facts, Verdict, Waveform
from support.signals import harmonics, noise, seconds, tone, waveform

NAMES = """pitch_median_hz pitch_offset_st pitch_range_st pitch_slope_st_per_s pitch_jumps_per_s
    loudness_db loudness_range_db loudness_slope_db_per_s pace_syllables_per_s pause_share
    pauses_per_s jitter shimmer harmonicity_db spectral_tilt_db_per_octave female_probability"""


def voice(hertz: float, *, length_s: float = 2.0, level_db: np.ndarray | float = 0.0) -> Waveform:
    sound = harmonics(np.full(round(length_s * RATE_HZ), hertz), top_hz=12 * hertz)
    return waveform(0.1 * 10 ** (level_db / 20) * sound)


@pytest.fixture(scope="module")
def clip(speech_data):
    return load(speech_data / "ravdess" / "03-01-05-01-01-01-01.flac")


class TestLoudness:
    def test_a_full_scale_sine_of_997_hz_has_what_the_standard_says(self):
        # ITU-R BS.1770-4: 0 dBFS at 997 Hz in one channel reads -3.01 LKFS.
        found = loudness(waveform(tone(997.0, length_s=3, peak=1.0))).integrated
        assert found == pytest.approx(-3.01, abs=0.05)

    def test_the_weighting_has_the_standards_gains(self):
        # The standard's curve: about -14 dB at 20 Hz, 0.7 dB at 1 kHz, 4 dB from 4 kHz on.
        gain_db = 10 * np.log10(k_weighting(RATE_HZ) + 1e-12)
        assert gain_db[1000] == pytest.approx(0.69, abs=0.1)
        assert gain_db[5000] == pytest.approx(4.0, abs=0.15)
        assert -16 < gain_db[20] < -12

    def test_silence_between_words_is_gated_out(self):
        loud = tone(997.0, length_s=2, peak=0.1)
        with_gap = np.concatenate((loud, np.zeros(4 * RATE_HZ), loud))
        alone, found = (loudness(waveform(sound)).integrated for sound in (loud, with_gap))
        assert alone is not None
        assert found == pytest.approx(alone, abs=0.4)

    def test_less_than_a_block_is_one_block(self):
        assert block_loudness(waveform(tone(440.0, length_s=0.1))).shape == (1,)


def test_nuclei_are_counted_where_the_level_beats():
    beat = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * seconds(2))
    sound = voice(180.0, level_db=20 * np.log10(beat))
    nuclei = syllable_nuclei(sound, pitch_track(sound))
    assert len(nuclei) == 8
    np.testing.assert_allclose(np.diff(nuclei), 0.25, atol=0.03)


@pytest.mark.parametrize(("dip_db", "count"), [(1.2, 1), (1.8, 1), (2.3, 9), (3.0, 9)])
def test_nuclei_are_parted_by_dips_of_two_decibels(dip_db, count):
    # Three beats a second for three seconds; smoothing takes 0.06 dB of a dip at most.
    level_db = -dip_db / 2 * (1 + np.cos(2 * np.pi * 3 * seconds(3)))
    sound = voice(200.0, length_s=3, level_db=level_db)
    assert len(syllable_nuclei(sound, pitch_track(sound))) == count


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


def test_a_slope_is_that_of_the_line_that_numpy_fits():
    draw = np.random.default_rng(0)
    for count in (2, 3, 50):
        x, y = draw.normal(100, 3, count), draw.normal(0, 5, count)
        assert slope_of(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])


def test_tilt_of_a_known_slope():
    # Power falling by 6 dB an octave as density is -6 dB/oct, whatever the band widths.
    spectrum = np.fft.rfft(noise(8))
    hertz = np.fft.rfftfreq(8 * RATE_HZ, 1 / RATE_HZ)
    mel = log_mel(waveform(0.01 * np.fft.irfft(spectrum * 1000 / np.maximum(hertz, 20.0))))
    assert spectral_tilt(mel, np.ones(len(mel), bool)) == pytest.approx(-6.02, abs=0.5)


def test_a_clean_voice_is_more_harmonic_than_a_noisy_one():
    clean = voice(150.0)
    noisy = waveform(clean.samples + 0.03 * noise(2))
    one, other = (harmonicity_db(pitch_track(sound)) for sound in (clean, noisy))
    assert one is not None
    assert other is not None
    assert one > other + 3


def test_every_fact_of_speech_is_told_with_its_unit(clip):
    facts = measure(clip)
    assert {fact.name for fact in facts} == set(NAMES.split())
    assert all(fact.unit for fact in facts if fact.name.endswith(("_hz", "_db", "_s")))
    # "Kids are talking by the door" has seven syllables.
    assert facts.value("pace_syllables_per_s") * facts.speech_s == pytest.approx(7, abs=1.01)


def test_gain_moves_loudness_and_no_pitch_pace_or_quality_and_reversal_turns_slopes(clip):
    one, louder = measure(clip), measure(Waveform(clip.samples * np.float32(2.0)))
    moved = louder.value("loudness_db") - one.value("loudness_db")
    assert moved == pytest.approx(20 * math.log10(2), abs=0.05)
    for name in ("pitch_median_hz", "pitch_range_st", "harmonicity_db"):
        assert louder.value(name) == pytest.approx(one.value(name), rel=0.02)
    name = "pace_syllables_per_s"
    assert louder.value(name) == pytest.approx(one.value(name), rel=0.2)
    backwards = measure(Waveform(clip.samples[::-1].copy()))
    for name in ("pitch_slope_st_per_s", "loudness_slope_db_per_s"):
        # Blocks of loudness and the tracker's frames do not fall on the same moments backwards.
        assert backwards.value(name) == pytest.approx(-one.value(name), rel=0.4)


@pytest.mark.parametrize("samples", [RATE_HZ, 1])
def test_where_nobody_speaks_nothing_is_told(samples):
    facts = measure(waveform(np.zeros(samples)))
    assert facts.speech_s == 0
    assert all(fact.value is None and fact.reason and fact.confidence == 0 for fact in facts)


def test_clipped_speech_tells_no_loudness(clip):
    facts = measure(Waveform(np.clip(clip.samples * 200, -1, 1)))
    assert "clipped" in facts["loudness_db"].reason
    assert "clipped" in facts["jitter"].reason


def test_gender_is_right_of_voices_that_are_told(speech_data):
    _, kept = validation_split(read_manifest(speech_data / "ravdess" / "manifest.jsonl"))
    told = []
    for one in kept[::6]:
        chance = measure(load(one.path)).value("female_probability")
        if chance is not None and not 0.15 < chance < 0.85:
            told.append((chance > 0.5) == (one.gender == "female"))
    assert len(told) >= 10
    assert np.mean(told) >= 0.9


def taught(rate: float) -> dict[str, dict[str, float]]:
    """The readout of an encoder that learnt the rate from transcripts."""
    return {"pace": {"syllables_per_s": rate}, "vocalization": {"speech": 1.0}}


def spoken(duration_s: float, speech_s: float, pause_share: float) -> Facts:
    nuclei = Fact("pace_syllables_per_s", 3.0, "1/s", 0.25)
    facts = {nuclei.name: nuclei, "pause_share": Fact("pause_share", pause_share, "", 1.0)}
    return Facts(duration_s, speech_s, facts)


def test_a_heard_pace_is_of_the_time_from_first_to_last_speech():
    # 5/s of 3 s are 15 syllables; 3 s of speech are 75 % of the 4 s that they stretch over.
    found = with_heard_pace(spoken(5.0, 3.0, 0.25), taught(5.0))["pace_syllables_per_s"]
    assert found.value == pytest.approx(15 / 4)
    assert found.confidence == 1.0
    assert found.unit == "syllables/s heard by the speech encoder"
    # Three of the six syllables that make it sure.
    few = with_heard_pace(spoken(1.0, 1.0, 0.0), taught(3.0))["pace_syllables_per_s"]
    assert (few.value, few.confidence) == (3.0, 0.5)


@pytest.mark.parametrize(
    "readout", [{}, {"pace": {"syllables_per_s": 3.0}}, {"vocalization": {"speech": 1.0}}]
)
def test_only_an_encoder_taught_by_transcripts_is_asked_for_the_pace(readout):
    facts = spoken(5.0, 3.0, 0.25)
    assert with_heard_pace(facts, readout) is facts
    short = spoken(1.0, 0.3, 0.0)
    assert with_heard_pace(short, taught(3.0)) is short


@pytest.mark.speech_data
def test_nuclei_are_trusted_with_no_claim_and_no_verdict(clip):
    """The confidence is below the three tenths from which on a fact is judged."""
    facts = measure(clip)
    # Seven syllables, where six are enough for all the confidence there is.
    assert facts["pace_syllables_per_s"].confidence == 0.25 < JUDGE_CONFIDENCE
    clues = [clue_of("pace", "fast"), clue_of("pace", "slow")]
    assert {one.verdict for one in judge(clues, facts)} == {Verdict.CANNOT_TELL}
