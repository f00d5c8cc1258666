"""Pictures of long recordings: what is drawn, read back by parsers others wrote."""

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import soundfile

from aligncap.captioner import pictures
from aligncap.captioner.pictures import Picture, check_picture
from aligncap.captioner.segments import Segment
from aligncap.errors import MissingModelError, RecipeError
from aligncap.prosody import curves_of, streamed_envelope
from aligncap.storage import printable
from aligncap.values import RATE_HZ, Waveform
from support.segments import spoken
from support.signals import noise

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("block", [1600, 100_000])
def test_an_envelope_does_not_depend_on_blocks(block):
    sound = np.random.default_rng(0).normal(0, 0.1, 90 * RATE_HZ).astype(np.float32)
    sound *= np.linspace(0.1, 1, len(sound), dtype=np.float32)
    found = streamed_envelope(
        (sound[at : at + block] for at in range(0, len(sound), block)), most_points=400
    )
    step = round(found.step_s * RATE_HZ)
    assert 200 < len(found.peak) <= 400
    padded = np.pad(np.abs(sound), (0, -len(sound) % step)).reshape(-1, step)
    assert found.peak == pytest.approx(padded.max(axis=1), abs=1e-6)
    whole = curves_of(Waveform(sound[: 30 * RATE_HZ]))
    at = (np.arange(50) + 0.5) * found.step_s
    expected = np.interp(at, (np.arange(len(whole.peak)) + 0.5) * whole.step_s, whole.loudness_lufs)
    assert found.loudness_lufs[:50] == pytest.approx(expected, abs=1.0)


def test_nothing_has_an_envelope_too():
    assert streamed_envelope([]).peak.tolist() == [0.0]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a & b.wav"
    buzz = np.sign(np.sin(2 * np.pi * 150 * np.arange(2 * RATE_HZ) / RATE_HZ)) * 0.2
    sound = np.concatenate((buzz, np.zeros(RATE_HZ), buzz, 0.05 * noise(1)))
    soundfile.write(path, sound, RATE_HZ)
    return path


FOUND = [
    spoken(0, 2, {"sad": 0.9, "angry": 0.1}, text="She <sounds> sad.", pitch_hz=150.0),
    Segment(2, 3, "silence"),
    spoken(3, 5, {"happy": 1.0}, text="He is glad.", pitch_hz=150.0),
    Segment(5, 6, "noise"),
]


def drawn(path, found, suffix):
    picture, file = Picture(path), io.BytesIO()
    assert list(picture.watched(found)) == found
    picture.save(file, suffix)
    return file.getvalue()


def texts_of(svg):
    tags = (one for one in ET.fromstring(svg).iter() if one.tag.endswith("}text"))
    return ["".join(one.itertext()).strip() for one in tags]


def test_a_picture_has_captions_axes_and_emotions(recording):
    texts = texts_of(drawn(recording, FOUND, ".svg"))
    for text in ("waveform", "emotion", "sad", "happy", "noise", "a & b.wav  (00:00:06)"):
        assert text in texts
    assert any("She <sounds> sad." in one and "00:00:00" in one for one in texts)
    assert drawn(recording, FOUND, ".png").startswith(b"\x89PNG")


def test_pitch_and_emotions_are_drawn_where_they_are(recording):
    picture = Picture(recording)
    list(picture.watched(FOUND))
    wave, pitch, _, emotion = picture.figure().axes
    assert wave.get_xlim() == (0, 6)
    contours = [line.get_data() for line in pitch.lines]
    assert [round(times[0]) for times, _ in contours] == [0, 3]
    for _, hertz in contours:
        assert np.nanmedian(hertz) == pytest.approx(150, rel=0.02)
    bars = [(one.get_x(), one.get_width(), one.get_height()) for one in emotion.patches]
    assert (0.0, 2.0, pytest.approx(0.9)) in bars
    assert (3.0, 2.0, pytest.approx(1.0)) in bars


def test_many_captions_give_way_to_parts_and_channels_have_axes_of_their_own(recording, tmp_path):
    both = tmp_path / "call.wav"
    sound, _ = soundfile.read(recording)
    soundfile.write(both, np.stack((sound, 0 * sound), axis=1), RATE_HZ)
    found = [
        spoken(number / 10, number / 10 + 0.1, text=f"caption {number}", channel=number % 2)
        for number in range(pictures.MOST_LISTED + 2)
    ]
    texts = texts_of(drawn(both, found, ".svg"))
    assert not any("caption 1" in one for one in texts)
    assert sum("Summary of channel" in one for one in texts) == 2
    assert texts.count("waveform") == 2


class Page(HTMLParser):
    """The page's tags with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_a_page_is_whole_in_itself(recording):
    page = drawn(recording, FOUND, ".html").decode()
    read = Page(page)
    assert "She <sounds> sad." in read.text
    assert "Summary: 00:00:06" in read.text
    (audio,) = [one for tag, one in read.tags if tag == "audio"]
    kind, data = audio["src"].split(",")
    assert kind == "data:audio/mpeg;base64"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert (rate, len(heard) / rate) == (RATE_HZ, pytest.approx(6, abs=0.1))
    rows = [one for tag, one in read.tags if tag == "tr"]
    assert [one["data-start"] for one in rows] == ["0.000", "3.000", "5.000"]
    loaded = [one.get("src") or one.get("href") or "" for _, one in read.tags]
    assert not any(one.startswith(("http", "//")) for one in loaded)
    left, each = (float(re.search(rf"{name} = ([\d.]+)", page)[1]) for name in ("left", "each"))
    assert left + 6 * each == pytest.approx(pictures._RIGHT)


@pytest.mark.parametrize("name", ["x$y_$z.wav", r"x$\q$z.wav", "caf\udce9.wav"])
@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_names_and_words_are_drawn_as_they_are_written(recording, name, suffix):
    path = recording.rename(recording.with_name(name))
    words = r"it costs $5 or $6_x, $\q$"
    found = [replace(FOUND[0], words=words), Segment(2, 3, "silence")]
    drawing = drawn(path, found, suffix)
    if suffix == ".svg":
        texts = texts_of(drawing)
        assert f"{printable(name)}  (00:00:06)" in texts
        assert any(words in one for one in texts)


def test_sound_that_is_too_long_is_left_out_wherever_segments_end(recording, monkeypatch):
    monkeypatch.setattr(pictures, "LONGEST_PLAYED_S", 5.9)
    found = [spoken(0, 1)]  # as of a transcript that ends early
    page = drawn(recording, found, ".html").decode()
    assert "<audio" not in page
    assert "a & b.wav  (00:00:06)" in texts_of(drawn(recording, found, ".svg"))
    monkeypatch.setattr(pictures, "LONGEST_PLAYED_S", 6.0)
    assert "<audio" in drawn(recording, found, ".html").decode()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"a\.gif: .*\.png, \.svg, \.html"):
        check_picture(tmp_path / "a.gif")


def test_without_matplotlib_the_error_says_what_to_do(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingModelError, match=r"aligncap\[plots\]"):
        check_picture(tmp_path / "a.svg")
