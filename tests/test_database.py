"""The SQLite file that stores stand on: threads, forks, other processes, damage."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aligncap.database import Database
from aligncap.errors import DataError

TABLES = ("CREATE TABLE things (name TEXT PRIMARY KEY)",)


@contextmanager
def open_database(path: Path, journal: str = "wal") -> Iterator[Database]:
    database = Database(path, kind="store of things", cure="begin another", journal=journal)
    try:
        database.create(TABLES, {"things": "1"})
        yield database
    finally:
        database.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "a.sqlite") as opened:
        yield opened


def names(database: Database) -> list[str]:
    return [name for (name,) in database.rows("SELECT name FROM things ORDER BY name")]


def test_a_transaction_is_all_or_nothing(database: Database) -> None:

    def interrupted() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO things VALUES ('a')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(database) == []
    with database.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('b')")
    assert names(database) == ["b"]


def test_each_thread_has_a_connection_and_a_reader_does_not_wait(database: Database) -> None:
    seen: list[list[str]] = []
    with database.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('a')")
        reader = threading.Thread(target=lambda: seen.append(names(database)))
        reader.start()
        reader.join(timeout=10)
    assert seen == [[]]  # what is not committed is not seen
    assert names(database) == ["a"]


def test_several_processes_make_and_fill_one_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_database import open_database\n"
        "database = open_database(Path(sys.argv[1])).__enter__()\n"
        "for number in range(20):\n"
        "    with database.transaction() as connection:\n"
        "        name = sys.argv[2] + str(number)\n"
        "        connection.execute('INSERT INTO things VALUES (?)', (name,))\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a.sqlite"), letter],
            env=os.environ | {"PYTHONPATH": path},
        )
        for letter in "abcd"
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    with open_database(tmp_path / "a.sqlite") as database:
        assert len(names(database)) == 80


def test_a_file_that_is_none_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match=r"no store of things .*; begin another"):
        open_database(tmp_path / "a.sqlite").__enter__()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="see that the disk has room"):
        open_database(tmp_path / "folder").__enter__()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_journal_is_as_asked_for(tmp_path: Path, journal: str) -> None:
    with open_database(tmp_path / "a.sqlite", journal):
        connection = sqlite3.connect(tmp_path / "a.sqlite")
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)
        connection.close()
