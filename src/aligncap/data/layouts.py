"""How a corpus is laid out: its faults, its description, and reading of folders and label files."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from aligncap.audio.files import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES, VIDEO_SUFFIXES
from aligncap.data.manifest import Utterance
from aligncap.errors import DataError


class Kind(StrEnum):
    """What a fault is about."""

    MISSING = "missing"
    """A file that is named but not there."""
    BROKEN = "broken"
    """A file that cannot be read as sound."""
    CHANGED = "changed"
    """A file that is no longer what the manifest was made of."""
    RATE = "rate"
    DURATION = "duration"
    DUPLICATE = "duplicate"
    """One id, or one sound, twice."""
    LABEL = "label"
    """A label file, or a line of one, that cannot be used."""
    CAPTION = "caption"
    """A clip without the caption it should have."""
    COUNT = "count"
    """More or fewer clips than the corpus has."""
    LEAK = "leak"
    """Something on both sides of a split that must not be."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that the user can put right."""

    kind: Kind
    message: str
    """One line: the thing, the place, the cure."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


ALL = "all"
"""The part of a corpus that is counted as one."""


class Find(Protocol):
    """Finds the clips of a corpus."""

    def __call__(self, source: Path, /) -> Iterator[Utterance | Fault]:
        """What is in a folder, one clip at a time; the sound files are not opened.

        A label that cannot be read is a fault, and its clip is given out without it unless the
        clip cannot be told from its name either. Raises
        DataError where the folder holds nothing of this corpus to begin with.
        """


def as_one(_: Utterance) -> str:
    """The part of an utterance where a corpus is counted as one."""
    return ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus whose files are laid out in a known way."""

    name: str
    counts: Mapping[str, int]
    """How many clips each of its parts has; empty where nobody can know."""
    rates_hz: frozenset[int] = frozenset()
    """The sampling rates it is shipped at; empty where they differ."""
    fetch: str
    """What to fetch from where, to put after "fetch"."""
    find: Find
    part_of: Callable[[Utterance], str] = as_one
    """The part that an utterance is counted in."""


_SOUNDS = AUDIO_SUFFIXES | UNREADABLE_SUFFIXES | VIDEO_SUFFIXES


def sound_files(folder: Path, *, suffixes: Iterable[str] = _SOUNDS) -> Iterator[Path]:
    """Every recording below a folder, folder by folder and sorted in each; links are followed.

    Hidden files are passed over. Names of one folder at a time are held. Raises DataError where
    the folder is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the corpus")
    wanted = frozenset(suffixes)
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up would have no end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in wanted:
                yield Path(place) / name


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that hold something, each after its place ("0001.txt:3").

    UTF-8, UTF-16 with its mark, or GB 18030. Raises DataError where it is missing or neither.
    """
    for number, line in enumerate(_decoded(file).splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def read_table(file: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a csv file with a header, each after its place; DataError where a column is
    missing or the file is none."""
    reader = csv.DictReader(_decoded(file).splitlines(keepends=True), skipinitialspace=True)
    try:
        present = [name.strip() for name in reader.fieldnames or []]
        if absent := [name for name in columns if name not in present]:
            raise DataError(
                f"{file}:1: has no column {', '.join(absent)} (it has {', '.join(present)}); "
                "fetch the file anew"
            )
        reader.fieldnames = present
        for row in reader:
            cells = {name: (row.get(name) or "").strip() for name in present}
            yield f"{file}:{reader.line_num}", cells
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: no csv ({error}); fetch it anew") from error


def without_sound(told: Path, clips: Iterable[str], fetch: str) -> Iterator[Fault]:
    """A fault for each clip that the label file `told` names and that has no sound file."""
    for clip in sorted(clips):
        yield Fault(Kind.MISSING, f"{clip}: is in {told} and has no sound file; fetch {fetch}")


def _decoded(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: does not exist; fetch it, it comes with the corpus") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); fetch it anew") from error
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{file}: neither UTF-8, UTF-16 nor GB 18030; save it as UTF-8")
