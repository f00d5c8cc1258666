"""Files of rows as JSON lines: a first line about all of them, then a row a line, as a stream."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aligncap.errors import AlignCapError, DataError
from aligncap.storage import atomic_file

Head = TypeVar("Head")
Row = TypeVar("Row")

Table = Mapping[str, Any]
"""One line of a file."""


def read_head(path: Path, parse: Callable[[Table], Head]) -> Head:
    """What the first line of a file says; DataError where it is empty or damaged."""
    for number, line in _lines(path):
        return _parsed(path, number, line, parse)
    raise DataError(f"{path}: is empty; make it again")


def read_rest(path: Path, parse: Callable[[Table], Row]) -> Iterator[Row]:
    """The rows after the first line, one at a time; DataError names file and line."""
    for number, line in _lines(path):
        if number > 1:
            yield _parsed(path, number, line, parse)


def write_lines(path: Path, head: Table, rows: Iterable[Table]) -> int:
    """Write a file of rows, whole or not at all; returns how many rows."""
    count = 0
    with atomic_file(path) as file:
        file.write(json.dumps(head) + "\n")
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make it first: training rows by a recipe "
            "of kind 'token-rows' or 'rows', preference rows with aligncap prefer rows"
        ) from error
    with file:
        yield from enumerate(file, start=1)


def _parsed(path: Path, number: int, line: str, parse: Callable[[Table], Row]) -> Row:
    try:
        return parse(json.loads(line))
    except (AlignCapError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        if number == 1:
            reason += "; the first line says what rows these are and whose speech tokens they hold"
        raise DataError(f"{path}:{number}: {reason}") from error
