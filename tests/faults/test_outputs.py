"""No command destroys its input, and none replaces what is there unasked."""

import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.captioner.checkpoint import find_model, read_meta, write_meta
from aligncap.captioner.export import merge_folder
from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.errors import AlignCapError, DataError
from aligncap.recipes import run_recipe
from aligncap.storage import atomic_file, check_outputs
from faults.conftest import Aligncap, contents

EVALUATE = ("evaluate", "--hypotheses", "first.jsonl", "--references", "manifest.jsonl")
EVALUATE += ("--baseline", "second.jsonl", "--metrics", "bleu1", "--format", "json")
JSONL = ("--format", "jsonl")
LLM = ("--judge", "llm", "--judge-model", "m", "--judge-url", "http://127.0.0.1:9/v1")

OVER_INPUTS = {
    "export over the store": ("s.sqlite", "prefer", "export", "s.sqlite", "OUT"),
    "rows over the store": (
        "s.sqlite",
        "prefer",
        "rows",
        "s.sqlite",
        "OUT",
        "--rows",
        "rows.jsonl",
    ),
    "rows over rows": ("rows.jsonl", "prefer", "rows", "s.sqlite", "OUT", "--rows", "rows.jsonl"),
    "evaluate over the hypotheses": ("first.jsonl", *EVALUATE, "-o", "OUT"),
    "evaluate over the references": ("manifest.jsonl", *EVALUATE, "-o", "OUT"),
    "evaluate over the baseline": ("second.jsonl", *EVALUATE, "-o", "OUT"),
    "evaluate over a recording": ("r/ben/001.ogg", *EVALUATE, "-o", "OUT"),
    "caption over its manifest": ("manifest.jsonl", "caption", "manifest.jsonl", "-o", "OUT"),
    "caption over a recording": ("r/ben/001.ogg", "caption", "r/ben/001.ogg", "-o", "OUT", *JSONL),
    "caption over one of a folder": ("r/ben/001.ogg", "caption", "r", "-o", "OUT", *JSONL),
    "caption over one of a manifest": (
        "r/ben/001.ogg",
        "caption",
        "manifest.jsonl",
        "-o",
        "OUT",
        *JSONL,
    ),
    "caption over one of a glob": ("second.jsonl", "caption", "*.jsonl", "-o", "OUT"),
}
"""What is done → the input that is the output too, and the command with OUT in its place."""

ADDING_TO_INPUTS = {
    "candidates into the manifest": (
        "manifest.jsonl", "prefer", "candidates", "manifest.jsonl", "--store", "OUT"
    ),
    "import into the pairs": ("pairs.jsonl", "prefer", "import", "OUT", "pairs.jsonl"),
    "replies into the store": (
        "s.sqlite", "prefer", "judge", "s.sqlite", *LLM, "--judge-cache", "OUT"
    ),
    "replies into the hypotheses": ("first.jsonl", *EVALUATE, *LLM[2:], "--judge-cache", "OUT"),
    "captions into the manifest": (
        "manifest.jsonl", "caption", "manifest.jsonl", "--resume", "-o", "OUT", *JSONL
    ),
}  # fmt: skip


def same_name(target: Path) -> str:
    return str(target)


def other_spelling(target: Path) -> str:
    return f"{target.parent}/../{target.parent.name}/./{target.name}"


def link(target: Path) -> str:
    named = target.with_name(f"link{target.suffix}")
    named.symlink_to(target)
    return str(named)


def hard_link(target: Path) -> str:
    named = target.with_name(f"hard{target.suffix}")
    os.link(target, named)
    return str(named)


def linked_folder(target: Path) -> str:
    folder = target.parents[1] / "linked"
    folder.symlink_to(target.parent)
    return str(folder / target.name)


def descriptor(target: Path) -> str:
    return f"/dev/fd/{os.open(target, os.O_RDWR)}"


NAMES = (same_name, other_spelling, link, hard_link, linked_folder, descriptor)


@pytest.mark.parametrize("named", NAMES, ids=lambda named: named.__name__)
@pytest.mark.parametrize("what", [*OVER_INPUTS, *ADDING_TO_INPUTS])
def test_no_output_may_be_an_input(
    aligncap: Aligncap, world: Path, what: str, named: Callable[[Path], str], monkeypatch
) -> None:
    monkeypatch.chdir(world)
    target, *command = (OVER_INPUTS | ADDING_TO_INPUTS)[what]
    out = named(world / target)
    before = contents(world)
    asked = ["--overwrite"] if what in OVER_INPUTS else []
    ran = aligncap(*[out if one == "OUT" else one for one in command], *asked)
    ran.refused("which this command reads; choose another output" if out != target else "reads")
    assert contents(world) == before


def test_standard_output_and_standard_input_are_files_too(world: Path) -> None:
    """As `cat x >> x` is refused."""
    before = contents(world)
    for name, mode, command in (
        ("stdout", "a", ("measure", world / "manifest.jsonl")),
        ("stdin", "r", ("caption", "-", "-o", world / "first.jsonl", "--overwrite")),
    ):
        stream = io.TextIOWrapper(io.BytesIO())
        with command[-1 if name == "stdout" else -2].open(mode) as opened:
            streams = {"stdout": io.StringIO(), "stderr": stream, name: opened}
            assert main([str(one) for one in command], console=Console(**streams)) == 2
        stream.seek(0)
        assert "which this command reads" in stream.read()
        assert contents(world) == before


FRESH = {
    "caption": ("out.jsonl", "caption", "r", "-o", "out.jsonl"),
    "caption as text": ("out.txt", "caption", "r", "-o", "out.txt"),
    "evaluate": ("out.json", *EVALUATE, "-o", "out.json"),
    "export": ("out.jsonl", "prefer", "export", "s.sqlite", "out.jsonl"),
    "rows": ("out.jsonl", "prefer", "rows", "s.sqlite", "out.jsonl", "--rows", "rows.jsonl"),
    "corpus": ("out/manifest.jsonl", "corpus", "folder", "r", "-o", "out"),
    "a split corpus": (
        "out/train.jsonl",
        "corpus",
        "folder",
        "r",
        "-o",
        "out",
        "--split",
        "random",
    ),
    "a report": ("out/report.json", "corpus", "folder", "r", "-o", "out"),
    "split": ("out/test.jsonl", "corpus", "split", "manifest.jsonl", "-o", "out"),
}


@pytest.mark.parametrize("what", FRESH)
def test_what_is_there_is_replaced_when_asked_only(
    aligncap: Aligncap, world: Path, what: str, monkeypatch
) -> None:
    monkeypatch.chdir(world)
    out, *command = FRESH[what]
    Path(out).parent.mkdir(exist_ok=True)
    Path(out).write_text("years of work")
    before = contents(world)
    aligncap(*command).refused(f"{out}: is there already; --overwrite replaces it")
    assert contents(world) == before
    assert aligncap(*command, "--overwrite").code < 2
    assert "years of work" not in Path(out).read_text()
    others = {name: text for name, text in contents(world).items() if name in before}
    assert {**others, out: before[out]} == before


def test_a_second_split_takes_no_clip_away(aligncap: Aligncap, world: Path, monkeypatch) -> None:
    monkeypatch.chdir(world)
    rows = [json.dumps({"id": f"u{n}", "file": f"{n}.wav"}) for n in range(50)]
    for folder in ("parts", "./parts/", "linked"):
        shutil.rmtree("parts", ignore_errors=True)
        Path("parts").mkdir()
        if folder == "linked":
            Path(folder).symlink_to("parts")
        Path("parts/train.jsonl").write_text("\n".join(rows))
        ran = aligncap("corpus", "split", "parts/train.jsonl", "-o", folder, "--overwrite")
        ran.refused("reads")
        assert [path.name for path in Path("parts").iterdir()] == ["train.jsonl"]


def test_a_split_of_a_whole_manifest_beside_it_may_be_made_again(aligncap, world: Path) -> None:
    command = ("corpus", "split", world / "manifest.jsonl", "-o", world)
    assert aligncap(*command).code < 2
    before = contents(world)
    assert aligncap(*command, "--overwrite").code < 2
    assert contents(world) == before


@pytest.mark.parametrize("verb", ["merge", "export"])
def test_a_model_is_not_made_over_itself_or_what_holds_it(
    aligncap: Aligncap, tmp_path: Path, verb: str
) -> None:
    model = tmp_path / "models" / "a"
    shutil.copytree(find_model("mini"), model)
    before = contents(tmp_path)
    for out in (model, model.parent, tmp_path):
        aligncap(verb, model, out, "--overwrite").refused("this command reads")
        assert contents(tmp_path) == before
    other = tmp_path / "other"
    shutil.copytree(model, other)
    aligncap(verb, model, other).refused("is there already; --overwrite replaces it")


def test_an_adapter_is_not_merged_over_its_base(tmp_path: Path) -> None:
    base, model = tmp_path / "base", tmp_path / "adapter"
    model.mkdir()
    shutil.copytree(find_model("mini"), base)
    (base / "text_tokenizer.json").write_text("{}")  # as of a merged model
    write_meta(model, replace(read_meta(base), weights="adapter", base=str(base)))
    before = contents(base)
    with pytest.raises(DataError, match="this command reads"):
        merge_folder(model, base)
    assert contents(base) == before


@pytest.mark.slow
def test_a_run_does_not_train_over_the_model_it_starts_from(
    tmp_path: Path, repository: Path
) -> None:
    run, recipe = tmp_path / "run", repository / "recipes" / "mini" / "dpo.toml"
    shutil.copytree(find_model("mini"), run / "model")
    before = contents(tmp_path)
    for named, reason in ((run / "model", "this command reads"), (tmp_path, "holds a run already")):
        for resume in (False, True):
            with pytest.raises(AlignCapError, match=reason):
                run_recipe(recipe, overrides=[f'model.start="{named}"'], output=run, resume=resume)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["out.json", "out.xml", "out.wav", "out.parquet", "out.jsonl.gz"])
def test_an_unknown_suffix_is_refused_by_the_known_ones(
    aligncap: Aligncap, world: Path, name: str
) -> None:
    out = world / name
    known = {
        ("caption", world / "r", "-o", out): ".jsonl, .csv, .txt",
        ("prefer", "export", world / "s.sqlite", out): ".jsonl",
        ("prefer", "rows", world / "s.sqlite", out, "--rows", world / "rows.jsonl"): ".jsonl",
    }
    if name != "out.json":
        files = ("--hypotheses", world / "first.jsonl", "--references", world / "manifest.jsonl")
        known["evaluate", *files, "-o", out] = ".json, .md, .html, .htm, .txt"
    for command, suffixes in known.items():
        aligncap(*command).refused(f"{out}: nothing is written as {out.suffix}; known: {suffixes}")
        assert not out.exists()


def test_a_format_that_is_asked_for_may_have_any_name(aligncap: Aligncap, world: Path) -> None:
    assert aligncap("caption", world / "r", "-o", world / "x.json", "--format", "jsonl").code == 0
    assert len((world / "x.json").read_text().splitlines()) == 2


def test_a_folder_is_no_output_file(aligncap: Aligncap, world: Path) -> None:
    for command in (
        ("caption", world / "r", "-o", world / "r"),
        ("prefer", "export", world / "s.sqlite", world / "r"),
    ):
        aligncap(*command).refused("is a folder; name a file")


def test_a_new_output_is_not_taken_for_what_a_glob_matches(
    aligncap: Aligncap, world: Path, monkeypatch
) -> None:
    monkeypatch.chdir(world / "r" / "anna")
    (world / "r" / "anna" / "001.txt").unlink()
    assert aligncap("caption", "*", "-o", "out.jsonl").code == 0
    assert len(Path("out.jsonl").read_text().splitlines()) == 1


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    target, named, pipe = tmp_path / "target", tmp_path / "named", tmp_path / "pipe"
    target.write_text("before")
    named.symlink_to(target)
    with atomic_file(named) as file:
        file.write("after")
    assert named.is_symlink()
    assert target.read_text() == "after"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with atomic_file(pipe) as file:
        file.write("through")
    reader.join()
    assert read == ["through"]
    assert pipe.is_fifo()


def test_an_error_while_writing_leaves_what_was_there(aligncap, world: Path, monkeypatch) -> None:
    """The store breaks off after the first pair."""
    from aligncap.preference.store import PairTable

    out, whole = world / "out.jsonl", PairTable.all

    def broken(self: PairTable, builder: str):
        yield next(whole(self, builder))
        raise DataError("the disk is gone")

    assert aligncap("prefer", "export", world / "s.sqlite", out).code == 0
    before = contents(world)
    monkeypatch.setattr(PairTable, "all", broken)
    aligncap("prefer", "export", world / "s.sqlite", out, "--overwrite").refused("disk is gone")
    assert contents(world) == before


def test_what_holds_nothing_may_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    outputs = [tmp_path / name for name in ("empty", "folder", "absent")]
    check_outputs(outputs, [tmp_path / "other"], overwrite=False)
    with pytest.raises(DataError, match="is what this command reads"):
        check_outputs(outputs, [tmp_path / "empty"], overwrite=True)


def test_a_database_of_another_kind_is_left_as_it_is(aligncap: Aligncap, world: Path) -> None:
    """Its journal, which is kept in the file, stays what it was."""
    assert aligncap("corpus", "folder", world / "r", "-o", world / "c").code == 0
    sounds = world / "c" / "sounds.sqlite"
    before = contents(world)
    for command in (
        ("prefer", "agreement", sounds),
        ("prefer", "export", sounds, world / "out.jsonl"),
        ("prefer", "import", sounds, world / "pairs.jsonl"),
        ("prefer", "candidates", world / "manifest.jsonl", "--store", sounds),
    ):
        aligncap(*command).refused("is a store of version None")
        assert contents(world) == before


def test_what_only_its_owner_may_read_stays_so(aligncap: Aligncap, world: Path) -> None:
    out = world / "out.jsonl"
    out.write_text("mine")
    out.chmod(0o600)
    assert aligncap("prefer", "export", world / "s.sqlite", out, "--overwrite").code == 0
    assert out.stat().st_mode & 0o777 == 0o600
