"""One SQLite file, used from several threads and processes, whole whatever moment a kill comes at.

What is read and written is the caller's; here are the connection, the transaction, and errors that
say what to do.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aligncap.errors import DataError

BUSY_S = 60.0
"""How long a transaction waits for one of another process."""

Row = tuple[Any, ...]


class Database:
    """A SQLite file; `kind` and `cure` say in errors what it is and what helps if it is damaged.

    Each thread has a connection of its own, and so has a process after a fork. In its `journal`
    "wal", readers do not wait for a writer.
    """

    def __init__(self, path: Path, *, kind: str, cure: str, journal: str = "delete") -> None:
        self.path = path
        self._kind, self._cure, self._journal = kind, cure, journal
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        self.connection()

    def connection(self) -> sqlite3.Connection:
        """The connection of this process and thread, opened on first use."""
        # A connection must not cross a fork (data loaders do): the child opens its own.
        key = os.getpid(), threading.get_ident()
        if key not in self._connections:
            with self.explained():
                # Only its own thread uses a connection; closing may be another's work.
                opened = sqlite3.connect(
                    self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
                )
                try:
                    self._set_journal(opened)
                except sqlite3.Error:
                    opened.close()
                    raise
                self._connections[key] = opened
        return self._connections[key]

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        """SQLite does not wait for its lock when the journal changes, so we do."""
        given_up_s = time.monotonic() + BUSY_S
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != self._journal:
            try:
                connection.execute(f"PRAGMA journal_mode = {self._journal}")
            except sqlite3.OperationalError:
                if time.monotonic() > given_up_s:
                    raise
                time.sleep(0.01)

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""
        with self.explained():
            return self.connection().execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[object] = ()) -> Row:
        """The first row of a query, or an empty one."""
        with self.explained():
            return tuple(self.connection().execute(query, values).fetchone() or ())

    def stream(self, query: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """The rows of a query, one at a time."""
        with self.explained():
            yield from self.connection().execute(query, values)

    def create(self, statements: Sequence[str], meta: dict[str, str]) -> None:
        """Make the tables, and the table `meta` with its values, in a file that has none."""
        if self.row("SELECT 1 FROM sqlite_master"):
            return
        with self.transaction() as connection:
            # Another process may have been first, between the look and the lock.
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                for statement in statements:
                    connection.execute(statement)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    def meta(self) -> dict[str, str]:
        """What the file says of itself."""
        return dict(self.rows("SELECT key, value FROM meta"))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Within, everything is written or, if anything goes wrong, nothing."""
        with self.explained():
            connection = self.connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:  # an interrupt, too, must not leave the file locked
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file; only the connections of this process are closed."""
        for (process, _), connection in list(self._connections.items()):
            if process == os.getpid():
                connection.close()
        self._connections.clear()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within, what SQLite refuses is a DataError that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: is damaged or no {self._kind} ({error}); {self._cure}"
            ) from error

    def _unusable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: {error}; see that the disk has room, the folder can be written "
            "and no other program holds the file"
        )
