"""The facts of whole corpora, measured once by several processes and kept as JSON lines."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from aligncap.audio import load
from aligncap.prosody import measure
from aligncap.values import Fact, Facts


class FactsFile(Sequence[Facts]):
    """Facts by place, each read from its line when it is asked for: a corpus' are never held."""

    def __init__(self, cache: Path, starts: NDArray[np.int64]) -> None:
        """`starts` says where in the file `cache` the line of each begins, in bytes."""
        self._cache, self._starts = cache, starts

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> Facts: ...

    @overload
    def __getitem__(self, place: slice) -> "FactsFile": ...

    def __getitem__(self, place: int | slice) -> "Facts | FactsFile":
        if isinstance(place, slice):
            return FactsFile(self._cache, self._starts[place])
        with self._cache.open("rb") as file:
            return _facts_at(file, self._starts[place])

    def __iter__(self) -> Iterator[Facts]:
        if len(self):
            with self._cache.open("rb") as file:
                for start in self._starts:
                    yield _facts_at(file, start)


def measure_all(cache: Path, paths: Sequence[Path]) -> FactsFile:
    """The facts of every file in order; those in `cache` are read, the rest measured into it.

    A run that was broken off goes on where it stopped.
    """
    known = _whole_lines(cache)
    missing = [path for path in paths if str(path) not in known]
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores) as pool, cache.open("ab") as file:
            lines = pool.map(_line_of, missing, chunksize=16)
            progress = track(
                zip(missing, lines, strict=True),
                "measuring",
                total=len(missing),
                console=Console(stderr=True),
            )
            for path, line in progress:
                known[str(path)] = file.tell()
                file.write(f"{path}\t{line}\n".encode())
    return FactsFile(cache, np.array([known[str(path)] for path in paths], dtype=np.int64))


def _whole_lines(cache: Path) -> dict[str, int]:
    """Path → the start of its last line that was finished; a line torn off at the end is cut from
    the file, or the next one would be written onto it."""
    if not cache.exists():
        return {}
    known: dict[str, int] = {}
    start = 0
    with cache.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                os.truncate(cache, start)
                break
            known[line.partition(b"\t")[0].decode()] = start
            start += len(line)
    return known


def _facts_at(file: BinaryIO, start: np.int64) -> Facts:
    file.seek(int(start))
    return read_facts(file.readline().partition(b"\t")[2].decode())


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
