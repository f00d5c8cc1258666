"""The command line as a whole: its start, its page, its exit codes; measure and clues."""

import csv
import io
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command

import aligncap as package
from aligncap.cli.main import VERBS, app, opened


def test_the_page_of_the_command_line_is_up_to_date(repository: Path) -> None:
    used = re.search(r"with typer (\S+);", (repository / "docs" / "cli.md").read_text("utf-8"))
    if used and used[1] != version("typer"):
        pytest.skip(f"docs/cli.md was written with typer {used[1]}, whose help looks different")
    command = [sys.executable, "docs/make_docs.py", "--check"]
    ran = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert ran.returncode == 0, f"docs/cli.md is stale: make docs\n{ran.stdout}{ran.stderr}"


@pytest.mark.parametrize("verb", VERBS)
def test_the_page_of_all_verbs_says_of_each_what_its_own_does(verb: str) -> None:
    stand_in = get_command(app).commands[verb]
    assert stand_in.get_short_help_str(64) == opened(verb).get_short_help_str(64)


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


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Absent())
from aligncap.cli.main import main
sys.exit(main(["export", sys.argv[1], "out"]))
"""


def test_without_torch_export_names_the_extra(tmp_path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "pip install 'aligncap[train]'" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [["caption"], ["caption", "a.wav", "--language", "fr"], ["dance"], ["caption", "--no-such"]],
)
def test_wrong_usage_is_exit_code_2(aligncap, arguments: list[str]) -> None:
    assert aligncap(*arguments).code == 2


def test_version(aligncap, capsys) -> None:
    assert aligncap("--version").code == 0
    assert capsys.readouterr().out == f"aligncap {package.__version__}\n"


def test_measure_prints_facts_and_goes_on_after_a_bad_file(aligncap, example_clips, tmp_path):
    clip = next(clip for clip in example_clips if clip.stem == "man-plain")
    ran = aligncap("measure", tmp_path / "absent.wav", clip)
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert ran.out.startswith(f"{clip}  (3.0 s, ")
    assert "pitch_median_hz" in ran.out


def test_measure_writes_what_a_suffix_says_with_the_columns_of_a_manifest(
    aligncap, example_clips, tmp_path
):
    rows = [
        {"file": str(example_clips[0]), "id": "a", "speaker": "s1", "take": 3},
        {"file": "absent.wav", "id": "b", "note": "line\none, two"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told, table = tmp_path / "out.jsonl", tmp_path / "out.csv"
    for output in (told, table):
        ran = aligncap("measure", manifest, "-o", output)
        assert (ran.code, ran.out) == (1, "")
    good, bad = map(json.loads, told.read_text().splitlines())
    assert (good["id"], good["speaker"], good["take"], bad["note"]) == (
        "a",
        "s1",
        3,
        "line\none, two",
    )
    with table.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first)[:7] == ["file", "id", "speaker", "take", "note", "duration_s", "speech_s"]
    values = {name: fact["value"] for name, fact in good["facts"].items()}
    assert {name: float(first[name]) if first[name] else None for name in values} == values
    assert (second["note"], second["speaker"], second["error"]) == (bad["note"], "", bad["error"])
    aligncap("measure", manifest, "-o", table).refused("--overwrite")
    aligncap("measure", manifest, "-o", tmp_path / "out.xlsx").refused(
        "nothing is written as .xlsx"
    )
    assert not (tmp_path / "out.xlsx").exists()
    assert aligncap("measure", manifest, "--format", "csv").out.splitlines()[0].startswith("file,")


def test_measure_keeps_a_column_of_the_manifest_that_is_called_like_a_fact(
    aligncap, example_clips, tmp_path
):
    rows = [
        {"file": str(example_clips[0]), "pitch_median_hz": "high"},
        {"file": "absent.wav", "pitch_median_hz": "low"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    heading, *lines = csv.reader(
        io.StringIO(aligncap("measure", manifest, "--format", "csv").out, newline="")
    )
    assert len(set(heading)) == len(heading)
    first, second = (dict(zip(heading, line, strict=True)) for line in lines)
    assert [one["manifest_pitch_median_hz"] for one in (first, second)] == ["high", "low"]
    assert float(first["pitch_median_hz"]) > 0
    assert second["pitch_median_hz"] == ""


def test_clues_of_a_caption(aligncap) -> None:
    lines = aligncap("clues", "A woman speaks slowly, her voice trembling.").out.splitlines()
    assert lines[0] == "A woman speaks slowly, her voice trembling."
    assert ["slow", "pace", "slow"] in [line.split()[:3] for line in lines]
    assert lines[-1].strip().startswith("prompt: Feeling ")
    stdin = b"He is angry.\n\nNothing of the voice here.\n"
    ran = aligncap("clues", "-", "--format", "jsonl", stdin=stdin)
    first, second = map(json.loads, ran.out.splitlines())
    assert (first["emotion"], second["clues"]) == ("angry", [])
