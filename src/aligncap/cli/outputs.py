"""What captions are written to: jsonl, csv or text, on standard output or in a file that a run that
was stopped goes on with."""

import csv
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import typer

from aligncap.cli.console import (
    Console,
    Record,
    Recording,
    aligned,
    csv_line,
    for_terminal,
    other_columns,
)
from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.storage import atomic_file, lock_file, printable

COLUMNS = (
    *("file", "duration_s", "language", "caption", "clues", "emotion", "arousal", "valence"),
    *("gender", "pitch", "loudness", "pace", "confidence", "certainty", "second_emotion"),
    *("vocalization", "unfamiliar", "model", "baseline", "part_s", "candidates"),
    *("error", "id", "speaker", "signature"),
)
"""The columns of csv, before the other columns of a manifest; a jsonl record has those of all that
it has a value for."""


Key = tuple[str, str]
"""Of a recording in an output: its file and its id, "" where it has none."""


class CaptionFile:
    """Where captions are written to: standard output, or a file that one process at a time writes
    and that a run that was stopped goes on with.

    Raises DataError where the file would be replaced unasked, or cannot be gone on with since it
    is of something else or made another way; then nothing is written to it.
    """

    def __init__(self, path: Path | None, form: str, *, resume: bool, overwrite: bool) -> None:
        if resume and (path is None or form == "text"):
            raise DataError("--resume goes on with a file: give --output FILE.jsonl or FILE.csv")
        if resume and overwrite:
            raise RecipeError("--resume goes on with a file, --overwrite replaces it; give one")
        self._path, self.form, self._resume = path, form, resume
        self.is_there = path is not None and path.is_file() and path.stat().st_size > 0
        self._replaces = overwrite and self.is_there
        self._failed: dict[Key, bool] = {}
        self.columns: Sequence[str] = COLUMNS
        """Of csv."""
        self.done = self.failed = 0

    @contextmanager
    def opened(
        self, console: Console, recordings: Iterable[Recording], signature: str
    ) -> Iterator[tuple[IO[Any], Iterable[Recording]]]:
        """The stream to write to, and those of the recordings that are to be captioned: without
        those that it has; what failed before is tried again."""
        with ExitStack() as stack:
            stream: IO[Any] = console.stdout
            if self._path is not None:
                writing = atomic_file if self._replaces else _locked
                stream = stack.enter_context(writing(self._path))
                if not (self._resume or self._replaces or _is_empty(stream)):
                    raise DataError(f"{self._path}: another process has written it; look at it")
            if self.form == "csv":
                recordings = list(recordings)
                self.columns = [*COLUMNS, *other_columns(recordings, COLUMNS)]
            if self._resume and self.is_there and self._path is not None:
                recordings = list(recordings)
                if self._read_earlier(self._path, recordings, signature):
                    if sys.platform == "win32":  # no file that is open is replaced there
                        stream.close()
                    self._mend(self._path)
                    stream = stack.enter_context(_locked(self._path))
                recordings = [one for one in recordings if self._earlier(one) is None]
            elif self.form == "csv":
                print(csv_line(self.columns), file=stream, flush=True)
            yield stream, recordings

    def _earlier(self, recording: Recording) -> Key | None:
        """The key under which the output has a recording; an older one knows no ids. Another sound
        may come by standard input each time."""
        if not isinstance(recording.audio, Path | AlignCapError):
            return None
        file = printable(recording.file)
        keys = (file, printable(str(recording.columns.get("id", "")))), (file, "")
        return next((key for key in keys if key in self._failed), None)

    def _read_earlier(self, path: Path, recordings: Iterable[Recording], signature: str) -> bool:
        """Remember what the output has; returns whether some of it must go: a line torn by a kill,
        errors of these recordings."""
        torn = False
        if self.form == "csv":  # a file goes on with the columns that it has
            self.columns = _columns_of(path)
        for _, record in _lines_of(path, self.form):
            if record is None:
                torn = True
            else:
                _check_made_alike(path, record, signature)
                self._failed[_key_of(record)] = bool(record.get("error"))
        keys = {self._earlier(one) for one in recordings}
        again = [key for key in keys if key is not None and self._failed[key]]
        for key in again:
            del self._failed[key]
        self.done, self.failed = len(self._failed), sum(self._failed.values())
        return torn or bool(again)

    def _mend(self, path: Path) -> None:
        """Write the file anew without what must go."""
        with atomic_file(path) as file:
            if self.form == "csv":
                print(csv_line(self.columns), file=file)
            for line, record in _lines_of(path, self.form):
                if record is not None and _key_of(record) in self._failed:
                    print(line, file=file)

    def count(self, record: Record) -> None:
        """One more is done."""
        self.done += 1
        self.failed += "error" in record

    def kept(self) -> str:
        """What a run that is stopped now leaves behind."""
        if self._path is None:
            return f"{self.done} files are done"
        if self._replaces:
            return f"{self._path} is as it was"
        resumable = "; the same command with --resume goes on" if self.form != "text" else ""
        return f"{self.done} files are in {self._path}{resumable}"


@contextmanager
def _locked(path: Path) -> Iterator[IO[Any]]:
    """A file to append to, which no other process may open so; DataError where one has."""
    try:
        # A name that is not UTF-8 is written as the \\udcXX that JSON reads as that name.
        stream = path.open("a", encoding="utf-8", newline="", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    with stream:
        if not lock_file(stream) or not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            raise DataError(f"{path}: another process is writing it; wait for it to end")
        yield stream


def _is_empty(stream: IO[Any]) -> bool:
    found = os.fstat(stream.fileno())
    return not (stat.S_ISREG(found.st_mode) and found.st_size)


def _key_of(record: Record) -> Key:
    return printable(record["file"]), printable(str(record.get("id") or ""))


def _check_made_alike(path: Path, record: Record, signature: str) -> None:
    """DataError where a record was made by another model or with other options; of an older one
    only its language is known."""
    made = str(record.get("signature") or "")
    older = f"language:{record['language']}" if record.get("language") else ""
    before, now = (
        dict(part.partition(":")[::2] for part in one.split("|") if part)
        for one in (made or older, signature)
    )
    for name in [*before, *(now if made else ())]:
        if before.get(name) != now.get(name):
            raise DataError(
                f"{path}: was made with {name} {before.get(name, 'none')}, not "
                f"{now.get(name, 'none')}; give the same options, or another --output"
            )


def _lines_of(path: Path, form: str) -> Iterator[tuple[str, Record | None]]:
    """The lines of an output, each with its record; None where a kill tore the last one.

    DataError where it is no output of `aligncap caption`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n", errors="surrogateescape") as lines:
            yield from (_csv_records if form == "csv" else _json_records)(lines)
    except (ValueError, LookupError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(
            f"{path}: holds no {form} of aligncap caption; choose another --output"
        ) from error


BEGINNING = '{"file": "'
"""Of a record; of a torn one there may be less."""


def _json_records(lines: Iterable[str]) -> Iterator[tuple[str, Record | None]]:
    for line in lines:
        text = line.rstrip("\n").strip("\0")  # a disk that lost power may leave zeros
        whole = line.endswith("\n")
        try:
            record = json.loads(text) if text else None
        except ValueError:
            if whole or not BEGINNING.startswith(text[: len(BEGINNING)]):
                raise
            record = None
        if record is not None:
            if not isinstance(record["file"], str) or not {"duration_s", "error"} & record.keys():
                raise TypeError
            yield text, record
        if not whole:
            yield "", None


def _columns_of(path: Path) -> list[str]:
    """The columns of an output in csv."""
    with path.open(encoding="utf-8-sig", newline="\n", errors="surrogateescape") as lines:
        return next(csv.reader(lines), [])


def _csv_records(lines: Iterable[str]) -> Iterator[tuple[str, Record | None]]:
    last = ""

    def noted() -> Iterator[str]:
        nonlocal last
        for line in lines:
            last = line
            yield line

    rows = csv.reader(noted())
    columns = next(rows, [])
    if columns[: len(COLUMNS)] != list(COLUMNS):
        raise ValueError
    torn = False
    for row in rows:
        if torn:
            raise ValueError
        torn = len(row) < len(columns) or not last.endswith("\n")
        yield csv_line(row), None if torn else dict(zip(columns, row, strict=True))


def format_record(
    record: Record,
    form: str,
    *,
    evidence: bool,
    colour: bool,
    columns: Sequence[str] = COLUMNS,
) -> str:
    """A record as jsonl, csv or text; as text, `evidence` adds a line for each clue."""
    if form == "jsonl":
        return json.dumps(record, ensure_ascii=False)
    if form == "csv":
        return csv_line(csv_row(record, columns))
    length = f"{record['duration_s']:.1f} s"
    if "part_s" in record:
        start, end = record["part_s"]
        length += f", of which {start:.1f} to {end:.1f} s are captioned"
    lines = [f"{record['file']}  ({length})", f"  {record['caption']}{doubt(record)}"]
    if record["unfamiliar"]:
        lines.append("  unlike anything that the model learnt from: do not rely on the caption")
    if "baseline" in record:
        lines.append(f"  {against(record['baseline'])}")
    lines += [f"  or: {other}" for other in record.get("candidates", ())]
    lines = [for_terminal(" ".join(line.split("\n"))) for line in lines]
    if evidence:
        clues = record["clues"]
        texts = aligned(
            (one["word"], one["trait"], one["evidence"] or one["verdict"]) for one in clues
        )
        for one, text in zip(clues, texts, strict=True):
            mark, ink = MARKS[one["verdict"]]
            lines.append(f"    {typer.style(mark, fg=ink) if colour else mark} {text}")
    return "\n".join(lines)


MARKS = {
    "supported": ("✓", "green"),
    "contradicted": ("✗", "red"),
    "cannot tell": ("?", "bright_black"),
}
"""Verdict → its mark, and the mark's colour on a terminal."""


def doubt(record: Record) -> str:
    """How sure the emotion or the vocalization is, where it is not: "  (likely: sad 52%)"; ""
    where it is."""
    if record["certainty"] in (None, "sure"):
        return ""
    rivals = (
        ranked(record) if record["emotion"] else [(record["vocalization"], record["confidence"])]
    )
    shown = 2 if record["certainty"] == "unsure" or record["second_emotion"] else 1
    shares = ", ".join(f"{label} {share:.0%}" for label, share in rivals[:shown])
    return f"  ({record['certainty']}: {shares})"


def against(baseline: Record) -> str:
    """What a caption is relative to: "relative to speaker 03 (12 recordings)"."""
    if "reason" in baseline:
        return f"no baseline of {baseline['source']}: {baseline['reason']}"
    clips = baseline["clips"]
    return f"relative to {baseline['source']} ({clips} recording{'s' * (clips > 1)})"


def ranked(record: Record) -> list[tuple[str, float]]:
    """The emotions of a record with their probabilities, the likeliest first."""
    return sorted(record["emotion"].items(), key=lambda item: -item[1])


def csv_row(record: Record, columns: Sequence[str]) -> list[object]:
    """A record as cells; clues as "word=verdict; …", emotions as "label=probability; …"."""
    cells = dict(record)
    if "clues" in record:
        cells["clues"] = "; ".join(f"{one['word']}={one['verdict']}" for one in record["clues"])
    if record.get("emotion"):
        cells["emotion"] = "; ".join(f"{label}={share:.2f}" for label, share in ranked(record))
    if "baseline" in record:
        cells["baseline"] = "; ".join(f"{name}={it}" for name, it in record["baseline"].items())
    if "part_s" in record:
        cells["part_s"] = "{}-{}".format(*record["part_s"])
    if "candidates" in record:
        cells["candidates"] = " | ".join(record["candidates"])
    return [cells.get(name) for name in columns]
