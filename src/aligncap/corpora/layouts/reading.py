"""Reading what corpora are made of: folders of sound files, label files of any encoding, csv."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from aligncap.audio.suffixes import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES, VIDEO_SUFFIXES
from aligncap.corpora.findings import Fault, Kind
from aligncap.errors import DataError

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
