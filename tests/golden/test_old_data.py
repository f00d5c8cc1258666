"""What was written before the modules moved still opens, and means what it meant: models, a
preference store, a stopped run, caches. Each use works on a copy of `old`; its `expected.json` is
written again by running this file, where a change is meant."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from golden import tiny_runs
from golden.surface import ROOT, TRAINED, assert_same
from golden.tiny_runs import ENCODER, OLD, captions_of, train, without_fingerprints, written

EXPECTED = ROOT / OLD / "expected.json"
ROWS, START = f'data.rows=["{OLD}/rows.jsonl"]', f'model.start="{OLD}/model"'


def copy(work: Path, name: str) -> Path:
    """A copy of one of the folders or files in `old`."""
    source = ROOT / OLD / name
    return Path((shutil.copytree if source.is_dir() else shutil.copy)(source, work / name))


def written_at(folder: Path) -> dict[Path, int]:
    """When each file below a folder was last written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def captions(_: Path) -> Any:
    """By the trained model and by the exported one."""
    return {name: captions_of(OLD / name) for name in ("model", "exported")}


def store(work: Path) -> Any:
    """Pairs, rows, exports and agreement of the store."""
    found = written(copy(work, "store.sqlite"), work, OLD / "rows.jsonl")
    return without_fingerprints(found, work)


def run(work: Path) -> Any:
    """The run that was stopped at step 4 of 8, carried on to its end."""
    rows = f'data.rows=["{OLD}/preferences.jsonl"]'
    changes = (START, rows, "training.save_every=4", "validation.rows=2")
    return train("dpo", copy(work, "run"), *changes, resume=True)


def teacher(work: Path) -> Any:
    """A run of KD from the old model and of what its teacher said, which is not asked again."""
    cache = copy(work, "teacher")
    before = written_at(cache)
    kept = f'teacher.cache="{cache}"'
    found = train("kd", work / "kd", ROWS, START, "teacher.top_k=4", kept)
    assert written_at(cache) == before
    return found


PARTS: dict[str, Callable[[Path], Any]] = {
    part.__name__: part for part in (captions, store, run, teacher)
}


@pytest.mark.parametrize("name", PARTS)
def test_old_data_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    within = TRAINED if name in ("run", "teacher") else 1e-4
    assert_same(PARTS[name](tmp_path), json.loads(EXPECTED.read_text("utf-8"))[name], within=within)


def test_old_tokens_are_used(tmp_path: Path) -> None:
    printed = tiny_runs.tokens(copy(tmp_path, "tokens"), ENCODER)
    assert "0 clips encoded, 6 there already, 0 failed" in printed


if __name__ == "__main__":
    found = {}
    for name, part in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = part(Path(folder))
    EXPECTED.write_text(json.dumps(found, ensure_ascii=False) + "\n", "utf-8")
