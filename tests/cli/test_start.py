"""The command line as a process of its own: how soon it starts, and that its page is up to date."""

import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


def test_help_takes_little_processor_time() -> None:
    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(3):
        before = seconds()
        subprocess.run(
            [sys.executable, "-m", "aligncap", "--help"], check=True, capture_output=True
        )
        taken.append(seconds() - before)
    # Processor time, so that a busy machine does not fail it.
    assert min(taken) < 0.4


def test_the_page_of_the_command_line_is_up_to_date(repository: Path) -> None:
    used = re.search(r"with typer (\S+);", (repository / "docs" / "cli.md").read_text("utf-8"))
    if used and used[1] != version("typer"):
        pytest.skip(f"docs/cli.md was written with typer {used[1]}, whose help looks different")
    command = [sys.executable, "docs/make_docs.py", "--check"]
    ran = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert ran.returncode == 0, f"docs/cli.md is stale: make docs\n{ran.stdout}{ran.stderr}"


def test_a_reader_that_goes_away_leaves_no_traceback(repository: Path) -> None:
    command = f"{sys.executable} -m aligncap clues a b c d e f g - < README.md | head -n 1"
    ran = subprocess.run(command, shell=True, cwd=repository, capture_output=True, text=True)
    assert ran.stdout == "a\n"
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


def test_a_full_disk_is_one_line(repository: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{sys.executable} -m aligncap clues 'a calm voice' > /dev/full"
    ran = subprocess.run(command, shell=True, cwd=repository, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr == "aligncap: writing: No space left on device\n"
