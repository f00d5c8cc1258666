"""Speech is found in voices, and in nothing else; levels are those worked out by hand."""

import itertools
import json
import random

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from aligncap.audio import level_db, load, speech_activity, utterance
from aligncap.audio.activity import (
    AROUND_S,
    BAND_EDGES_HZ,
    band_levels_db,
    correlations,
    correlations_of,
    utterance_span,
    windows_of,
)
from aligncap.values import RATE_HZ, Waveform
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
    "buzzer": 0.1 * harmonics(np.full(48_000, 120.0)) * (seconds(3) % 0.5 < 0.2),
    "sweep": 0.3 * np.sin(2 * np.pi * (200 * seconds(3) + 100 * seconds(3) ** 2)),
    "clicks": clicks(0.5, length_s=3),
    "fast clicks": clicks(0.08, length_s=3),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_speech_is_not_taken_for_it(name):
    assert speech_activity(waveform(NOT_SPEECH[name])) == []


def test_syllables_are_speech_where_they_are():
    quiet = np.zeros(16_000)
    sound = np.concatenate([quiet, syllables(rate_hz=4, length_s=2), quiet])
    spans = speech_activity(waveform(sound + 1e-4 * noise(4)))
    assert (spans[0][0], spans[-1][1]) == pytest.approx((1.0, 3.0), abs=0.1)


@pytest.mark.parametrize(("gap_s", "stretches"), [(0.5, 2), (0.03, 1)])
def test_a_pause_parts_two_stretches_and_a_closure_does_not(gap_s, stretches):
    voice, gap = syllables(rate_hz=4, length_s=1), np.zeros(round(gap_s * RATE_HZ))
    sound = np.concatenate([voice, gap, voice, np.zeros(8_000)])
    assert len(speech_activity(waveform(sound))) == stretches


def test_spans_are_ordered_apart_and_inside_the_sound():
    made = waveform(np.concatenate([syllables(rate_hz=3, length_s=1), np.zeros(9_000)] * 3))
    spans = speech_activity(made)
    edges = [0.0, *(edge for span in spans for edge in span), made.duration_s]
    assert edges == sorted(edges)
    assert all(later[0] - earlier[1] >= 0.15 for earlier, later in itertools.pairwise(spans))


def clips(folder, corpus, count):
    lines = (folder / corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = random.Random(11).sample([json.loads(line) for line in lines], count)
    return [load(folder / corpus / row["file"]) for row in rows]


@pytest.mark.speech_data
@pytest.mark.parametrize("corpus", ["ravdess", "nemo", "emodb", "ased", "secap"])
def test_every_real_recording_has_speech_even_softer_and_in_noise(speech_data, corpus):
    drawn = clips(speech_data, corpus, 40)
    assert [clip.source for clip in drawn if not speech_activity(clip)] == []
    for clip in drawn[:6]:
        softer = Waveform(clip.samples * np.float32(0.125))
        assert speech_activity(softer) == speech_activity(clip)
    if corpus in ("ravdess", "secap"):  # noise of a tenth of the power
        for clip in drawn[:12]:
            level = np.sqrt(np.mean(clip.samples**2) / 10)
            noisy = clip.samples + level * noise(clip.duration_s)[: len(clip.samples)]
            assert speech_activity(waveform(noisy))


@pytest.mark.speech_data
def test_a_whisper_is_speech(speech_data):
    # The only whispered clips known in the shared corpora: not one frame of them is voiced.
    for name in ("f2-03-01-02-54.opus", "f2-07-02-02-39.opus"):
        samples, _ = soundfile.read(speech_data / "ased" / name, dtype="float32")
        assert speech_activity(Waveform(samples))


@pytest.mark.parametrize(
    ("sound", "expected_db"),
    [
        (tone(1000, length_s=1, peak=1.0), -3.0103),
        (np.sign(np.sin(2 * np.pi * 100 * seconds(1) + 0.1)), 0.0),
        (np.full(1000, 0.5), -120.0),  # a constant is no sound
        (np.zeros(1000), -120.0),
        (np.zeros(0), -120.0),
    ],
)
def test_levels_by_hand(sound, expected_db):
    assert level_db(waveform(sound)) == pytest.approx(expected_db, abs=1e-3)


@given(gain_db=st.floats(-40, 0))
def test_gain_adds_its_decibels(gain_db):
    sound = tone(300, length_s=0.1) + 0.05 * noise(0.1)
    before, after = (level_db(waveform(sound * 10 ** (gain / 20))) for gain in (0, gain_db))
    assert after - before == pytest.approx(gain_db, abs=1e-3)


def test_a_tone_is_found_in_its_band_with_its_level():
    levels = band_levels_db(waveform(tone(1_375, length_s=1, peak=1.0)).samples)
    middle = levels[len(levels) // 2]
    assert middle.argmax() == int(np.searchsorted(BAND_EDGES_HZ, 1_375)) - 1
    assert middle.max() == pytest.approx(-3.0103, abs=0.1)


def test_white_noise_has_its_power_spread_by_bandwidth():
    levels = band_levels_db(waveform(0.1 * noise(10)).samples)
    power = 10 * np.log10(np.mean(10 ** (levels / 10), axis=0))
    expected = -20 + 10 * np.log10(np.diff(BAND_EDGES_HZ) / (RATE_HZ / 2))
    # A narrow band holds a whole number of FFT bins (31 Hz each), not exactly its width.
    assert np.abs(power - expected).max() < 1.2


@given(st.integers(0, 60), st.integers(0, 20), st.integers(1, 12), st.integers(0, 9))
def test_a_window_lies_around_its_hop(length, longer, hop, count) -> None:
    width = hop + longer
    samples = np.arange(1, length + 1, dtype=np.float32)
    found = windows_of(samples, width, hop, count)
    assert found.shape == (count, width)
    for number, place in itertools.product(range(count), range(width)):
        at = number * hop - (width - hop) // 2 + place
        assert found[number, place] == (samples[at] if 0 <= at < length else 0)


def test_autocorrelations_are_computed_once_of_what_is_short(example_clips) -> None:
    short = load(example_clips[0])
    blocks = correlations_of(short)
    assert correlations_of(short) is blocks
    for one, other in zip(blocks, correlations(short.samples), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    long = Waveform(np.zeros(31 * RATE_HZ, np.float32))
    assert correlations_of(long) is not correlations_of(long)


def bursts(*parts: tuple[float, float]) -> np.ndarray:
    """Tones of (peak, seconds) one after the other; peak 0 is silence."""
    return np.concatenate([tone(300, length_s=s, peak=peak) for peak, s in parts]).astype("f4")


@pytest.mark.parametrize(
    ("parts", "first_s", "last_s"),
    [
        ([(0, 0.5), (0.5, 1.0), (0, 0.5)], 0.5, 1.5),
        # 30 dB softer, a closure of 0.1 s away: a soft first sound.
        ([(0, 0.5), (0.016, 0.1), (0, 0.1), (0.5, 0.5), (0, 0.1), (0.5, 0.4)], 0.5, 1.7),
        # The same 0.3 s away is another sound.
        ([(0, 0.5), (0.016, 0.1), (0, 0.3), (0.5, 0.5), (0, 0.1), (0.5, 0.4)], 0.9, 1.9),
        # 45 dB softer is not heard beside it.
        ([(0, 0.5), (0.0028, 0.1), (0.5, 1.0), (0, 0.5)], 0.6, 1.6),
        # 20 dB softer and long: a softer word after a pause belongs to it, a click does not.
        ([(0, 0.2), (0.5, 1.0), (0, 1.0), (0.05, 0.3), (0, 0.5)], 0.2, 2.5),
        ([(0, 0.2), (0.5, 0.02), (0, 1.0), (0.51, 1.0), (0, 0.5)], 1.22, 2.22),
    ],
)
def test_an_utterance_begins_and_ends_with_its_sound(parts, first_s, last_s):
    first, last = utterance_span(bursts(*parts))
    # A frame of 10 ms to each side is heard, too: levels are smoothed over three.
    assert first_s - 0.011 <= first / RATE_HZ <= first_s
    assert last_s <= last / RATE_HZ <= last_s + 0.011


def test_in_noise_an_utterance_is_what_stands_above_it():
    sound = bursts((0, 1.0), (0.5, 0.4), (0, 0.2), (0.5, 0.4), (0, 1.0)) + 0.01 * noise(3.0)
    first, last = utterance_span(sound.astype("f4"))
    assert (first, last) == (pytest.approx(RATE_HZ, abs=160), pytest.approx(2 * RATE_HZ, abs=160))


@pytest.mark.parametrize("around", [np.zeros, lambda n: 1e-4 * noise(n / RATE_HZ)])
def test_an_utterance_is_the_same_samples_wherever_it_is_found(example_clips, around):
    for number, clip in enumerate(example_clips):
        sound = load(clip).samples
        alone = utterance(waveform(sound))
        first, last = utterance_span(sound)
        before = 160 * (97 + 13 * number)
        after = -(len(sound)) % 160 + 160 * 80
        inside = np.concatenate([around(before), sound, around(after)]).astype("f4")
        found = utterance_span(inside, before + first + 1600, before + last - 1600)
        assert found == (before + first, before + last)
        kept = slice(round(AROUND_S * RATE_HZ), -round(AROUND_S * RATE_HZ))
        assert np.array_equal(alone.samples[kept], inside[slice(*found)][: last - first])
        assert utterance(alone) is alone


def test_of_silence_and_of_less_than_a_frame_everything_is_kept():
    assert utterance_span(np.zeros(5000, "f4")) == (0, 5000)
    for sound in (np.zeros(0, "f4"), np.full(1, 0.5, "f4"), np.full(100, 0.5, "f4")):
        assert len(utterance(waveform(sound)).samples) >= len(sound)


@given(st.lists(st.floats(-1, 1, width=32), max_size=700), st.integers(0, 700), st.integers(0, 700))
def test_a_span_lies_within_the_sound(samples, start, length):
    sound = np.array(samples, "f4")
    start = min(start, len(sound))
    first, last = utterance_span(sound, start, min(len(sound), start + length))
    assert 0 <= first <= last <= len(sound) + 159
