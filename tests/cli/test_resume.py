"""A run that was stopped goes on where it was."""

import json
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.killer import Process, finish, kill, start, wait_until

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
def clips(example_clips: list[Path]) -> list[Path]:
    return example_clips[:6]


def files_in(output: Path) -> list[str]:
    return [json.loads(line)["file"] for line in output.read_text().splitlines()]


def test_resume_skips_what_is_there_and_mends_a_torn_line(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    aligncap("caption", *clips[:3], "--output", output)
    whole = output.read_text()
    output.write_text(whole[:-40])  # killed in the middle of the third line
    ran = aligncap("caption", *clips, "--output", output, "--resume")
    assert ran.code == 0
    assert files_in(output) == [str(clip) for clip in clips]
    assert output.read_text().startswith(whole)


def test_resume_of_a_csv_writes_one_heading(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.csv"
    aligncap("caption", *clips[:2], "--output", output)
    output.write_text(output.read_text() + str(clips[2]) + ",3.1,en,Somebo")
    aligncap("caption", *clips, "--output", output, "--resume")
    lines = output.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["file", *map(str, clips)]


def test_resume_starts_anew_where_there_is_nothing(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    assert aligncap("caption", *clips, "--output", output, "--resume").code == 0
    assert len(files_in(output)) == len(clips)


def test_resume_remembers_that_some_failed(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    paths = [*clips, tmp_path / "absent.wav"]
    assert aligncap("caption", *paths, "--output", output).code == 1
    before = output.read_text()
    ran = aligncap("caption", *paths, "--output", output, "--resume")
    assert ran.code == 1
    assert ran.err == f"aligncap: 1 of {len(paths)} files could not be captioned\n"
    assert output.read_text() == before


@pytest.mark.parametrize("arguments", [["--resume"], ["--resume", "--output", "out.txt"]])
def test_resume_needs_a_file_that_can_be_read_back(aligncap, clips, arguments) -> None:
    ran = aligncap("caption", *clips, *arguments)
    assert ran.code == 2
    assert "--output FILE.jsonl" in ran.err


def test_resume_refuses_a_file_of_something_else(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("a shopping list\neggs\n")
    ran = aligncap("caption", *clips, "--output", output, "--resume")
    assert ran.code == 2
    assert output.read_text() == "a shopping list\neggs\n"


def start_held_run(clips: Iterable[Path], output: Path) -> Process:
    """A captioning process that has written two lines and waits before the third."""
    process = start("-c", HELD_RUN, "caption", *clips, "--output", output)
    wait_until(lambda: output.exists() and output.read_text().count("\n") == 2, process)
    return process


@pytest.mark.slow
def test_a_killed_run_keeps_what_is_done_and_goes_on(aligncap, clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    kill(start_held_run(clips, output))
    before = output.read_text()
    assert aligncap("caption", *clips, "--output", output, "--resume").code == 0
    assert output.read_text().startswith(before)
    assert files_in(output) == [str(clip) for clip in clips]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(clips, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    process = start_held_run(clips, output)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert files_in(output) == [str(clip) for clip in clips[:2]]
    assert err == (
        f"aligncap: stopped; 2 files are in {output}; the same command with --resume goes on\n"
    )
