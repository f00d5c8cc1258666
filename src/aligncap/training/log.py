"""The record of a run: one JSON line every few steps, TensorBoard where installed, progress."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aligncap.storage import write_atomic

LOG_FILE = "log.jsonl"


def read_log(output: Path) -> list[dict[str, float]]:
    """Every line of a run's log; a line cut short by a kill is left out."""
    path = output / LOG_FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def cut_log(output: Path, step: int) -> None:
    """Forget the lines after `step`: a resumed run writes them again."""
    kept = [line for line in read_log(output) if line["step"] <= step]
    write_atomic(output / LOG_FILE, "".join(json.dumps(line) + "\n" for line in kept))


class RunLog:
    """Writes a run's log lines and shows its progress on stderr; use as a context."""

    def __init__(self, output: Path, *, done: int, steps: int, writes: bool = True) -> None:
        self._writes = writes
        path = output / LOG_FILE if writes else Path(os.devnull)
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(output / "tensorboard", done) if writes else None
        self._progress, self._task = _progress(done, steps, writes)
        self._start_s, self._done, self._steps = time.monotonic(), done, steps

    def __enter__(self) -> "RunLog":
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar to `step`."""
        self._progress.update(self._task, completed=step, loss=f"{loss:.4f}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one line; it is on disk when this returns."""
        elapsed_s = time.monotonic() - self._start_s
        line = {"step": step, **values, "elapsed_s": round(elapsed_s, 2)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._writes and not self._progress.console.is_terminal:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            pace = (step - self._done) / max(elapsed_s, 1e-9)
            print(f"{step}/{self._steps}  {shown}  {pace:.2f} steps/s", file=sys.stderr)


def _tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1)


def _progress(done: int, steps: int, writes: bool) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not (console.is_terminal and writes))
    return progress, progress.add_task("training", total=steps, completed=done, loss="-")
