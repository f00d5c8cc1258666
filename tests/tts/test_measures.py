"""Numbers of an utterance: WADA-SNR of noise that is added, pitch of a made voice, z-scores."""

import numpy as np
import pytest

from aligncap.tts.measures import Speaker, phonemes_of, statistics_of, utterance_columns, wada_snr
from aligncap.values import RATE_HZ
from support.signals import seconds, syllables, waveform


def gamma_speech(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """What WADA takes speech for: amplitudes of a Gamma distribution of shape 0.4."""
    count = round(seconds * RATE_HZ)
    return rng.gamma(0.4, 1.0, count) * rng.choice([-1.0, 1.0], count)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0, 30.0, 45.0])
def test_snr_is_that_of_the_noise_that_was_added(snr: float) -> None:
    rng = np.random.default_rng(3)
    speech = gamma_speech(20, rng)
    noise = rng.standard_normal(len(speech)) * np.sqrt(np.mean(speech**2)) * 10 ** (-snr / 20)
    loud = ((speech + noise) * 0.05).astype(np.float32)
    assert wada_snr(loud) == pytest.approx(snr, abs=2.0)
    assert wada_snr(loud * np.float32(0.1)) == pytest.approx(wada_snr(loud), abs=0.3)


def test_silence_has_no_snr_and_digital_silence_changes_none() -> None:
    rng = np.random.default_rng(4)
    speech = (gamma_speech(5, rng) * 0.05).astype(np.float32)
    nothing = np.zeros(RATE_HZ, np.float32)
    assert wada_snr(nothing) is None
    assert wada_snr(nothing[:0]) is None
    assert wada_snr(np.concatenate([nothing, speech])) == pytest.approx(wada_snr(speech), abs=0.1)


def test_columns_of_a_voice_of_known_pitch() -> None:
    sound = syllables(rate_hz=4.0, length_s=3.0, pitch_hz=200.0)
    hertz = 200.0 * 2 ** (np.sin(2 * np.pi * 0.7 * seconds(3.0)) / 6)  # as its pitch sways
    found = utterance_columns(waveform(sound), {}, "Kids are talking by the door.")
    assert found["utterance_pitch_mean"] == pytest.approx(hertz.mean(), abs=4.0)
    assert found["utterance_pitch_std"] == pytest.approx(hertz.std(), abs=4.0)
    assert found["c50"] is None
    assert found["phonemes"].startswith("kɪdz")
    rate = len(found["phonemes"]) / found["speech_duration"]
    assert found["phonemes_per_s"] == pytest.approx(rate, abs=1e-3)


def test_what_another_tool_has_measured_is_taken_over() -> None:
    sound = waveform(syllables(rate_hz=4.0, length_s=1.0))
    found = utterance_columns(sound, {"snr": 61.5, "c50": 50, "language": "de"}, "Guten Tag")
    assert (found["snr"], found["c50"], found["phonemes"]) == (61.5, 50.0, None)
    cells = utterance_columns(sound, {"snr": "61.5", "c50": " 50"}, None)
    assert (cells["snr"], cells["c50"]) == (61.5, 50.0)
    odd = utterance_columns(sound, {"snr": float("nan"), "c50": "far"}, None)
    assert odd["snr"] == pytest.approx(wada_snr(sound.samples), abs=1e-3)
    assert odd["c50"] is None


@pytest.mark.parametrize(
    ("text", "language"), [("", None), ("你好", None), (None, "en"), (7, "en")]
)
def test_where_there_is_nothing_to_pronounce_in_english(text, language) -> None:
    assert phonemes_of(text, language) is None


def test_z_scores_are_numpys() -> None:
    rng = np.random.default_rng(5)
    rows = [
        {
            "utterance_pitch_mean": float(hz),
            "pitch_median_hz": float(hz),
            "loudness_lufs": float(level),
            "female_probability": 0.9,
        }
        for hz, level in zip(rng.uniform(90, 250, 9), rng.uniform(-40, -10, 9), strict=True)
    ]
    speaker = statistics_of([*(("a", row) for row in rows), (None, rows[0])])["a"]
    semitones = 12 * np.log2([row["pitch_median_hz"] for row in rows])
    levels = np.array([row["loudness_lufs"] for row in rows])
    for number, row in enumerate(rows):
        z = speaker.z_scores(row)
        assert z["pitch_z"] == pytest.approx(
            (semitones[number] - semitones.mean()) / semitones.std(), abs=1e-3
        )
        assert z["loudness_z"] == pytest.approx(
            (levels[number] - levels.mean()) / levels.std(), abs=1e-3
        )
        assert z["pace_z"] is None
    assert speaker.pitch_hz.mean == pytest.approx(
        np.mean([r["utterance_pitch_mean"] for r in rows])
    )
    assert speaker.gender == "female"


def test_one_utterance_or_equal_ones_have_no_z_score() -> None:
    speaker = Speaker()
    row = {"pitch_median_hz": 100.0, "loudness_lufs": -20.0}
    speaker.add(row)
    assert speaker.z_scores(row) == dict.fromkeys(("pitch_z", "loudness_z", "pace_z"))
    speaker.add(row)
    assert speaker.z_scores(row)["pitch_z"] is None
    assert speaker.gender is None
