"""The command line with the built-in model, as a user runs it: a process of its own, no torch."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

MINI = Path(__file__).resolve().parents[2] / "src" / "aligncap" / "models" / "mini"

pytestmark = pytest.mark.skipif(not MINI.is_dir(), reason="the model mini is not in this checkout")

CAPTION = """
import sys
from aligncap.cli.main import main
code = main(["caption", *sys.argv[1:]])
heavy = [name for name in ("torch", "transformers") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


def caption(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", CAPTION, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_example_clips_are_captioned_without_torch(repository: Path) -> None:
    ran = caption(repository / "examples" / "clips", "--format", "jsonl")
    records = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, ran.stderr
    assert len(records) == 12
    assert all(record["caption"].endswith(".") for record in records)
    assert all(abs(sum(record["emotion"].values()) - 1) < 0.01 for record in records)
    assert len({record["caption"] for record in records}) > 6
    assert all(record["model"] for record in records)


def test_captions_in_chinese(example_clips: list[Path]) -> None:
    ran = caption(example_clips[0], "--language", "zh", "--format", "jsonl")
    record = json.loads(ran.stdout)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in record["caption"])
    assert not any(letter.isascii() and letter.isalpha() for letter in record["caption"])


def test_text_with_evidence_reads_well(example_clips: list[Path]) -> None:
    ran = caption(example_clips[0], "--evidence")
    file, sentence, *clues = ran.stdout.splitlines()
    assert file == f"{example_clips[0]}  (2.9 s)"
    assert sentence.startswith("  ")
    assert clues
    assert all(line.startswith(("    ✓ ", "    ✗ ", "    ? ")) for line in clues)


def test_candidates_differ(example_clips: list[Path]) -> None:
    ran = caption(example_clips[0], "--candidates", "4", "--format", "jsonl")
    record = json.loads(ran.stdout)
    assert len({record["caption"], *record["candidates"]}) == 4


def test_nobody_speaks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 32_000)
    soundfile.write(tmp_path / "room.wav", noise, 16_000)
    ran = caption(tmp_path / "room.wav", "--format", "jsonl")
    assert ran.returncode == 1
    assert json.loads(ran.stdout).keys() == {"file", "error"}


def test_one_clip_takes_under_two_seconds_of_processor_time(example_clips: list[Path]) -> None:
    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(2):
        before = seconds()
        assert caption(example_clips[0]).returncode == 0
        taken.append(seconds() - before)
    assert min(taken) < 2.0
