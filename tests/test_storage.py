"""What is kept on disk: atomic writes, fingerprints, SQLite files and folders of arrays."""

import hashlib
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligncap.errors import DataError
from aligncap.storage import (
    Database,
    atomic_file,
    atomic_folder,
    fingerprint_of_arrays,
    fingerprint_of_files,
    fingerprint_of_folder,
    open_arrays,
    write_atomic,
)
from support.killer import Process, finish, start

ARRAYS = "b387f784d0c905346f41c355a4aad5f83cbb816e3562c9e42ff3a562a34f3d00"
FILES = "1275086c5aa5c9b6dcbca01d32af679a371d01a4ad9984e9ca6336ca70b35d56"
"""Stored on users' disks: they must not change."""

TABLES = ("CREATE TABLE things (name TEXT PRIMARY KEY)",)


@contextmanager
def open_database(path: Path, journal: str = "wal") -> Iterator[Database]:
    database = Database(path, kind="store of things", hint="begin another", journal=journal)
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


def interrupt(context: AbstractContextManager[Any], act: Callable[[Any], object]) -> None:
    with context as opened:
        act(opened)
        raise KeyboardInterrupt


def test_a_transaction_is_all_or_nothing(database):
    insert = "INSERT INTO things VALUES ('{}')"
    with pytest.raises(KeyboardInterrupt):
        interrupt(database.transaction(), lambda one: one.execute(insert.format("a")))
    assert names(database) == []
    with database.transaction() as connection:
        connection.execute(insert.format("b"))
    assert names(database) == ["b"]


def test_each_thread_has_a_connection_and_a_reader_does_not_wait(database):
    seen: list[list[str]] = []
    with database.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('a')")
        reader = threading.Thread(target=lambda: seen.append(names(database)))
        reader.start()
        reader.join()
    assert seen == [[]]  # what is not committed is not seen
    assert names(database) == ["a"]


def test_several_processes_make_and_fill_one_file(tmp_path):
    code = (
        "import sys; from pathlib import Path; from test_storage import open_database\n"
        "database = open_database(Path(sys.argv[1])).__enter__()\n"
        "for number in range(20):\n"
        "    with database.transaction() as connection:\n"
        "        name = sys.argv[2] + str(number)\n"
        "        connection.execute('INSERT INTO things VALUES (?)', (name,))\n"
    )
    for process in [start("-c", code, tmp_path / "a.sqlite", letter) for letter in "abcd"]:
        finish(process)
    with open_database(tmp_path / "a.sqlite") as database:
        assert len(names(database)) == 80


def test_a_file_that_is_none_and_a_place_that_cannot_be_written_are_a_line_each(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match=r"no store of things .*; begin another"):
        open_database(tmp_path / "a.sqlite").__enter__()
    with pytest.raises(DataError, match="see that the disk has room"):
        open_database(tmp_path).__enter__()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_journal_is_as_asked_for(tmp_path, journal):
    with open_database(tmp_path / "a.sqlite", journal):
        connection = sqlite3.connect(tmp_path / "a.sqlite")
        assert connection.execute("PRAGMA journal_mode").fetchone() == (journal,)
        connection.close()


def test_meta_of_something_else_is_refused(database):
    database.check_meta({"things": "1"})
    with pytest.raises(DataError, match="was made with things '1', not '2'"):
        database.check_meta({"things": "2"})


def run(code: str, *arguments: object) -> Process:
    """A process of its own that has the names of `aligncap.storage`."""
    names = "import os, signal, sys; from pathlib import Path; from aligncap.storage import *\n"
    return start("-c", names + code, *arguments)


def test_a_file_appears_whole_or_the_old_one_stays(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as file:
        file.write("é")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "é".encode()
    write_atomic(path, b"\0")
    with pytest.raises(KeyboardInterrupt):
        interrupt(atomic_file(path), lambda file: file.write("new"))
    assert path.read_bytes() == b"\0"
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_before_the_move_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    code = """
with atomic_file(Path(sys.argv[1])) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    finish(run(code, path), -signal.SIGKILL)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    write_atomic(path, "new")  # which removes what the killed one left
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_before_the_move_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "a"
    with atomic_folder(folder) as partial:
        (partial / "old").touch()
    code = """
with atomic_folder(Path(sys.argv[1])) as partial:
    (partial / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    finish(run(code, folder), -signal.SIGKILL)
    assert [one.name for one in folder.iterdir()] == ["old"]
    with atomic_folder(folder) as partial:
        (partial / "new").touch()
    assert [one.name for one in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_there_can_stay(tmp_path):
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "a", replace=False) as partial:
            (partial / name).mkdir()
    assert [one.name for one in (tmp_path / "a").iterdir()] == ["first"]


def test_two_processes_write_one_file(tmp_path):
    path = tmp_path / "a.txt"
    code = "for _ in range(50): write_atomic(Path(sys.argv[1]), sys.argv[2] * 100_000)"
    running = [run(code, path, letter) for letter in "ab"]
    while any(process.poll() is None for process in running):
        if path.exists():
            assert path.read_text() in ("a" * 100_000, "b" * 100_000)
    assert [process.returncode for process in running] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprints_are_as_earlier_versions_made_them(tmp_path):
    for name in ("a.json", "b.txt"):
        (tmp_path / name).write_text(name)
    arrays = [("w", np.arange(6, dtype=np.float32).reshape(2, 3)), ("b", np.zeros(2, np.int64))]
    files = [tmp_path / "a.json", tmp_path / "b.txt"]
    assert fingerprint_of_arrays({"n": 1, "d": "é"}, arrays) == ARRAYS
    assert fingerprint_of_files({"v": "1"}, files) == FILES
    expected = hashlib.sha256()
    for file in files:
        expected.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    assert fingerprint_of_folder(tmp_path, files) == expected.hexdigest()


def test_arrays_are_kept_under_what_they_depend_on(tmp_path):
    shapes = {"a": (np.uint8, (3,))}
    folder, arrays = open_arrays(tmp_path, "model 1", shapes)
    arrays["a"][1] = 7
    again, found = open_arrays(tmp_path, "model 1", shapes)
    assert (again, found["a"].tolist()) == (folder, [0, 7, 0])
    assert folder.name == hashlib.sha256(b"model 1").hexdigest()[:24]
    other, empty = open_arrays(tmp_path, "model 2", shapes)
    assert other != folder
    assert not empty["a"].any()


def test_two_processes_open_the_same_arrays(tmp_path):
    code = """
import numpy as np
place = int(sys.argv[2])
for number in range(20):
    arrays = open_arrays(Path(sys.argv[1]), str(number), {"a": (np.uint8, (2,))})[1]
    arrays["a"][place] = 1
"""
    for process in [run(code, tmp_path, place) for place in (0, 1)]:
        finish(process)
    for number in range(20):
        arrays = open_arrays(tmp_path, str(number), {"a": (np.uint8, (2,))})[1]
        assert arrays["a"].tolist() == [1, 1]
    assert len(list(tmp_path.iterdir())) == 20
