"""What the package makes of the data in `old`, which it wrote before its modules were moved: a
model, a preference store, a stopped run, caches. Each use works on a copy."""

import json
import shutil
from pathlib import Path
from typing import Any

from golden.surface import ROOT
from golden.tiny_runs import ENCODER, OLD, captions_of, tokens, train, without_fingerprints, written

EXPECTED = ROOT / OLD / "expected.json"

CHANGES = (
    f'model.start="{OLD}/model"',
    f'data.rows=["{OLD}/preferences.jsonl"]',
    *("training.save_every=4", "validation.rows=2"),
)
"""Of the recipe dpo, for the run that was stopped at step 4 of 8."""


def copy(work: Path, name: str) -> Path:
    """A copy of one of the folders or files in `old`."""
    source = ROOT / OLD / name
    return Path((shutil.copytree if source.is_dir() else shutil.copy)(source, work / name))


def written_at(folder: Path) -> dict[str, int]:
    """When each file below a folder was last written, in nanoseconds."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def captions() -> dict[str, Any]:
    """By the trained model and by the exported one."""
    return {name: captions_of(OLD / name) for name in ("model", "exported")}


def store(work: Path) -> dict[str, Any]:
    """Pairs, rows, exports and agreement of the store."""
    found = written(copy(work, "store.sqlite"), work, OLD / "rows.jsonl")
    return dict(without_fingerprints(found, work))


def resumed(work: Path) -> dict[str, Any]:
    """The stopped run, carried on to its end."""
    return train("dpo", copy(work, "run"), *CHANGES, resume=True)


def distilled(work: Path, cache: Path) -> dict[str, Any]:
    """A run of KD from the old model, its teacher too; `cache` keeps what the teacher says."""
    settings = (f'data.rows=["{OLD}/rows.jsonl"]', f'model.start="{OLD}/model"', "teacher.top_k=4")
    return train("kd", work / "kd", *settings, f'teacher.cache="{cache}"')


def rows(work: Path, features: Path) -> list[Any]:
    """Rows of kept features."""
    output = work / "rows"
    train("rows", output, f'features="{features}"', f'encoder="{ENCODER}"')
    lines = (output / "rows.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kept_tokens(work: Path) -> str:
    """What filling the kept token cache prints."""
    return tokens(copy(work, "tokens"), ENCODER)
