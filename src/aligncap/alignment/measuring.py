"""The facts of whole corpora, measured once by several processes and kept as JSON lines."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.progress import track

from aligncap.acoustics import measure
from aligncap.audio import load
from aligncap.values import Fact, Facts


def measure_all(cache: Path, paths: Sequence[Path]) -> list[Facts]:
    """The facts of every file in order; those in `cache` are read, the rest measured into it.

    A run that was broken off goes on where it stopped.
    """
    known = _whole_lines(cache)
    missing = [path for path in paths if str(path) not in known]
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores) as pool, cache.open("a", encoding="utf-8") as file:
            lines = pool.map(_line_of, missing, chunksize=16)
            progress = track(
                zip(missing, lines, strict=True),
                "measuring",
                total=len(missing),
                console=Console(stderr=True),
            )
            for path, line in progress:
                known[str(path)] = line
                file.write(f"{path}\t{line}\n")
    return [read_facts(known[str(path)]) for path in paths]


def _whole_lines(cache: Path) -> dict[str, str]:
    """Path → facts of the lines that were finished; a line torn off at the end is cut from the
    file, or the next one would be written onto it."""
    if not cache.exists():
        return {}
    stored = cache.read_bytes()
    whole = stored[: stored.rfind(b"\n") + 1]
    if len(whole) < len(stored):
        with cache.open("r+b") as file:
            file.truncate(len(whole))
    known: dict[str, str] = {}
    for line in whole.decode("utf-8").split("\n")[:-1]:
        path, _, facts = line.partition("\t")
        known[path] = facts
    return known


def _line_of(path: Path) -> str:
    return write_facts(measure(load(path)))


def write_facts(facts: Facts) -> str:
    """Facts as one line of JSON."""
    return json.dumps(table_of_facts(facts))


def read_facts(line: str) -> Facts:
    """The facts that `write_facts` wrote."""
    return facts_of(json.loads(line))


def table_of_facts(facts: Facts) -> list[object]:
    """Facts as plain JSON values: seconds, seconds of speech, and every fact by name."""
    rows = {one.name: [one.value, one.unit, one.confidence, one.reason] for one in facts}
    return [facts.duration_s, facts.speech_s, rows]


def facts_of(table: Sequence[Any]) -> Facts:
    """The facts that `table_of_facts` took apart."""
    duration_s, speech_s, rows = table
    named = {name: Fact(name, *row) for name, row in rows.items()}
    return Facts(duration_s, speech_s, MappingProxyType(named))
