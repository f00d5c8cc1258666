"""aligncap caption: each good file is captioned, each bad one is a line, a stopped run goes on."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from aligncap.cli.outputs import format_record
from aligncap.values import RATE_HZ
from support.killer import Process, finish, kill, start, wait_until

KEYS = ["file", "duration_s", "language", "caption", "clues", "emotion", "arousal", "valence"]
KEYS += ["gender", "pitch", "loudness", "pace", "confidence", "certainty", "second_emotion"]
KEYS += ["vocalization", "unfamiliar", "model"]

REASONS = {
    "dangling.wav": "does not exist",
    "directory.wav": "folder",
    "empty.wav": "empty",
    "nan.wav": "NaN",
    "one-sample.wav": "no speech in it",
    "phone.m4a": "m4a",
    "silence.wav": "no speech in it",
    "text.wav": "text",
    "truncated.flac": "cut short",
}
"""Bad file → what is said of it."""
GOOD = ["good.ogg", "pcm_24.wav", "pcm_u8.wav", "six-channels.wav"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """Nine bad files, four good ones, and two that are no recordings."""
    folder = tmp_path_factory.mktemp("clips")
    shutil.copy(clip, folder / "good.ogg")
    samples, rate_hz = soundfile.read(clip, dtype="float32")
    for width in ("PCM_24", "PCM_U8"):
        soundfile.write(folder / f"{width.lower()}.wav", samples, rate_hz, subtype=width)
    six = np.repeat(np.repeat(samples, 4)[:, None], 6, axis=1)
    soundfile.write(folder / "six-channels.wav", six, 96_000, subtype="FLOAT")

    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("Dear Ada, the train was late again.\n")
    soundfile.write(folder / "truncated.flac", samples, rate_hz)
    flac = (folder / "truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(flac[: len(flac) // 3])
    soundfile.write(folder / "one-sample.wav", np.zeros(1, np.float32), RATE_HZ)
    soundfile.write(folder / "silence.wav", np.zeros(3 * RATE_HZ, np.float32), RATE_HZ)
    broken = np.random.default_rng(1).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    broken[1000:1010] = np.nan
    soundfile.write(folder / "nan.wav", broken, RATE_HZ, subtype="FLOAT")
    (folder / "directory.wav").mkdir()
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    (folder / "phone.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A " + bytes(200))
    (folder / "notes.txt").write_text("not a recording, and not called one: passed over")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7\n")
    return folder


def test_good_files_are_captioned_and_bad_ones_are_a_line_each(aligncap, folder: Path) -> None:
    ran = aligncap("caption", folder)
    assert ran.code == 1
    captioned = [line for line in ran.out.splitlines() if line and not line.startswith(" ")]
    assert [Path(line.split("  ")[0]).name for line in captioned] == GOOD
    *errors, summary = ran.err.splitlines()
    for name, line in zip(REASONS, errors, strict=True):
        assert line.startswith("aligncap: ")
        assert str(folder / name) in line
        assert REASONS[name] in line.partition(name)[2]
    bad, every = len(REASONS), len(REASONS) + len(GOOD)
    assert summary == f"aligncap: {bad} of {every} files could not be captioned"

    ran = aligncap("caption", folder, "--format", "jsonl")
    records = {Path(one["file"]).name: one for one in map(json.loads, ran.out.splitlines())}
    assert list(records) == sorted([*REASONS, *GOOD])
    failed = {name: record.keys() for name, record in records.items() if "error" in record}
    assert failed == {name: {"file", "error"} for name in REASONS}


@pytest.mark.parametrize("name", ["empty.wav", "paper.pdf", "absent.wav"])
def test_one_bad_file_alone_is_one_line_without_a_summary(aligncap, folder: Path, name) -> None:
    ran = aligncap("caption", folder / name)
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert name in ran.err


def test_text_is_the_caption_and_on_request_candidates_and_evidence(aligncap, clip: Path) -> None:
    ran = aligncap("caption", clip)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{clip}  (2.5 s)\n  Somebody speaks loudly.\n"
    more = ["  or: Candidate 1.", "    ✓ loud  volume  peak 1.0"]
    ran = aligncap("caption", clip, "--evidence", "--candidates", "2")
    assert ran.out.splitlines()[2:] == more


def test_a_jsonl_line_has_what_is_promised(aligncap, clip: Path) -> None:
    record = json.loads(aligncap("caption", clip, "--format", "jsonl").out)
    assert list(record) == KEYS
    evidence = {"word": "loud", "trait": "volume", "verdict": "supported", "evidence": "peak 1.0"}
    assert record["clues"] == [evidence]
    assert record["emotion"] == {"angry": 0.7, "happy": 0.3}
    assert record["valence"] is None
    more = ("--candidates", "3", "--language", "zh")
    record = json.loads(aligncap("caption", clip, "--format", "jsonl", *more).out)
    assert record["caption"] == "一个人大声说话。"
    assert record["candidates"] == ["Candidate 1.", "Candidate 2."]


SURE = {"emotion": {"sad": 0.64, "angry": 0.36}, "certainty": "sure", "second_emotion": None}
LIKELY = {"emotion": {"angry": 0.1, "sad": 0.52, "bored": 0.38}, "certainty": "likely"}
COUGH = {"emotion": None, "vocalization": "coughing", "confidence": 0.55, "certainty": "likely"}
USUAL = {"source": "speaker 3", "clips": 12, "pitch_hz": 190.0}
NONE = {"source": "folder a", "clips": 0, "reason": "it needs 3 utterances, 2 can be used"}


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (SURE, ["  So."]),
        (LIKELY, ["  So.  (likely: sad 52%)"]),
        (LIKELY | {"second_emotion": "bored"}, ["  So.  (likely: sad 52%, bored 38%)"]),
        (LIKELY | {"certainty": "unsure"}, ["  So.  (unsure: sad 52%, bored 38%)"]),
        (COUGH, ["  So.  (likely: coughing 55%)"]),
        (SURE | {"baseline": USUAL}, ["  So.", "  relative to speaker 3 (12 recordings)"]),
        (
            SURE | {"unfamiliar": True, "baseline": NONE},
            [
                "  So.",
                "  unlike anything that the model learnt from: do not rely on the caption",
                "  no baseline of folder a: it needs 3 utterances, 2 can be used",
            ],
        ),
    ],
)
def test_text_says_how_sure_it_is_and_relative_to_what(found: dict[str, Any], lines) -> None:
    record = {"file": "a.wav", "duration_s": 1.0, "caption": "So.", "clues": []}
    none = dict.fromkeys(("second_emotion", "vocalization", "unfamiliar"))
    text = format_record({**record, **none, **found}, "text", evidence=False, colour=False)
    assert text.splitlines() == ["a.wav  (1.0 s)", *lines]


def test_csv_is_a_table_that_reads_back(aligncap, clip: Path, tmp_path: Path) -> None:
    ran = aligncap("caption", clip, tmp_path / "absent.wav", "--format", "csv")
    good, bad = csv.DictReader(io.StringIO(ran.out))
    assert list(good) == [
        *KEYS,
        "baseline",
        "part_s",
        "candidates",
        "error",
        "id",
        "speaker",
        "signature",
    ]
    assert (good["clues"], good["emotion"]) == ("loud=supported", "angry=0.70; happy=0.30")
    assert (good["valence"], good["error"]) == ("", "")
    assert (bad["file"], bad["caption"]) == (str(tmp_path / "absent.wav"), "")
    assert "absent.wav" in bad["error"]


def test_the_suffix_of_the_output_chooses_the_format(aligncap, clip: Path, tmp_path: Path) -> None:
    for suffix, begins in ((".jsonl", "{"), (".csv", "file,"), (".txt", str(clip))):
        output = tmp_path / f"out{suffix}"
        assert aligncap("caption", clip, "--output", output).code == 0
        assert output.read_text().startswith(begins)


def test_what_cannot_be_written_or_resumed_is_one_line_and_left_alone(aligncap, clip, tmp_path):
    output = tmp_path / "thesis.jsonl"
    to, missing = ("--output", output), "aligncap: maxi: no such model; built in: mini"
    aligncap("caption", clip, "--model", "maxi", *to).refused(missing)
    assert not output.exists()
    output.write_text("years of work\n")
    aligncap("caption", clip, *to).refused(str(output))
    aligncap("caption", clip, *to, "--resume").refused(str(output))
    assert output.read_text() == "years of work\n"
    aligncap("caption", clip, "--output", output / "a" / "b.jsonl").refused("b.jsonl")
    aligncap("caption", clip, "--resume").refused("--output FILE.jsonl")
    aligncap("caption", clip, "--resume", "--output", "out.txt").refused("--output FILE.jsonl")


def test_a_name_that_is_not_utf8_survives_jsonl(aligncap, clip: Path, tmp_path: Path) -> None:
    name = tmp_path / "caf\udce9.ogg"
    name.write_bytes(clip.read_bytes())
    output = tmp_path / "out.jsonl"
    assert aligncap("caption", name, "--output", output).code == 0
    assert aligncap("caption", name, "--output", output, "--resume").code == 0
    assert files_in(output) == [str(name)]


def manifest_of(folder: Path, clips: list[Path], *speakers: str | None) -> Path:
    """A manifest of the clips with these speakers."""
    file = folder / "clips.jsonl"
    rows = ({"file": str(c), "speaker": s} for c, s in zip(clips, speakers, strict=True))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_every_column_of_a_manifest_comes_through(aligncap, clips, tmp_path):
    manifest, out = tmp_path / "clips.jsonl", tmp_path / "out.csv"
    rows = [
        {"file": str(clips[0]), "id": "a", "speaker": "s1", "take": 3, "tags": ["x", "ü"]},
        {"file": "absent.wav", "id": "b", "speaker": None, "emotion": "sad", "duration": 2.5},
        {"file": str(clips[1]), "id": "c", "speaker": "s2", "text": 'He said "no", twice.'},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    renamed = {"emotion": "manifest_emotion", "duration": "manifest_duration"}
    expected = [{renamed.get(key, key): row[key] for key in row if key != "file"} for row in rows]

    ran = aligncap("caption", manifest, "--format", "jsonl")
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [record | wanted for record, wanted in zip(records, expected, strict=True)] == records

    assert aligncap("caption", manifest, "--output", out).code == 1
    whole = out.read_text("utf-8")
    found = list(csv.DictReader(io.StringIO(whole)))
    for record, wanted in zip(found, expected, strict=True):
        for name in ("id", "speaker", "take", "text", "manifest_emotion", "manifest_duration"):
            assert record[name] == ("" if wanted.get(name) is None else str(wanted[name]))
    assert json.loads(found[0]["tags"]) == ["x", "ü"]
    assert found[0]["emotion"] == "angry=0.70; happy=0.30"
    assert "sad" not in found[0].values()
    # A run that was stopped goes on with the same columns.
    out.write_text("".join(whole.splitlines(keepends=True)[:2]), "utf-8")
    assert aligncap("caption", manifest, "--output", out, "--resume").code == 1
    assert out.read_text("utf-8") == whole


class TestBaselines:
    def test_one_speakers_recordings_are_the_baseline_of_all(self, aligncap, clips, tmp_path):
        given = ("--baseline", clips[0], "--baseline", clips[1].parent)
        ran = aligncap("caption", clips[0], *given, "--format", "jsonl")
        baseline = json.loads(ran.out)["baseline"]
        numbers = {"pitch_hz": 190.0, "loudness_db": -25.0, "pace_syllables_per_s": 5.0}
        source = f"{clips[0]}, {clips[1].parent}"
        assert baseline == {
            "source": source,
            "clips": 12,
            **numbers,
        }  # the folder has the first too
        text = aligncap("caption", clips[0], *given).out
        assert text.splitlines()[-1] == f"  relative to {source} (12 recordings)"
        output = tmp_path / "out.jsonl"
        aligncap("caption", clips[0], *given, "--output", output)
        assert "|baseline:" in json.loads(output.read_text())["signature"]
        aligncap("caption", *clips, "--output", output, "--resume").refused("made with baseline")

    def test_each_speaker_of_a_manifest_has_their_own(self, aligncap, clips, tmp_path):
        manifest = manifest_of(tmp_path, clips, "a", "a", "b", "a", None, "a")
        ran = aligncap("caption", manifest, "--per", "speaker", "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(ran.out)))
        assert [row["baseline"].partition("; pitch")[0] for row in rows] == [
            *["source=speaker a; clips=3"] * 2,
            "source=speaker b; clips=0; reason=it needs 3 utterances, 1 can be used",
            "source=speaker a; clips=3",
            "source=no speaker; clips=0; reason=its speaker is not known",
            "source=speaker a; clips=3",
        ]

    def test_a_folder_is_a_speaker_and_a_stopped_run_goes_on_alike(self, aligncap, clips, tmp_path):
        whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
        per = ("caption", *clips, tmp_path / "absent.wav", "--per", "folder", "--output")
        assert aligncap(*per, whole).code == 1
        output.write_text("".join(whole.read_text().splitlines(keepends=True)[:2]))
        aligncap(*per, output, "--resume")
        assert output.read_text() == whole.read_text()
        first = json.loads(output.read_text().splitlines()[0])
        assert first["baseline"]["clips"] == 5
        assert first["baseline"]["source"] == f"folder {clips[0].parent}"
        assert first["signature"].endswith("|per:folder")

    def test_none_of_their_recordings_is_overwritten(self, aligncap, clips, tmp_path):
        usual, manifest = tmp_path / "b.wav", tmp_path / "m.jsonl"
        usual.write_bytes(clips[1].read_bytes())
        manifest.write_text('{"file": "b.wav"}\n')
        for given in (usual, tmp_path, manifest):
            asked = (clips[0], "--baseline", given, "-o", usual, "--format", "jsonl", "--overwrite")
            aligncap("caption", *asked).refused("this command reads")
        asked = (clips[0], "--baseline", manifest, "-o", manifest, "--overwrite")
        aligncap("caption", *asked).refused("this command reads")
        assert usual.read_bytes() == clips[1].read_bytes()

    def test_a_broken_line_of_their_manifest_is_named(self, aligncap, clip, tmp_path):
        (tmp_path / "bad.jsonl").write_text('{"file": \n')
        ran = aligncap("caption", clip, "--baseline", tmp_path / "bad.jsonl")
        ran.refused("bad.jsonl:1: not JSON")

    def test_what_cannot_be_is_one_line(self, aligncap, clip, tmp_path):
        aligncap("caption", clip, "--per", "speaker").refused("no recording has a speaker")
        both = ("--per", "folder", "--baseline", clip)
        aligncap("caption", clip, *both).refused("give one of them")
        assert "baseline" not in aligncap("caption", clip, "--per", "file", "--format", "jsonl").out


@pytest.fixture
def clips(example_clips: list[Path]) -> list[Path]:
    return example_clips[:6]


def files_in(output: Path) -> list[str]:
    lines = output.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["file"] for line in lines]


def test_resume_skips_what_is_there_and_mends_a_torn_line(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    aligncap("caption", *clips[:3], "--output", output, "--resume")  # nothing is there yet
    whole = output.read_text()
    output.write_text(whole[:-40])  # killed in the middle of the third line
    assert aligncap("caption", *clips, "--output", output, "--resume").code == 0
    assert files_in(output) == [str(clip) for clip in clips]
    assert output.read_text().startswith(whole)


def test_resume_of_a_csv_writes_one_heading(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.csv"
    aligncap("caption", *clips[:2], "--output", output)
    output.write_text(output.read_text() + str(clips[2]) + ",3.1,en,Somebo")
    aligncap("caption", *clips, "--output", output, "--resume")
    lines = output.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["file", *map(str, clips)]


def test_resume_remembers_that_some_failed(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    paths = [*clips, tmp_path / "absent.wav"]
    assert aligncap("caption", *paths, "--output", output).code == 1
    before = output.read_text()
    ran = aligncap("caption", *paths, "--output", output, "--resume")
    assert ran.code == 1
    assert ran.err == f"aligncap: 1 of {len(paths)} files could not be captioned\n"
    assert output.read_text() == before


HELD_RUN = """
import sys
from aligncap.cli.main import main
from aligncap.cli.console import Console
from support.killer import hold
from support.models import FakeCaptioner

class Held(FakeCaptioner):
    def caption_many(self, sources, **options):
        for number, outcome in enumerate(super().caption_many(sources, **options)):
            if number == 2:
                hold()
            yield outcome

sys.exit(main(sys.argv[1:], console=Console(load_model=lambda name, **_: Held(name))))
"""


@pytest.fixture
def held(clips: list[Path], tmp_path: Path) -> tuple[Process, Path]:
    """A captioning process that has written two lines and waits before the third; its output."""
    output = tmp_path / "out.jsonl"
    process = start("-c", HELD_RUN, "caption", *clips, "--output", output)
    wait_until(lambda: output.exists() and output.read_text().count("\n") == 2, process)
    return process, output


@pytest.mark.slow
def test_a_killed_run_keeps_what_is_done_and_goes_on(aligncap, clips, held) -> None:
    process, output = held
    kill(process)
    before = output.read_text()
    assert aligncap("caption", *clips, "--output", output, "--resume").code == 0
    assert output.read_text().startswith(before)
    assert files_in(output) == [str(clip) for clip in clips]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(clips, held) -> None:
    process, output = held
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert files_in(output) == [str(clip) for clip in clips[:2]]
    assert err == (
        f"aligncap: stopped; 2 files are in {output}; the same command with --resume goes on\n"
    )


CAPTION = """
import sys
from aligncap.cli.main import main
code = main(["caption", *sys.argv[1:], "--format", "jsonl"])
heavy = [name for name in ("torch", "transformers") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


def test_the_built_in_model_captions_without_torch(example_clips, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 32_000)
    soundfile.write(tmp_path / "room.wav", noise, 16_000)
    command = [sys.executable, "-c", CAPTION, *example_clips, tmp_path / "room.wav"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    *records, nobody = map(json.loads, ran.stdout.splitlines())
    assert nobody.keys() == {"file", "error"}
    assert len(records) == 12
    assert all(record["caption"].endswith(".") and record["model"] for record in records)
    assert all(abs(sum(record["emotion"].values()) - 1) < 0.01 for record in records)
    assert len({record["caption"] for record in records}) > 6


def test_an_error_names_its_file_once(aligncap, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken.wav").write_bytes(b"%PDF-1.7")
    monkeypatch.chdir(tmp_path)
    for named in (".", "./broken.wav"):
        assert aligncap("caption", named).err.count("broken.wav") == 1
