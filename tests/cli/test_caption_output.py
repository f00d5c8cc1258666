"""What is written: text for a person, jsonl and csv for a program."""

import csv
import io
import json
from pathlib import Path

KEYS = ["file", "duration_s", "language", "caption", "clues", "emotion", "arousal", "valence"]
KEYS += ["gender", "pitch", "loudness", "pace", "confidence", "model"]


def test_a_jsonl_line_has_what_is_promised(aligncap, clip: Path) -> None:
    record = json.loads(aligncap("caption", clip, "--format", "jsonl").out)
    assert list(record) == KEYS
    assert record["clues"] == [
        {"word": "loud", "trait": "volume", "verdict": "supported", "evidence": "peak 1.0"}
    ]
    assert record["emotion"] == {"angry": 0.7, "happy": 0.3}
    assert record["valence"] is None


def test_candidates_and_language_are_passed_on(aligncap, clip: Path) -> None:
    arguments = ("--format", "jsonl", "--candidates", "3", "--language", "zh")
    record = json.loads(aligncap("caption", clip, *arguments).out)
    assert record["caption"] == "一个人大声说话。"
    assert record["candidates"] == ["Candidate 1.", "Candidate 2."]


def test_csv_is_a_table_that_reads_back(aligncap, clip: Path, tmp_path: Path) -> None:
    ran = aligncap("caption", clip, tmp_path / "absent.wav", "--format", "csv")
    good, bad = csv.DictReader(io.StringIO(ran.out))
    assert list(good) == [*KEYS, "part_s", "candidates", "error"]
    assert good["clues"] == "loud=supported"
    assert good["emotion"] == "angry=0.70; happy=0.30"
    assert (good["valence"], good["error"]) == ("", "")
    assert (bad["file"], bad["caption"]) == (str(tmp_path / "absent.wav"), "")
    assert "absent.wav" in bad["error"]


def test_text_with_evidence_shows_mark_clue_and_measurement(aligncap, clip: Path) -> None:
    lines = aligncap("caption", clip, "--evidence", "--candidates", "2").out.splitlines()
    assert lines[1:] == [
        "  Somebody speaks loudly.",
        "  or: Candidate 1.",
        "    ✓ loud  volume  peak 1.0",
    ]


def test_the_suffix_of_the_output_chooses_the_format(aligncap, clip: Path, tmp_path: Path) -> None:
    for suffix, start in ((".jsonl", "{"), (".csv", "file,"), (".txt", str(clip))):
        output = tmp_path / f"out{suffix}"
        assert aligncap("caption", clip, "--output", output).code == 0
        assert output.read_text().startswith(start)


def test_an_output_in_the_way_is_left_alone(aligncap, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "thesis.jsonl"
    output.write_text("years of work\n")
    ran = aligncap("caption", clip, "--output", output)
    assert ran.code == 2
    assert str(output) in ran.err
    assert output.read_text() == "years of work\n"


def test_an_output_that_cannot_be_written(aligncap, clip: Path, tmp_path: Path) -> None:
    ran = aligncap("caption", clip, "--output", tmp_path / "no" / "such" / "folder.jsonl")
    assert ran.code == 2
    assert "folder.jsonl" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_name_that_is_not_utf8_survives_jsonl(aligncap, clip: Path, tmp_path: Path) -> None:
    name = tmp_path / "caf\udce9.ogg"
    name.write_bytes(clip.read_bytes())
    output = tmp_path / "out.jsonl"
    assert aligncap("caption", name, "--output", output).code == 0
    assert json.loads(output.read_text(encoding="utf-8"))["file"] == str(name)
    again = aligncap("caption", name, "--output", output, "--resume")
    assert again.code == 0
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1
