"""aligncap caption --segments: what is written after the segments, and pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.captioner.pictures import Picture
from aligncap.captioner.segments import Segment
from aligncap.cli.console import Console, Recording
from aligncap.cli.segments import COLUMNS, SegmentOptions, caption_segments, written
from aligncap.errors import InterruptedRunError
from aligncap.values import RATE_HZ
from support.segments import spoken

RECORDING = Recording("a.wav", Path("a.wav"))
FOUND = [spoken(0, 2, {"sad": 1.0}, pitch_hz=181.234), Segment(2, 3, "silence"), spoken(3, 4)]


def test_text_and_jsonl_end_with_a_summary():
    lines = list(written(iter(FOUND), RECORDING, "text"))
    assert lines[3] == ""
    assert lines[4].startswith("Summary: 00:00:04, 2 utterances of 00:00:03 together")
    *segments, last = [json.loads(one) for one in written(iter(FOUND), RECORDING, "jsonl")]
    assert [one["kind"] for one in segments] == ["speech", "silence", "speech"]
    assert (segments[0]["pitch_hz"], segments[0]["loudness_lufs"]) == (181.23, -23.0)
    assert (last["file"], last["kind"], last["utterances"]) == ("a.wav", "summary", 2)


def test_a_table_and_subtitles_have_segments_alone():
    rows = list(csv.DictReader(written(iter(FOUND), RECORDING, "csv"), COLUMNS))
    assert [one["syllables_per_s"] for one in rows] == ["4.0", "", "4.0"]
    assert "Summary" not in "".join(written(iter(FOUND), RECORDING, "srt"))


class FakeCaptioner:
    def segments(self, path, **_):
        return iter(FOUND)


def asked(**options):
    given = {"language": "en", "format": None, "subtitles": None, "output": None}
    given |= {"overwrite": False, "split": False, "transcript": None, "plot": None}
    return SegmentOptions(**given | options)


def test_a_picture_is_written_beside(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path, plot = tmp_path / "a.wav", tmp_path / "a.svg"
    soundfile.write(path, np.zeros(4 * RATE_HZ), RATE_HZ)
    code = caption_segments(Console(), [str(path)], FakeCaptioner, asked(plot=plot))
    assert code == 0
    assert "Somebody speaks." in capsys.readouterr().out
    assert b"Somebody speaks." in plot.read_bytes()


def test_what_is_captioned_is_kept_where_the_picture_fails(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    path, output = tmp_path / "a.wav", tmp_path / "a.srt"
    soundfile.write(path, np.zeros(4 * RATE_HZ), RATE_HZ)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(Picture, "save", fail)
    options = asked(output=output, plot=tmp_path / "a.svg")
    with pytest.raises(OSError, match="no space"):
        caption_segments(Console(), [str(path)], FakeCaptioner, options)
    assert output.read_text("utf-8").count("Somebody speaks.") == 2
    assert not (tmp_path / "a.svg").exists()


def test_what_is_captioned_is_kept_where_somebody_stops_it(tmp_path):
    output = tmp_path / "o.jsonl"
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(4 * RATE_HZ), RATE_HZ)

    class Stopped(FakeCaptioner):
        def segments(self, path, **_):
            if path.stem == "b":
                raise KeyboardInterrupt
            return super().segments(path)

    with pytest.raises(InterruptedRunError, match=r"stopped; \S+o\.jsonl holds what was captioned"):
        caption_segments(Console(), [str(tmp_path)], Stopped, asked(output=output))
    files = {json.loads(line)["file"] for line in output.read_text("utf-8").splitlines()}
    assert files == {str(tmp_path / "a.wav")}


def test_a_picture_of_another_kind_is_refused_before_a_model_is_opened(aligncap, clip, tmp_path):
    aligncap("caption", clip, "--plot", tmp_path / "a.gif").refused(".png, .svg, .html")
    (tmp_path / "a.svg").write_text("a picture", "utf-8")
    aligncap("caption", clip, "--plot", tmp_path / "a.svg").refused("--overwrite")
    aligncap("caption", clip.parent, "--plot", tmp_path / "b.svg").refused("pictures are of one")
