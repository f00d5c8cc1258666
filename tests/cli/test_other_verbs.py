"""measure, clues, train, tokens, export: what is printed, and one line for what goes wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


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


def test_train_of_a_recipe_that_is_not_there(aligncap, tmp_path) -> None:
    ran = aligncap("train", tmp_path / "no.toml")
    assert ran.code == 2
    assert "no.toml" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_unknown_tokenizer_names_the_nearest(aligncap, tmp_path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.touch()
    ran = aligncap("tokens", manifest, "--tokenizer", "mimo", "--output", tmp_path / "tokens")
    assert ran.code == 2
    assert "did you mean 'mimi'" in ran.err


@pytest.mark.parametrize("verb", ["export", "merge"])
def test_a_model_that_is_not_there(aligncap, tmp_path, verb) -> None:
    ran = aligncap(verb, tmp_path / "nowhere", tmp_path / "out")
    assert ran.code == 2
    assert ran.err.startswith("aligncap: ")
    assert len(ran.err.splitlines()) == 1


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Absent())
from aligncap.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_torch_export_names_the_extra(tmp_path) -> None:
    (tmp_path / "model").mkdir()
    command = [sys.executable, "-c", WITHOUT_TORCH, "export"]
    command += [str(tmp_path / "model"), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "pip install 'aligncap[train]'" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [["caption"], ["caption", "a.wav", "--language", "fr"], ["dance"], ["caption", "--no-such"]],
)
def test_wrong_usage_is_exit_code_2(aligncap, arguments: list[str]) -> None:
    assert aligncap(*arguments).code == 2


def test_version(aligncap, capsys) -> None:
    import aligncap as package

    assert aligncap("--version").code == 0
    assert capsys.readouterr().out == f"aligncap {package.__version__}\n"
