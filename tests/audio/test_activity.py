"""Speech is found in voices, and in nothing else."""

import itertools
import json
import random

import numpy as np
import pytest
import soundfile

from aligncap.audio import load, speech_activity
from aligncap.values import Waveform
from support.signals import (
    brown_noise,
    clicks,
    harmonics,
    hum,
    noise,
    seconds,
    syllables,
    tone,
    waveform,
)

STEADY = np.full(48_000, 120.0)

NOT_SPEECH = {
    "nothing": np.zeros(0),
    "one sample": np.ones(1) * 0.5,
    "digital silence": np.zeros(48_000),
    "the last bit": np.round(0.4 * noise(3)) / 32768,
    "white noise": 0.1 * noise(3),
    "faint white noise": 1e-3 * noise(3),
    "brown noise": 0.5 * brown_noise(3),
    "noise that grows": 0.1 * noise(3) * seconds(3),
    "bursts of noise": 0.1 * noise(3) * (seconds(3) % 0.6 < 0.2),
    "hum of 50 Hz": hum(50, length_s=3),
    "hum of 60 Hz in noise": hum(60, length_s=3) + 0.01 * noise(3),
    "hum that is switched on": hum(60, length_s=3) * (seconds(3) > 1),
    "tone": tone(440, length_s=3),
    "deep tone": tone(100, length_s=3),
    "tone that fades": tone(200, length_s=3) * (1 - seconds(3) / 3),
    "beeps": tone(400, length_s=3) * (seconds(3) % 0.5 < 0.2),
    "buzzer": 0.1 * harmonics(STEADY) * (seconds(3) % 0.5 < 0.2),
    "sweep": 0.3 * np.sin(2 * np.pi * (200 * seconds(3) + 100 * seconds(3) ** 2)),
    "clicks": clicks(0.5, length_s=3),
    "fast clicks": clicks(0.08, length_s=3),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_speech_is_not_taken_for_it(name):
    assert speech_activity(waveform(NOT_SPEECH[name])) == []


def test_syllables_are_speech_where_they_are():
    sound = np.concatenate([np.zeros(16_000), syllables(rate_hz=4, length_s=2), np.zeros(16_000)])
    spans = speech_activity(waveform(sound + 1e-4 * noise(4)))
    assert spans[0][0] == pytest.approx(1.0, abs=0.1)
    assert spans[-1][1] == pytest.approx(3.0, abs=0.1)


def test_a_pause_parts_two_stretches_and_a_closure_does_not():
    voice = syllables(rate_hz=4, length_s=1)

    def with_gap(gap_s):
        silence = np.zeros(round(gap_s * 16_000))
        return waveform(np.concatenate([voice, silence, voice, np.zeros(8_000)]))

    assert len(speech_activity(with_gap(0.5))) == 2
    assert len(speech_activity(with_gap(0.03))) == 1


def test_spans_are_ordered_apart_and_inside_the_sound():
    made = waveform(np.concatenate([syllables(rate_hz=3, length_s=1), np.zeros(9_000)] * 3))
    spans = speech_activity(made)
    flat = [edge for span in spans for edge in span]
    assert flat == sorted(flat)
    assert flat[0] >= 0
    assert flat[-1] <= made.duration_s
    assert all(later[0] - earlier[1] >= 0.15 for earlier, later in itertools.pairwise(spans))


def clips(folder, corpus, count, seed=11):
    lines = (folder / corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = random.Random(seed).sample([json.loads(line) for line in lines], count)
    return [load(folder / corpus / row["file"]) for row in rows]


@pytest.mark.speech_data
@pytest.mark.parametrize("corpus", ["ravdess", "nemo", "emodb", "ased", "secap"])
def test_every_real_recording_has_speech(speech_data, corpus):
    missed = [clip.source for clip in clips(speech_data, corpus, 40) if not speech_activity(clip)]
    assert missed == []


@pytest.mark.speech_data
@pytest.mark.parametrize("corpus", ["ravdess", "secap"])
def test_speech_is_found_in_as_much_noise_as_tenth_of_its_power(speech_data, corpus):
    for clip in clips(speech_data, corpus, 12):
        level = np.sqrt(np.mean(clip.samples**2) / 10)
        noisy = clip.samples + level * noise(clip.duration_s)[: len(clip.samples)]
        assert speech_activity(waveform(noisy))


@pytest.mark.speech_data
def test_gain_does_not_move_speech(speech_data):
    for clip in clips(speech_data, "emodb", 6):
        softer = Waveform(clip.samples * np.float32(0.125))
        assert speech_activity(softer) == speech_activity(clip)


@pytest.mark.speech_data
def test_a_whisper_is_speech(speech_data):
    # The only whispered clips known in the shared corpora: not one frame of them is voiced.
    for name in ("f2-03-01-02-54.opus", "f2-07-02-02-39.opus"):
        samples, _ = soundfile.read(speech_data / "ased" / name, dtype="float32")
        assert speech_activity(Waveform(samples))
