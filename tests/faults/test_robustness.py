"""Damaged input is refused in one line, and what lies beside it is captioned all the same."""

import io
import subprocess
import sys

import pytest

from aligncap.cli.console import Console
from aligncap.cli.main import main


@pytest.mark.parametrize(
    "line", ['{"file": %s}' % ("1" * 5_000), '{"file": %s' % ("[" * 100_000), "{", "\0", "[]"]
)
def test_a_line_of_a_manifest_that_is_no_json_is_told_with_its_place(tmp_path, example_clips, line):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(f'{line}\n{{"file": "{example_clips[0]}"}}\n')
    out, errors = io.StringIO(), io.StringIO()
    assert main(["measure", str(manifest)], console=Console(stdout=out, stderr=errors)) == 1
    told = [one for one in errors.getvalue().splitlines() if f"{manifest}:1" in one]
    assert len(told) == 1
    assert len(told[0]) < 1_000
    assert example_clips[0].name in out.getvalue()


@pytest.mark.slow
def test_the_benchmark_of_robustness_finds_nothing_in_sound(repository):
    kinds = "wav,float wav,flac,vorbis,opus,mp3,aiff,au"
    command = [sys.executable, "benchmarks/robustness.py", "--count", "64", "--only", kinds]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| all | 64 |" in run.stdout
