"""Writes `old`: run once, before the modules moved. Only a new format is a reason to run it again,
and then the old files stay beside the new ones."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError

from golden import old_data
from golden.surface import CLIPS, ROOT
from golden.tiny_runs import OLD, candidates, pipeline, train

LEARNT = ("training.steps=130", "training.log_every=26", "training.save_every=130")
"""Steps until the encoder uses its codebook."""


def annotate(store: Path, choices: list[str]) -> None:
    """Choices of one person by the annotation page."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = ("prefer", "annotate", store, "--audio-root", CLIPS, "--port", port)
    server = subprocess.Popen(
        [sys.executable, "-m", "aligncap", *map(str, command)], cwd=ROOT, env=dict(os.environ)
    )
    page = f"http://127.0.0.1:{port}/api"
    try:
        state = _first(f"{page}/state?annotator=anna")
        for number, choice in enumerate(choices):
            body = {"id": f"choice-{number:04}", "annotator": "anna", "choice": choice}
            asked = urllib.request.Request(
                f"{page}/choice",
                json.dumps(body | {"task": state["task"]["id"]}).encode(),
                {"Content-Type": "application/json"},
            )
            state = _json(asked)
    finally:
        server.terminate()
        server.wait()


def _first(url: str) -> Any:
    for _ in range(200):
        try:
            return _json(urllib.request.Request(url))
        except URLError:
            time.sleep(0.1)
    raise TimeoutError(url)


def _json(asked: urllib.request.Request) -> Any:
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def make(old: Path) -> None:
    """All of `old`, from nothing."""
    old.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train("encoder", work / "learnt", f'features="{work}/features"', *LEARNT)
        pipeline(work, work / "learnt" / "encoder")
        for source in ("kd/model", "exported", "features", "tokens"):
            shutil.copytree(work / source, old / Path(source).name)
        shutil.copy(work / "rows" / "rows.jsonl", old / "rows.jsonl")
    candidates(OLD / "store.sqlite")
    with tempfile.TemporaryDirectory() as folder:
        old_data.written(OLD / "store.sqlite", Path(folder), OLD / "rows.jsonl")
        shutil.copy(Path(folder) / "preferences.jsonl", old)
    annotate(OLD / "store.sqlite", ["first", "second", "tie"])
    move(old / "store.sqlite", "file")
    for cache in (old / "tokens").glob("*.sqlite"):
        move(cache, "path")
    expect(old)


def move(database: Path, column: str) -> None:
    """The recordings of a database are not where they were: it outlives them."""
    with closing(sqlite3.connect(database)) as opened:
        opened.execute(
            f"UPDATE clips SET {column} = replace({column}, ?, '/recordings')", (str(ROOT),)
        )
        opened.commit()
        opened.execute("VACUUM")
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def expect(old: Path) -> None:
    """What is made of the rest, and the stopped run."""
    expected = {"run": train("dpo", OLD / "run", *old_data.CHANGES)}
    for name in ("checkpoint-8", "model", "tensorboard"):
        shutil.rmtree(old / "run" / name)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        expected |= {
            "captions": old_data.captions(),
            "store": old_data.store(work),
            "teacher": old_data.distilled(work, OLD / "teacher"),
        }
    text = json.dumps(expected, ensure_ascii=False)
    old_data.EXPECTED.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    make(ROOT / OLD)
