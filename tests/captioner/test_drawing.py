"""A caption in a notebook: what is shown of its recording, by parsers others wrote."""

import base64
import io
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import soundfile

import aligncap
from aligncap.audio import load
from aligncap.errors import AudioError, DataError
from aligncap.values import RATE_HZ


@pytest.fixture(scope="module")
def captioner():
    return aligncap.load()


def parsed(html):
    return ET.fromstring(html)


def test_a_notebook_shows_player_curves_and_evidence(captioner, example_clips):
    clip = example_clips[0]
    caption = captioner.caption(clip)
    tree = parsed(caption._repr_html_())
    assert tree.find("p").text == caption.text
    kind, data = tree.find("audio").get("src").split(",")
    assert kind == "data:audio/wav;base64"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert rate == RATE_HZ
    assert heard == pytest.approx(load(clip).samples, abs=1e-4)
    assert [one.get("aria-label") for one in tree.findall("svg")] == ["pitch", "loudness"]
    for path in tree.iter("path"):
        numbers = [float(one) for one in re.findall(r"[\d.]+", path.get("d"))]
        assert len(numbers) > 50
        assert max(numbers[::2]) <= 640
        assert max(numbers[1::2]) <= 60
    rows = [[cell.text or cell[0].text for cell in row] for row in tree.iter("tr")]
    assert rows == [[one.clue.word, one.verdict.value, one.measurement] for one in caption.evidence]
    assert "http" not in caption._repr_html_()


def test_the_text_of_others_is_no_markup(captioner, example_clips):
    caption = replace(captioner.caption(example_clips[0]), text="<script>alert(1)</script>")
    assert parsed(caption._repr_html_()).find("p").text == caption.text


def test_arrays_and_lists_are_drawn_and_a_generator_is_not_kept(captioner, example_clips):
    samples = load(example_clips[0]).samples
    shown = captioner.caption(samples, rate_hz=RATE_HZ)
    assert shown._repr_html_() == captioner.caption(example_clips[0])._repr_html_()
    listed, bare = (
        captioner.caption([example_clips[0]]),
        captioner.caption(iter([samples]), rate_hz=RATE_HZ),
    )
    assert listed[0]._repr_html_() == shown._repr_html_()
    assert listed == bare
    assert bare[0]._repr_html_() is None
    with pytest.raises(DataError, match="recording is not known"):
        bare[0].plot()


def test_it_is_plotted(captioner, example_clips):
    pytest.importorskip("matplotlib")
    caption = captioner.caption(example_clips[0])
    figure = caption.plot()
    wave, pitch, loudness, evidence = figure.axes
    assert wave.get_title() == caption.text
    times_s, hertz = pitch.lines[0].get_data()
    assert np.nanmax(times_s) == pytest.approx(caption.duration_s, abs=0.02)
    assert 50 < np.nanmedian(hertz) < 400
    assert loudness.get_xlabel() == "time (s)"
    lines = [one.get_text() for one in evidence.texts]
    assert [one.split(":")[0] for one in lines] == [one.clue.word for one in caption.evidence]
    assert all(one.measurement in line for one, line in zip(caption.evidence, lines, strict=True))
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")


def test_dollars_of_a_caption_are_no_formula(captioner, example_clips):
    pytest.importorskip("matplotlib")
    caption = replace(captioner.caption(example_clips[0]), text=r"It costs $\q$ or $5.")
    caption.plot().savefig(picture := io.BytesIO(), format="png")
    assert picture.getvalue().startswith(b"\x89PNG")


def test_a_recording_that_is_gone_is_told(captioner, example_clips, tmp_path):
    clip = tmp_path / "clip.ogg"
    clip.write_bytes(example_clips[0].read_bytes())
    caption = captioner.caption(clip)
    clip.unlink()
    with pytest.raises(AudioError, match="does not exist"):
        caption._repr_html_()
