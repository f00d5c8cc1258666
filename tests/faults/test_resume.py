"""A captioning run that goes on: with the same model and options only, one process at a time, with
what failed tried again and no line lost."""

import csv
import fcntl
import io
import json
import shutil
from pathlib import Path

import pytest

from aligncap.cli.console import Console
from aligncap.cli.main import main
from faults.conftest import Aligncap, contents
from support.corpora import lines
from support.models import FakeCaptioner


@pytest.fixture(params=["jsonl", "csv"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"out.{request.param}"


def records(output: Path) -> list[dict[str, object]]:
    """What an output has, by a reader of its format."""
    with output.open(encoding="utf-8", newline="") as opened:
        if output.suffix == ".csv":
            return list(csv.DictReader(opened))
        return [json.loads(line) for line in opened]


def files_of(output: Path) -> list[str]:
    return [str(record["file"]) for record in records(output)]


def refused(aligncap: Aligncap, output: Path, reason: str, *command: object) -> None:
    before = contents(output.parent)
    aligncap("caption", *command, "-o", output, "--resume").refused(reason)
    assert contents(output.parent) == before


OTHERS = {
    "language": (("--language", "zh"), "language en, not zh"),
    "candidates": (("--candidates", "3"), "candidates 1, not 3"),
}


@pytest.mark.parametrize("option", OTHERS)
def test_another_option_is_refused(aligncap, world: Path, output: Path, option: str) -> None:
    assert aligncap("caption", world / "r", "-o", output).code == 0
    changed, differs = OTHERS[option]
    reason = f"was made with {differs}; give the same options, or another --output"
    refused(aligncap, output, reason, world / "r", *changed)


def test_another_model_of_the_same_name_is_refused(aligncap, world: Path, output: Path) -> None:
    assert aligncap("caption", world / "r", "-o", output).code == 0
    before = output.read_bytes()

    def open_retrained(name: str, **_: object) -> FakeCaptioner:
        model = FakeCaptioner(name)
        model.signature = f"{name}/retrained"
        return model

    console = Console(stdout=io.StringIO(), stderr=io.StringIO(), load_model=open_retrained)
    assert main(["caption", str(world / "r"), "-o", str(output), "--resume"], console=console) == 2
    assert "was made with model mini, not mini/retrained" in console.stderr.getvalue()
    assert output.read_bytes() == before


def test_another_way_of_asking_is_refused_though_all_failed(aligncap, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert aligncap("caption", tmp_path / "a.wav", "-o", output).code == 1
    refused(aligncap, output, "language en, not zh", tmp_path / "a.wav", "--language", "zh")


def test_an_output_of_before_signatures_tells_its_language(aligncap, world: Path) -> None:
    output, clips = world / "out.jsonl", sorted((world / "r").rglob("*.ogg"))
    assert aligncap("caption", clips[0], "-o", output).code == 0
    (record,) = records(output)
    del record["signature"]
    lines(output, json.dumps(record))
    refused(aligncap, output, "language en, not zh", *clips, "--language", "zh")
    assert aligncap("caption", *clips, "-o", output, "--resume").code == 0
    assert files_of(output) == list(map(str, clips))


def test_a_mended_file_is_captioned_and_nothing_else_again(
    aligncap, world: Path, output: Path
) -> None:
    clips = [world / f"{name}.ogg" for name in "abcd"]
    sound = (world / "r/anna/001.ogg").read_bytes()
    for clip in (clips[0], clips[3]):
        clip.write_bytes(sound)
    clips[1].write_bytes(b"")
    ran = aligncap("caption", *clips, "-o", output)
    assert (ran.code, len(records(output))) == (1, 4)
    clips[1].write_bytes(sound)
    clips[0].write_bytes(b"is not read again")
    ran = aligncap("caption", *clips, "-o", output, "--resume")
    assert ran.code == 1
    assert ran.err.endswith("1 of 4 files could not be captioned\n")
    failed = {str(one["file"]): bool(one.get("error")) for one in records(output)}
    assert failed == {str(clip): clip == clips[2] for clip in clips}
    assert len(files_of(output)) == 4


def test_what_failed_and_is_not_asked_for_stays(aligncap, world: Path, output: Path) -> None:
    aligncap("caption", world / "absent.ogg", "-o", output)
    aligncap("caption", world / "r", "-o", output, "--resume")
    assert len(records(output)) == 3
    assert files_of(output)[0] == str(world / "absent.ogg")


def test_clips_of_one_file_are_told_apart_by_their_ids(aligncap, world: Path, output: Path) -> None:
    rows = [{"id": name, "file": "r/anna/001.ogg"} for name in ("one", "two", "three")]
    manifest = lines(world / "three.jsonl", *map(json.dumps, rows[:2]))
    assert aligncap("caption", manifest, "-o", output).code == 0
    lines(manifest, *map(json.dumps, rows))
    assert aligncap("caption", manifest, "-o", output, "--resume").code == 0
    assert [one["id"] for one in records(output)] == ["one", "two", "three"]


TORN = {
    "jsonl": ['{"file": "/x/b.og', '{"f', '{"file": "/x/b.ogg", "error": "no', "\0" * 40],
    "csv": ["/x/b.ogg,3.1,en,Somebo", "/x", '"/x/b,', ","],
}


def test_a_torn_last_line_is_mended(aligncap, world: Path, output: Path) -> None:
    clips = sorted((world / "r").rglob("*.ogg"))
    assert aligncap("caption", *clips, "-o", output).code == 0
    whole = output.read_text()
    beginning = "".join(whole.splitlines(keepends=True)[:-1])
    for torn in [*TORN[output.suffix[1:]], whole.removeprefix(beginning)[:-20]]:
        output.write_text(beginning + torn)
        assert aligncap("caption", *clips, "-o", output, "--resume").code == 0
        assert output.read_text() == whole


def test_a_last_record_without_its_line_end_is_kept(aligncap, world: Path) -> None:
    output, clips = world / "out.jsonl", sorted((world / "r").rglob("*.ogg"))
    assert aligncap("caption", *clips, "-o", output).code == 0
    whole = output.read_text()
    output.write_text(whole.rstrip("\n"))
    assert aligncap("caption", "-o", output, "--resume", clips[0]).code == 0
    assert output.read_text() == whole


FOREIGN = {
    "prose without a line end": "a shopping list\neggs",
    "one word": "eggs",
    "a manifest": '{"id": "a", "file": "a.wav"}\n',
    "a manifest without ids": '{"file": "a.wav"}\n',
    "one's own captions": '{"id": "a", "caption": "A man speaks."}\n',
    "a list": '["file"]\n',
    "a number": "5",
    "a torn line before others": '{"file": "a\n{"file": "b", "error": "no"}\n',
    "another table": "file,score\na.wav,3\n",
    "numbers": "1,2,3\n4,5,6",
    "bytes": "\x00\x01\x02",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_output_of_ours_is_left_as_it_is(
    aligncap, world: Path, output: Path, what: str
) -> None:
    output.write_text(FOREIGN[what])
    refused(aligncap, output, "choose another --output", world / "r")


def test_the_second_of_two_processes_refuses(aligncap, world: Path, output: Path) -> None:
    clips = sorted((world / "r").rglob("*.ogg"))
    assert aligncap("caption", clips[0], "-o", output).code == 0
    with output.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(aligncap, output, "another process is writing it", *clips)
    assert aligncap("caption", *clips, "-o", output, "--resume").code == 0
    assert files_of(output) == list(map(str, clips))


def test_a_file_that_another_process_has_begun_since_is_refused(aligncap, world: Path) -> None:
    output = world / "out.jsonl"
    with output.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        aligncap("caption", world / "r", "-o", output).refused("another process is writing it")
    assert output.read_text() == ""


def test_resume_and_overwrite_are_one_or_the_other(aligncap, world: Path, output: Path) -> None:
    ran = aligncap("caption", world / "r", "-o", output, "--resume", "--overwrite")
    ran.refused("--resume goes on with a file, --overwrite replaces it; give one")


def test_a_run_goes_on_in_another_folder(aligncap, world: Path, output: Path, monkeypatch) -> None:
    """The output moves with its recordings, named as before."""
    monkeypatch.chdir(world)
    assert aligncap("caption", "r/anna", "-o", output.name).code == 0
    moved = world.with_name("moved")
    shutil.copytree(world, moved)
    monkeypatch.chdir(moved)
    assert aligncap("caption", "r", "-o", output.name, "--resume").code == 0
    assert files_of(Path(output.name)) == ["r/anna/001.ogg", "r/ben/001.ogg"]


def test_sound_by_standard_input_is_captioned_each_time(aligncap, world: Path) -> None:
    output, sound = world / "out.jsonl", (world / "r/anna/001.ogg").read_bytes()
    for more in ((), ("--resume",)):
        assert aligncap("caption", "-", "-o", output, *more, stdin=sound).code == 0
    assert files_of(output) == ["stdin", "stdin"]
