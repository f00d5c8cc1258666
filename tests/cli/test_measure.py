"""measure and clues: what is printed of a recording and of a text."""

import json
from pathlib import Path


def test_measure_prints_facts_with_units(aligncap, example_clips: list[Path]) -> None:
    clip = next(clip for clip in example_clips if clip.stem == "man-plain")
    ran = aligncap("measure", clip)
    assert ran.code == 0
    assert ran.out.startswith(f"{clip}  (3.0 s, ")
    assert "pitch_median_hz" in ran.out
    record = json.loads(aligncap("measure", clip, "--format", "jsonl").out)
    pitch = record["facts"]["pitch_median_hz"]
    assert pitch["unit"] == "Hz"
    assert 85 < pitch["value"] < 120  # Praat's tracker finds 102 Hz


def test_measure_says_what_it_cannot_tell(aligncap, example_clips: list[Path]) -> None:
    whisper = next(clip for clip in example_clips if clip.stem == "woman-whisper")
    record = json.loads(aligncap("measure", whisper, "--format", "jsonl").out)
    pitch = record["facts"]["pitch_median_hz"]
    assert pitch["value"] is None
    assert pitch["reason"]


def test_measure_goes_on_after_a_bad_file(aligncap, example_clips, tmp_path) -> None:
    ran = aligncap("measure", tmp_path / "absent.wav", example_clips[0])
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert ran.out.startswith(str(example_clips[0]))


def test_clues_of_a_caption(aligncap) -> None:
    ran = aligncap("clues", "A woman speaks slowly, her voice trembling.")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "A woman speaks slowly, her voice trembling."
    assert any(line.split()[:3] == ["slowly", "pace", "slow"] for line in lines) or any(
        line.split()[:3] == ["slow", "pace", "slow"] for line in lines
    )
    assert lines[-1].strip().startswith("prompt: Feeling ")


def test_clues_from_standard_input_as_jsonl(aligncap) -> None:
    stdin = b"He is angry.\n\nNothing of the voice here.\n"
    ran = aligncap("clues", "-", "--format", "jsonl", stdin=stdin)
    first, second = map(json.loads, ran.out.splitlines())
    assert first["emotion"] == "angry"
    assert second["clues"] == []
