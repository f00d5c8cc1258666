"""The learnt detector tells people from things, whatever the level, and hears pieces as a whole."""

import itertools
import re
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.audio import SpeechDetector, load, sound_kind
from aligncap.audio.detector import FRAME, FRAME_S, MODEL
from aligncap.captioner.preparing import Preprocessor
from aligncap.errors import MissingModelError, NoSpeechError
from aligncap.storage import hash_of_file
from aligncap.values import Waveform
from support.captioner import LoudnessTokenizer
from support.scripts import load_script
from support.signals import clicks, noise, tone, waveform

sounds = load_script("benchmarks/sounds.py")

THINGS = ("piano chords", "siren", "bell", "brass", "dog", "white noise", "band", "drill")
COUGH = {"vocalization": {"speech": 0.1, "coughing": 0.85, "sighing": 0.05}}


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


def test_the_file_is_the_one_that_is_written_down_and_has_its_licence():
    pinned = re.findall(r"`([0-9a-f]{64})`", (MODEL.parent / "README.md").read_text("utf-8"))
    assert hash_of_file(MODEL) == pinned[0]
    assert "Silero Team" in (MODEL.parent / "LICENSE").read_text("utf-8")


def test_without_its_file_one_line_says_so(tmp_path):
    with pytest.raises(MissingModelError, match="not in this installation"):
        SpeechDetector(tmp_path / "none.onnx")


def test_people_are_heard_at_any_level(detector, example_clips):
    clips = [load(path).samples for path in example_clips]
    assert all(detector.hears_speech(clip) for clip in clips)
    assert detector.hears_speech(clips[0] * np.float32(1e-3))


@pytest.mark.parametrize("kind", THINGS)
def test_things_are_not_people(detector, kind):
    assert not detector.hears_speech(sounds.made(kind, 7))


def test_nothing_is_no_speech(detector):
    for samples in (np.zeros(0), np.ones(1), np.zeros(16_000)):
        assert not detector.hears_speech(samples.astype(np.float32))


def test_speech_is_found_where_it_is(detector, example_clips):
    clip = load(example_clips[0]).samples
    quiet = np.zeros(32_000, np.float32)
    spans = detector.spans(np.concatenate((quiet, clip, quiet)))
    end_s = 2 + len(clip) / 16_000
    assert (spans[0][0], spans[-1][1]) == pytest.approx((2.0, end_s), abs=0.3)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=5))
def test_pieces_are_heard_as_the_whole(cuts):
    detector, sound = SpeechDetector(), (0.3 * noise(2)).astype(np.float32)
    listener = detector.listener()
    edges = [0, *sorted(cut * FRAME for cut in cuts), len(sound)]
    pieces = [listener.probabilities(sound[a:b]) for a, b in itertools.pairwise(edges)]
    whole = detector.probabilities(sound)
    assert len(whole) == -(-len(sound) // FRAME) == round(2 / FRAME_S + 0.5)
    assert np.concatenate(pieces) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("sound", "kind"),
    [
        (np.zeros(16_000), "silence"),
        (0.1 * noise(2), "noise"),
        (tone(440, length_s=2), "tones or music"),
        (clicks(0.5, length_s=3), "short sounds"),
    ],
)
def test_what_is_heard_instead_is_named(sound, kind):
    assert sound_kind(waveform(sound).samples) == kind


def prepared(readout: Mapping[str, Mapping[str, float]], kind: str):
    sound = Waveform(sounds.made(kind, 7), "x.wav")
    return Preprocessor(LoudnessTokenizer(readout=readout), 30.0, SpeechDetector()).prepare(sound)


@pytest.mark.parametrize(
    "readout",
    [
        {},
        {"vocalization": {"speech": 0.9, "coughing": 0.1}},
        {"vocalization": {"speech": 0.3, "coughing": 0.7}},
        COUGH | {"novelty": {"score": 1.0}},
    ],
)
def test_a_thing_is_refused_whatever_else_the_encoder_hears(readout):
    with pytest.raises(NoSpeechError, match=r"x\.wav: no speech in it: tones or music; give"):
        prepared(readout, "piano chords")


def test_a_cough_that_the_encoder_knows_goes_on():
    readout = COUGH | {"novelty": {"score": 0.4}}
    assert prepared(readout, "dog").tokens.readout["vocalization"]["coughing"] == 0.85


@pytest.mark.speech_data
def test_short_words_of_real_people_are_heard(detector, speech_data):
    words = sorted((speech_data / "turev_db").glob("*.ogg"))[::140]
    assert [path.name for path in words if not detector.hears_speech(load(path).samples)] == []
