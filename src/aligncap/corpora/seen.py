"""What was met before, however long the corpus: on disk, so that memory does not grow with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aligncap.storage import Database, Row, hash_of

_FILE = "seen.sqlite.unfinished"
_SCHEMA = (
    # The key is 64 bits of a hash: two of a million meet by chance once in 40 million corpora.
    "CREATE TABLE seen (key INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL,"
    " times INTEGER NOT NULL, parts INTEGER NOT NULL)",
)
_MEET = (
    "INSERT INTO seen VALUES (?, ?, ?, 1, ?) ON CONFLICT (key) DO UPDATE"
    " SET times = times + 1, parts = parts | excluded.parts"
)
_NOTED = 1000
"""Notes are written so many at a time."""
_CACHE_KB = 16_384


@dataclass(frozen=True, slots=True)
class Shared:
    """Something that lies in more than one part."""

    name: str
    parts: tuple[int, ...]
    """Numbers of the parts."""
    times: int


class Seen:
    """Things by kind ("id", "sound", "speaker" …), how often each was met and in which parts.

    Its file is made in `folder` and taken away at the end; a kill leaves one that the next run
    replaces.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._notes: list[Row] = []
        self._file.unlink(missing_ok=True)
        self._database = Database(
            self._file, kind="record", cure="run the command again", journal="off"
        )
        self._database.create(_SCHEMA, {})
        connection = self._database.connection()
        connection.execute("PRAGMA synchronous = off")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        connection.execute("BEGIN")

    def meet(self, kind: str, what: str, *, name: str, part: int | None = None) -> str | None:
        """Meet something in a part, if any; the name under which it was met first, or None."""
        query = f"{_MEET} RETURNING times, name"
        times, first = self._database.row(query, _row(kind, what, name, part))
        return str(first) if times > 1 else None

    def note(self, kind: str, what: str, *, name: str, part: int | None = None) -> None:
        """As `meet`, for one who does not ask who was first, which is quicker; a kind is either met
        or noted."""
        self._notes.append(_row(kind, what, name, part))
        if len(self._notes) >= _NOTED:
            self._write_notes()

    def _write_notes(self) -> None:
        if self._notes:
            with self._database.explained():
                self._database.connection().executemany(_MEET, self._notes)
            self._notes.clear()

    def number(self, kind: str) -> int:
        """How many different ones of a kind were met."""
        self._write_notes()
        return int(self._database.row("SELECT count(*) FROM seen WHERE kind = ?", (kind,))[0])

    def times(self, kind: str) -> Iterator[tuple[str, int]]:
        """Each of a kind and how often it was met, by name."""
        self._write_notes()
        yield from self._database.stream(
            "SELECT name, times FROM seen WHERE kind = ? ORDER BY name", (kind,)
        )

    def shared(self, kind: str) -> Iterator[Shared]:
        """Those of a kind that were met in more than one part, by name."""
        self._write_notes()
        # A number with one bit has no bit in common with the number below it.
        rows = self._database.stream(
            "SELECT name, parts, times FROM seen WHERE kind = ? AND parts & (parts - 1)"
            " ORDER BY name",
            (kind,),
        )
        for name, parts, times in rows:
            numbers = tuple(bit for bit in range(parts.bit_length()) if parts >> bit & 1)
            yield Shared(name, numbers, times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.connection().execute("COMMIT")
        self._database.close()
        self._file.unlink(missing_ok=True)


def _row(kind: str, what: str, name: str, part: int | None) -> Row:
    key = int.from_bytes(bytes.fromhex(hash_of(f"{kind}\0{what}")[:16]), signed=True)
    return key, kind, name, 0 if part is None else 1 << part
