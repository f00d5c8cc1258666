"""Facts of speech that the measurement's own ear does not hear, and a detector does."""

import numpy as np
import pytest

import aligncap
from aligncap.audio import SpeechDetector, load
from aligncap.prosody import measure
from aligncap.prosody.heard import HIDDEN, measure_detected
from aligncap.values import Verdict, Waveform
from support.signals import harmonics, seconds, syllables, tone, waveform


def mixed(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> Waveform:
    gain = np.sqrt(speech.var() / noise.var() / 10 ** (snr_db / 10))
    return waveform(np.clip(0.5 * (speech + gain * noise), -1, 1))


def pink(count: int) -> np.ndarray:
    white = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    return np.fft.irfft(white / np.sqrt(np.maximum(np.arange(len(white)), 1)), count)


@pytest.fixture(scope="module")
def drowned(example_clips) -> dict[str, Waveform]:
    """Speech 6 dB under a hum and 9 dB under pink noise."""
    clips = {clip.stem: load(clip).samples for clip in example_clips}
    lively, plain = clips["woman-high-lively-fast"], clips["man-plain"]
    hum = harmonics(np.full(len(lively), 100.0))
    return {"hum": mixed(lively, hum, -6), "pink": mixed(plain, pink(len(plain)), -9)}


@pytest.mark.parametrize("noise", ["hum", "pink"])
def test_nothing_is_measured_of_speech_that_noise_hides(drowned, noise: str) -> None:
    recording = drowned[noise]
    spans = SpeechDetector().spans(recording.samples)
    assert spans
    assert not measure(recording).speech_s
    facts = measure_detected(recording, spans)
    assert facts.speech_s == pytest.approx(sum(end - start for start, end in spans))
    assert {(one.value, one.confidence, one.reason) for one in facts.by_name.values()} == {
        (None, 0.0, HIDDEN)
    }


def test_the_loudness_of_noise_is_no_claim(drowned) -> None:
    captioner = aligncap.load("mini", threads=1)
    for recording in drowned.values():
        caption = captioner.caption(recording)
        assert caption.facts.by_name["loudness_db"].reason == HIDDEN
        assert not [
            one
            for one in caption.evidence
            if one.clue.trait in ("volume", "pitch", "intonation")
            and one.verdict is Verdict.SUPPORTED
        ]


def test_speech_that_stands_out_is_measured_at_the_times_given() -> None:
    """A voice that its hearer places in the first second; after it is another tone."""
    voice = syllables(rate_hz=4, length_s=1.0, pitch_hz=200)
    later = tone(120, length_s=1.0, peak=0.003)
    facts = measure_detected(waveform(np.concatenate([voice, later])), [(0.0, 1.0)])
    alone = measure_detected(waveform(np.concatenate([voice, 0 * later])), [(0.0, 1.0)])
    for one in (facts, alone):
        assert one.value("pitch_median_hz") == pytest.approx(200, rel=0.1)
    assert facts.value("loudness_db") == pytest.approx(alone.value("loudness_db"), abs=0.1)
    everything = measure_detected(waveform(voice), [(0.0, len(seconds(1.0)) / 16_000)])
    assert everything.by_name["loudness_db"].reason == HIDDEN
