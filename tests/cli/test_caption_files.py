"""A folder of good and bad files: the good are captioned, each bad one is one clear line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.values import RATE_HZ


def noise(seconds: float, *, channels: int = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    samples = np.random.default_rng(1).normal(0, 0.1, (int(seconds * rate_hz), channels))
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """Nine bad files, two good ones, and two that are no recordings."""
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(clip, folder / "good.ogg")
    samples, rate_hz = soundfile.read(clip, dtype="float32")
    six = np.repeat(np.repeat(samples, 4)[:, None], 6, axis=1)
    soundfile.write(folder / "six-channels.wav", six, 96_000, subtype="FLOAT")

    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("Dear Ada, the train was late again.\n")
    soundfile.write(folder / "whole.flac", samples, rate_hz)
    flac = (folder / "whole.flac").read_bytes()
    (folder / "whole.flac").unlink()
    (folder / "truncated.flac").write_bytes(flac[: len(flac) // 3])
    soundfile.write(folder / "one-sample.wav", np.zeros(1, np.float32), RATE_HZ)
    soundfile.write(folder / "silence.wav", np.zeros(3 * RATE_HZ, np.float32), RATE_HZ)
    broken = noise(2)
    broken[1000:1010] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE_HZ, subtype="FLOAT")
    (folder / "directory.wav").mkdir()
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    (folder / "phone.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(200))
    (folder / "notes.txt").write_text("not a recording, and not called one: passed over")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    return folder


BAD = [
    "dangling.wav",
    "directory.wav",
    "empty.wav",
    "nan.wav",
    "one-sample.wav",
    "phone.m4a",
    "silence.wav",
    "text.wav",
    "truncated.flac",
]
GOOD = ["good.ogg", "six-channels.wav"]


def test_good_files_are_captioned_and_bad_ones_are_a_line_each(aligncap, folder: Path) -> None:
    ran = aligncap("caption", folder)
    assert ran.code == 1
    captioned = [line for line in ran.out.splitlines() if line and not line.startswith(" ")]
    assert [Path(line.split("  ")[0]).name for line in captioned] == GOOD
    *errors, summary = ran.err.splitlines()
    assert len(errors) == len(BAD)
    for name, line in zip(BAD, errors, strict=True):
        assert line.startswith("aligncap: ")
        assert str(folder / name) in line
    assert summary == f"aligncap: {len(BAD)} of {len(BAD) + len(GOOD)} files could not be captioned"
    assert "Traceback" not in ran.err


def test_jsonl_has_a_line_for_every_recording_in_order(aligncap, folder: Path) -> None:
    ran = aligncap("caption", folder, "--format", "jsonl")
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [Path(record["file"]).name for record in records] == sorted(BAD + GOOD)
    assert [Path(r["file"]).name for r in records if "error" in r] == BAD
    assert all(set(record) == {"file", "error"} for record in records if "error" in record)


REASONS = {
    "dangling.wav": "does not exist",
    "directory.wav": "folder",
    "empty.wav": "empty",
    "nan.wav": "NaN",
    "one-sample.wav": "nobody speaks",
    "phone.m4a": "m4a",
    "silence.wav": "nobody speaks",
    "text.wav": "text",
    "truncated.flac": "cut short",
}


def test_each_line_says_what_is_wrong(aligncap, folder: Path) -> None:
    records = map(json.loads, aligncap("caption", folder, "--format", "jsonl").out.splitlines())
    errors = {Path(r["file"]).name: r["error"] for r in records if "error" in r}
    assert errors.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in errors[name].partition(name)[2]


def test_one_bad_file_alone_has_no_summary(aligncap, folder: Path) -> None:
    ran = aligncap("caption", folder / "empty.wav")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1


def test_all_good_is_exit_code_0_and_nothing_on_stderr(aligncap, clip: Path) -> None:
    ran = aligncap("caption", clip)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{clip}  (2.5 s)\n  Somebody speaks loudly.\n"


def test_a_pdf_asked_for_by_name_is_an_error(aligncap, folder: Path) -> None:
    ran = aligncap("caption", folder / "paper.pdf")
    assert ran.code == 1
    assert "paper.pdf" in ran.err


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "DOUBLE"])
def test_wav_of_any_width_is_captioned(aligncap, clip: Path, tmp_path: Path, subtype: str) -> None:
    samples, rate_hz = soundfile.read(clip)
    file = tmp_path / "clip.wav"
    soundfile.write(file, samples, rate_hz, subtype=subtype)
    assert aligncap("caption", file).code == 0


def test_a_file_that_is_not_there(aligncap, tmp_path: Path) -> None:
    ran = aligncap("caption", tmp_path / "absent.wav")
    assert ran.code == 1
    assert "absent.wav" in ran.err


def test_a_folder_without_recordings(aligncap, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    ran = aligncap("caption", tmp_path)
    assert ran.code == 1
    assert "no sound file" in ran.err


def test_a_missing_model_is_our_error_and_stops_before_any_file(aligncap, clip: Path) -> None:
    ran = aligncap("caption", clip, "--model", "maxi", "--output", clip.with_name("never.jsonl"))
    assert ran.code == 2
    assert ran.err == "aligncap: maxi: no such model; built in: mini\n"
    assert not clip.with_name("never.jsonl").exists()
