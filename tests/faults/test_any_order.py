"""Verbs in any order over a small corpus: no input changes, nothing is replaced unasked, no row
vanishes, and every error is one line with an exit code that is not 0."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from aligncap.preference.store import PreferenceStore
from faults.conftest import Aligncap, contents

ANY = (
    *("manifest.jsonl", "first.jsonl", "pairs.jsonl", "rows.jsonl", "link.jsonl", "hard.jsonl"),
    *("out.jsonl", "out.csv", "more.jsonl", "parts/train.jsonl", "parts/test.jsonl", "s.sqlite"),
    *("c/manifest.jsonl", "r", "r/anna/001.ogg", "r/ben", "linked/001.ogg", "*.jsonl", "absent"),
)
"""What is named as an input, whether it fits or not."""
OUT = (
    *("out.jsonl", "out.csv", "more.jsonl", "out.txt", "out.json", "parts/train.jsonl", "r"),
    *("manifest.jsonl", "first.jsonl", "link.jsonl", "hard.jsonl", "s.sqlite", "c/report.json"),
    *("r/anna/001.ogg", "r/ben/new.csv", "linked/001.ogg", "./out.jsonl", "other.sqlite"),
)
FOLDERS = ("c", "parts", "r", ".", "new", "linked")
STORES = ("s.sqlite", "other.sqlite", "s.sqlite", "out.jsonl", "c/sounds.sqlite")

Draw = Callable[[tuple[str, ...]], str]

COMMANDS: tuple[Callable[[Draw], list[str]], ...] = (
    lambda one: ["caption", one(ANY), one(ANY), "-o", one(OUT)],
    lambda one: ["caption", one(ANY), "-o", one(OUT), "--resume"],
    lambda one: ["caption", one(ANY), "-o", one(OUT), "--language", "zh", "--resume"],
    lambda one: ["measure", one(("r", "manifest.jsonl", "out.jsonl"))],
    lambda one: [
        *("evaluate", "--hypotheses", one(ANY), "--references", one(ANY)),
        *("-o", one(OUT), "--metrics", "bleu1", "--draws", "10"),
    ],
    lambda one: ["corpus", "folder", one(("r", "r/ben", "absent", ".")), "-o", one(FOLDERS)],
    lambda one: ["corpus", "split", one(ANY), "-o", one(FOLDERS), "--salt", one(("a", "b"))],
    lambda one: ["corpus", "doctor", one((*ANY, *FOLDERS))],
    lambda one: ["prefer", "import", one((*STORES, *OUT)), one(ANY)],
    lambda one: ["prefer", "judge", one(STORES)],
    lambda one: ["prefer", "pairs", one(STORES), "--margin", "0"],
    lambda one: ["prefer", "agreement", one(STORES)],
    lambda one: ["prefer", "export", one(STORES), one(OUT)],
    lambda one: ["prefer", "rows", one(STORES), one(OUT), "--rows", one(ANY)],
)


def counts(world: Path) -> dict[str, int]:
    """How many captions each store has."""
    found = {}
    for path in (world / "s.sqlite", world / "other.sqlite"):
        if not path.exists():
            continue
        with PreferenceStore(path) as store:
            found[path.name] = len(store)
    return found


def names(path: Path) -> set[str]:
    """The recordings that an output of `caption` names."""
    if path.suffix == ".csv":
        return {line.split(",")[0] for line in path.read_text("utf-8").splitlines()}
    return {json.loads(line)["file"] for line in path.read_text("utf-8").splitlines()}


def written(command: list[str], world: Path) -> set[str]:
    """The files that a command may write to, as far as they are there."""
    verb = command[0] if command[0] != "corpus" and command[0] != "prefer" else command[1]
    if verb in ("doctor", "measure", "agreement"):
        return set()
    place = {"import": 2, "judge": 2, "pairs": 2, "export": 3, "rows": 3}.get(verb)
    out = world / (command[place] if place else command[command.index("-o") + 1])
    files = [out]
    if out.is_dir():
        own = ("manifest", "train", "validation", "test")
        files = [out / f"{name}.jsonl" for name in own]
        files += [out / name for name in ("report.json", "faults.txt", "sounds.sqlite")]
    real = {os.path.realpath(file) for file in files}
    return {
        str(path.relative_to(world))
        for path in world.rglob("*")
        if path.is_file() and os.path.realpath(path) in real
    }


def check(command: list[str], aligncap: Aligncap, world: Path) -> None:
    """Run a command and compare the world before and after."""
    before, captions, allowed = contents(world), counts(world), written(command, world)
    adds = command[0] == "prefer" and command[1] in ("import", "judge", "pairs")
    resumed = {
        name: names(world / name)
        for name in (allowed if "--resume" in command else ())
        if before.get(name) and Path(name).suffix in (".jsonl", ".csv") and name.startswith("out")
    }
    ran = aligncap(*command)
    after = contents(world)
    assert ran.code in (0, 1, 2)
    assert all(line.startswith("aligncap: ") for line in ran.err.splitlines())
    changed = {name for name in before if after.get(name) != before[name]}
    if ran.code == 2:
        assert ran.err.count("\n") == 1
        assert not changed
    allowed |= written(command, world)
    if not (adds or {"--overwrite", "--resume"} & set(command)):
        empty = {name for name in allowed if not (world / name).stat().st_size}
        allowed = {name for name in allowed if name.endswith("sounds.sqlite")} | empty
    assert changed <= allowed
    kept = ("r/", "manifest.jsonl", "first.jsonl", "pairs.jsonl", "rows.jsonl", "hard.jsonl")
    recordings = [name for name in changed if name.endswith((".ogg", "001.txt"))]
    assert not recordings
    if "--overwrite" not in command:
        assert not [name for name in changed if name.startswith(kept)]
    assert all(counts(world)[name] >= count for name, count in captions.items())
    for name, files in resumed.items():
        assert files <= names(world / name)
    if ran.code < 2 and command[:2] == ["corpus", "split"]:
        parts = [world / command[4] / f"{part}.jsonl" for part in ("train", "validation", "test")]
        rows = sum(len(part.read_text("utf-8").splitlines()) for part in parts)
        assert rows == len((world / command[2]).read_text("utf-8").splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_any_order(aligncap: Aligncap, world: Path, monkeypatch, seed: int) -> None:
    monkeypatch.chdir(world)
    Path("link.jsonl").symlink_to("manifest.jsonl")
    os.link("first.jsonl", "hard.jsonl")
    Path("linked").symlink_to("r/anna")
    drawn = random.Random(seed)
    history: list[str] = []
    for _ in range(60):
        command = drawn.choice(COMMANDS)(drawn.choice)
        writes = command[0] in ("caption", "evaluate") or command[1] in (
            *("folder", "split", "export", "rows"),
        )
        if writes and "--resume" not in command and drawn.random() < 0.4:
            command.append("--overwrite")
        history.append(" ".join(command))
        try:
            check(command, aligncap, world)
        except Exception as error:
            error.add_note("\n".join(history[-8:]))
            raise
