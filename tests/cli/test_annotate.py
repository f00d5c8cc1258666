"""`aligncap annotate`: what is typed, what is printed, which part a machine does."""

from pathlib import Path

import pytest

from aligncap.cli.annotate import part_of
from aligncap.errors import RecipeError
from cli.conftest import Aligncap
from tts.made import COUNT, read_out, write_folder, write_manifest


def test_a_corpus_is_annotated_and_said_to_be(aligncap: Aligncap, tmp_path: Path) -> None:
    corpus = write_manifest(tmp_path / "in")
    ran = aligncap("annotate", corpus, "--out", tmp_path / "out", "--shard-rows", "3")
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'out'}: {COUNT} clips, 0.00 h of sound\n")
    assert ran.err.startswith(f"aligncap: {COUNT} clips, 0.00 h of sound in ")
    assert len(read_out(tmp_path / "out")) == COUNT
    again = aligncap("annotate", corpus, "--out", tmp_path / "out", "--shard-rows", "3")
    assert (again.code, again.out, again.err) == (0, ran.out, "")
    other = aligncap("annotate", corpus, "--out", tmp_path / "out", "--language", "zh")
    other.refused("begun with another")
    replaced = ("--overwrite", "--bins", "none", "--no-audio", "--one-speaker")
    assert aligncap("annotate", corpus, "--out", tmp_path / "out", *replaced).code == 0
    [first, *_] = read_out(tmp_path / "out")
    assert "noise" not in first
    assert first["pitch_z"] is not None


def test_bad_rows_are_counted(aligncap: Aligncap, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    (folder / "broken.wav").write_bytes(b"nothing")
    ran = aligncap("annotate", folder, "--out", tmp_path / "out")
    assert ran.code == 1
    assert f"1 of {COUNT + 1} clips have an error" in ran.err


def held(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_nothing_is_removed_before_it_is_sure_that_a_run_can_begin(
    aligncap: Aligncap, tmp_path: Path
) -> None:
    corpus, out = write_folder(tmp_path / "in", 1), tmp_path / "out"
    assert aligncap("annotate", corpus, "--out", out).code == 0
    before = held(out)
    again = ("--out", out, "--overwrite")
    aligncap("annotate", tmp_path / "typo.jsonl", *again).refused("does not exist")
    aligncap("annotate", corpus, *again, "--model", "tiny").refused("no model called 'tiny'")
    aligncap("annotate", corpus, *again, "--shard", "1/2").refused("what others of the 2 parts")
    (out / "README.md").write_text("Mine.", "utf-8")
    aligncap("annotate", corpus, *again).refused("holds something else too")
    assert before.items() <= held(out).items()


def test_what_cannot_be_is_refused(aligncap: Aligncap, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in" / "wav")
    out = tmp_path / "out"
    for options, message in (
        ((folder, "--out", folder), "which this command reads"),
        ((folder, "--out", tmp_path / "in"), "which this command reads"),
        ((folder, "--out", folder / "clip0.wav"), "is no folder"),
        ((folder, "--out", folder / "annotated"), "of which it would be a part"),
        ((tmp_path / "gone", "--out", out), "does not exist"),
        ((folder, "--out", out, "--bins", "v3"), "no set of bins called 'v3'"),
        ((folder, "--out", out, "--shard", "4/4"), "--shard 4/4: must be I/N"),
        ((folder, "--out", out, "--one-speaker", "--speaker-column", "who"), "give one"),
    ):
        aligncap("annotate", *options).refused(message)
    (tmp_path / "s.sqlite").write_bytes(b"x")
    aligncap("annotate", tmp_path / "s.sqlite", "--out", out).refused("aligncap prefer annotate")


@pytest.mark.parametrize(
    ("typed", "environment", "part"),
    [
        (None, {}, (0, 1)),
        ("2/5", {"RANK": "0", "WORLD_SIZE": "3"}, (2, 5)),
        (None, {"RANK": "1", "WORLD_SIZE": "3", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, (1, 3)),
        (None, {"SLURM_PROCID": "4", "SLURM_NTASKS": "9"}, (4, 9)),
        (None, {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4"}, None),
        (
            None,
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "5",
            },
            (2, 4),
        ),
        ("x", {}, None),
        ("1/1", {}, None),
        (None, {"RANK": "a", "WORLD_SIZE": "3"}, None),
    ],
)
def test_which_part_is_done(typed, environment, part) -> None:
    if part is None:
        with pytest.raises(RecipeError, match="must be I/N"):
            part_of(typed, environment)
    else:
        assert part_of(typed, environment) == part
