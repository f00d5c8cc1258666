"""Captions as text for a person, or as jsonl or csv for a program; each written as it is ready."""

import csv
import json
import unicodedata
from typing import Protocol, TextIO

from aligncap.cli.records import COLUMNS, Record, csv_row

MARKS = {"supported": "✓", "contradicted": "✗", "cannot tell": "?"}
COLOURS = {"supported": "green", "contradicted": "red", "cannot tell": "bright_black"}


class Writer(Protocol):
    """Writes records one at a time."""

    tells_errors: bool
    """Whether an error record is in what it writes; if not, it must be said elsewhere."""

    def write(self, record: Record) -> None:
        """One record, on its way out when this returns."""


class JsonlWriter:
    """One JSON object a line, in UTF-8."""

    tells_errors = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """One line."""
        print(json.dumps(record, ensure_ascii=False), file=self._stream, flush=True)


class CsvWriter:
    """One row a recording, below a row of names."""

    tells_errors = True

    def __init__(self, stream: TextIO, *, heading: bool) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, lineterminator="\n")
        if heading:
            self._rows.writerow(COLUMNS)

    def write(self, record: Record) -> None:
        """One row."""
        self._rows.writerow(csv_row(record))
        self._stream.flush()


class TextWriter:
    """The file, its caption, other candidates; with `evidence`, the clues and what was measured."""

    tells_errors = False

    def __init__(self, stream: TextIO, *, evidence: bool) -> None:
        self._stream = stream
        self._evidence = evidence
        self._colour = stream.isatty()

    def write(self, record: Record) -> None:
        """A few lines; an error record is passed over."""
        if "error" in record:
            return
        lines = [f"{record['file']}  ({_length(record)})", f"  {record['caption']}"]
        lines += [f"  or: {other}" for other in record.get("candidates", ())]
        if self._evidence:
            lines += clue_lines(record["clues"], colour=self._colour)
        print(*lines, sep="\n", file=self._stream, flush=True)


def _length(record: Record) -> str:
    length = f"{record['duration_s']:.1f} s"
    if "part_s" not in record:
        return length
    start, end = record["part_s"]
    return f"{length}, of which {start:.1f} to {end:.1f} s are captioned"


def clue_lines(clues: list[dict[str, str]], *, colour: bool) -> list[str]:
    """A line for each clue: verdict, word, trait, measurement, in columns."""
    word = max((cells(clue["word"]) for clue in clues), default=0)
    trait = max((cells(clue["trait"]) for clue in clues), default=0)
    return [
        f"    {_mark(clue['verdict'], colour=colour)} {pad(clue['word'], word)}  "
        f"{pad(clue['trait'], trait)}  {clue['evidence'] or clue['verdict']}"
        for clue in clues
    ]


def _mark(verdict: str, *, colour: bool) -> str:
    if not colour:
        return MARKS[verdict]
    import typer

    return typer.style(MARKS[verdict], fg=COLOURS[verdict])


def cells(text: str) -> int:
    """How many columns of a terminal a text takes; a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def pad(text: str, width: int) -> str:
    """The text, filled with spaces to `width` columns."""
    return text + " " * (width - cells(text))
