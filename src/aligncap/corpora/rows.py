"""JSON lines: one object a line, each with the place that an error about it names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aligncap.errors import DataError

Row = dict[str, Any]


def read_rows(path: Path, *, what: str) -> Iterator[tuple[str, Row]]:
    """The objects of a file of JSON lines, each after its place ("m.jsonl:3"), one at a time.

    Blank lines are passed over. `what` is the file's name in messages ("manifest"). Raises
    DataError at the first line that is not a JSON object in UTF-8; NaN is not JSON.
    """
    for place, row in read_each_row(path, what=what):
        if isinstance(row, DataError):
            raise row
        yield place, row


def read_each_row(path: Path, *, what: str) -> Iterator[tuple[str, Row | DataError]]:
    """As `read_rows`, but a line that is not an object is given out as its error and the rest
    goes on."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}:{number}"
                try:
                    text = _decoded(line, place, what).strip()
                    if not text:
                        continue
                    row: Row | DataError = _object(text, place)
                except DataError as error:
                    row = error
                yield place, row
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the {what} ({error.strerror}); give a file of JSON lines"
        ) from error


def _decoded(line: bytes, place: str, what: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8; save the {what} as UTF-8") from error


def _object(text: str, place: str) -> Row:
    def refuse(word: str) -> None:
        raise DataError(f"{place}: holds {word}, which is not JSON; write a number or null")

    try:
        row = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}); write one object a line") from error
    except (RecursionError, ValueError) as error:  # nested without end; a number of 5,000 digits
        raise DataError(f"{place}: not JSON that can be read; write one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: holds a {type(row).__name__}; write one JSON object a line")
    return row


def text_of(row: Row, key: str, place: str) -> str | None:
    """The text under a key; None where it is absent, null or empty."""
    value = row.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {value!r}; write it as text in quotes")
    return value


def texts_of(row: Row, key: str, place: str) -> tuple[str, ...]:
    """The texts under a key, none where it is absent, null or empty."""
    value = row.get(key) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(c, str) and c for c in value):
        raise DataError(f"{place}: {key!r} is {value!r}; write a list of texts")
    return tuple(value)
