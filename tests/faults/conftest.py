"""A folder with an input of every verb."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from aligncap.alignment.examples import write_rows
from aligncap.preference.store import PreferencePair, PreferenceStore
from cli.conftest import Aligncap, Ran, aligncap, clip
from support.corpora import lines
from support.preferences import PROVENANCE, finding
from support.rows import SOURCE, tiny_rows

__all__ = ["Aligncap", "Ran", "aligncap", "clip"]


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder, by its path; SQLite's own side files left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm", "-journal"))
    }


@pytest.fixture
def world(tmp_path: Path, example_clips: list[Path]) -> Path:
    """Two recordings of one name in `r`, captions beside them, their manifest, captions of two
    systems, a preference store, its pairs and training rows of its clips."""
    world = tmp_path / "world"
    rows = []
    for name, recording in zip(("anna", "ben"), example_clips, strict=False):
        folder = world / "r" / name
        folder.mkdir(parents=True)
        shutil.copy(recording, folder / "001.ogg")
        (folder / "001.txt").write_text(f"A calm voice, that of {name}.\n")
        rows.append({"id": f"{name}/001", "file": f"r/{name}/001.ogg", "speaker": name})
    captioned = [row | {"captions": ["A calm voice speaks."]} for row in rows]
    lines(world / "manifest.jsonl", *map(json.dumps, captioned))
    for system in ("first", "second"):
        said = [{"id": row["id"], "caption": f"The {system} voice is calm."} for row in rows]
        lines(world / f"{system}.jsonl", *map(json.dumps, said))
    with PreferenceStore(world / "s.sqlite") as store:
        store.pairs.begin("by hand")
        for row in tiny_rows(2):
            found = finding("She sounds sad.", "He sounds angry.", utterance=row.id)
            store.add_findings([(found, PROVENANCE)])
            pair = PreferencePair(*found.candidates, margin=1.0)
            store.pairs.put(row.id, "en", "by hand", [pair])
    write_rows(world / "rows.jsonl", SOURCE, tiny_rows(2))
    pair = {"prompt": "Describe.", "chosen": "She sounds sad.", "rejected": "He shouts."}
    lines(world / "pairs.jsonl", json.dumps(pair))
    return world
