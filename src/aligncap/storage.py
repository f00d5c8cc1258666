"""Files on disk: outputs, atomic writes, fingerprints, and the two formats of caches.

`check_outputs` refuses what would destroy an input or replace what is there unasked. `atomic_file`
and `atomic_folder` write next to the target, on the same file system, and rename, so that a file or
folder is complete or absent whatever moment a kill comes at. A fingerprint is the
SHA-256 of canonical JSON, files or arrays. A cache is either a SQLite file (`Database`), looked up
by key, or a folder of memory-mapped arrays (`open_arrays`). Where an operating system lacks what
Linux has (locks of files, a list of usable processors), what is here does without.
"""

import json
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, TYPE_CHECKING, Any

from aligncap.errors import DataError

if TYPE_CHECKING:  # imported on use: `--help` does without
    import numpy as np
    from numpy.typing import NDArray


def decoded(data: bytes, place: str, what: str) -> str:
    """Text in UTF-8, a byte order mark passed over; DataError, which begins with `place` and calls
    the file `what`, for bytes in any other encoding."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8; save the {what} as UTF-8") from error
    if "\0" in text:  # UTF-16 without a mark
        raise DataError(f"{place}: not UTF-8; save the {what} as UTF-8")
    return text


META_FILE = "meta.json"
"""Of a folder of arrays: what they depend on."""

BUSY_S = 60.0
"""How long a transaction waits for one of another process."""

Row = tuple[Any, ...]


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path], *, overwrite: bool) -> None:
    """DataError where an output is one of the inputs, by whatever name or link, or a folder that
    holds one; and, without `overwrite`, where something is there already.

    An empty file or folder, a pipe or a device may always be written to.
    """
    sources = list(inputs)
    for output in outputs:
        try:
            found = output.stat()
        except OSError:
            continue
        regular, folder = S_ISREG(found.st_mode), S_ISDIR(found.st_mode)
        for source in sources if regular or folder else ():
            if _is_or_holds(found, source):
                what = "what" if str(source) == str(output) else f"or holds {source}, which"
                raise DataError(f"{output}: is {what} this command reads; choose another output")
        filled = (regular and found.st_size) or (folder and any(output.iterdir()))
        if filled and not overwrite:
            raise DataError(
                f"{output}: is there already; --overwrite replaces it, or choose another output"
            )


def _is_or_holds(found: os.stat_result, source: Path) -> bool:
    """Whether a file or folder is `source`, or one of the folders that it lies in."""
    if not os.path.exists(source):  # noqa: PTH110  a text that is no path is none either
        return False
    places = [source]
    if S_ISDIR(found.st_mode):  # a file holds nothing: of a corpus only its files are looked at
        places += [*source.absolute().parents, *source.resolve().parents]
    for place in places:
        with suppress(OSError):
            if os.path.samestat(found, place.stat()):
                return True
    return False


def printable(text: str) -> str:
    """A text that can be written as UTF-8: bytes of a file name that are none become \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """An open file, text in UTF-8 unless `mode` is "wb", that becomes `path` if no error is raised.

    A name that is not UTF-8 is written as the \\udcXX that JSON reads as that name. A link stays
    one, a pipe or device is written to directly. Several processes may write one path: the last to
    finish stays. OSError as `open` raises it.
    """
    encoding: dict[str, Any] = {}
    if "b" not in mode:
        # Of the same bytes on every system.
        encoding = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    if path.exists() and not (path.is_file() or path.is_dir()):
        with path.open(mode, **encoding) as file:
            yield file
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    try:
        with partial.open(mode, **encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):
            shutil.copymode(path, partial)  # what only its owner may read stays so
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file, text in UTF-8; see `atomic_file`."""
    with atomic_file(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` if no error is raised.

    A folder that is there already is removed once the new one is complete; without `replace` it
    stays, and the new one is dropped (where several processes make the same). OSError as the disk
    raises it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(folder)
    partial.mkdir()
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        _move_folder(partial, folder, replace=replace)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_folder(partial: Path, folder: Path, *, replace: bool) -> None:
    if replace and folder.exists():
        # A folder cannot be renamed over one with files in it: the old one steps aside first.
        old = _partial_path(folder, "old")
        folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
        return
    try:
        partial.rename(folder)
    except OSError:
        if replace or not folder.is_dir():
            raise


def _partial_path(path: Path, ending: str = "partial") -> Path:
    """A free name next to `path`; files that killed processes of this machine left are removed."""
    import socket  # like hashlib below not needed by `--help`

    start, end = f".{path.name}.", f"@{socket.gethostname()}."
    own = path.with_name(f"{start}{os.getpid()}-{threading.get_native_id()}{end}{ending}")
    for left in path.parent.iterdir():
        if left.name.startswith(start) and left.name.endswith((f"{end}partial", f"{end}old")):
            writer = left.name.removeprefix(start).partition("-")[0]
            if left == own or (writer.isdigit() and not _is_running(int(writer))):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
    return own


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # its os.kill would send Ctrl-C: what may be at work stays
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lock_file(file: IO[Any]) -> bool:
    """Have this process alone hold an open file until it is closed or the process ends; False where
    another one does. Where the system or the file system has no such locks, every process may."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def usable_cores() -> int:
    """Processors that this process may use: all of the machine where the system tells no less."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sync(path: Path) -> None:
    """Have the disk hold a file or the entries of a folder; some file systems cannot."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def canonical_json(value: object, *, ascii_only: bool = False) -> str:
    """JSON with sorted keys: the same text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=ascii_only)


def hash_of(content: str | bytes) -> str:
    """SHA-256 of a text or bytes in hexadecimal; a text may hold lone surrogates."""
    return hash_of_parts([content])


def hash_of_parts(parts: Iterable[str | bytes | memoryview]) -> str:
    """As `hash_of`, over parts one after another, each asked for when it is needed."""
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return digest.hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in blocks; OSError if it cannot be read."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of_arrays(
    settings: Mapping[str, object], arrays: "Iterable[tuple[str, NDArray[np.generic]]]"
) -> str:
    """SHA-256 over settings and named arrays, in the order given.

    It depends on names, types, shapes and values only, so one set of weights has one fingerprint
    in whatever file format it is kept.
    """
    import numpy as np

    def parts() -> Iterator[str | memoryview]:
        yield canonical_json(dict(settings))
        for name, array in arrays:
            yield canonical_json([name, str(array.dtype), list(array.shape)])
            yield np.ascontiguousarray(array).data

    return hash_of_parts(parts())


def fingerprint_of_files(settings: Mapping[str, object], files: Iterable[Path]) -> str:
    """SHA-256 over settings and the contents of files, in the order given; names do not count."""
    return hash_of(canonical_json([dict(settings), [hash_of_file(file) for file in files]]))


def fingerprint_of_folder(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names, relative to `folder`, and contents of files, in the order given."""
    named = ((file.relative_to(folder).as_posix(), hash_of_file(file)) for file in files)
    return hash_of_parts(part for name, own in named for part in (name, bytes.fromhex(own)))


def open_arrays(
    root: Path, key: str, described: "Mapping[str, tuple[type, tuple[int, ...]]]"
) -> "tuple[Path, dict[str, NDArray[Any]]]":
    """Memory-mapped arrays of zeros by name (type, shape) in a folder of `root`, made where there
    are none yet; several processes may open them at once.

    `key` is all that the values depend on; the folder is named by its hash and holds it in
    meta.json. Returns folder and arrays.
    """
    import numpy as np

    folder = root / hash_of(key)[:24]
    if not folder.is_dir():
        with atomic_folder(folder, replace=False) as partial:
            for name, (dtype, shape) in described.items():
                # A new map is a hole in the file: it takes space as it is filled.
                path = partial / f"{name}.npy"
                np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            (partial / META_FILE).write_text(canonical_json({"key": key}), encoding="utf-8")
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in described.items():
        path = folder / f"{name}.npy"
        try:
            np.load(path, mmap_mode="r")  # to write, numpy would fill up a file that is cut short
            arrays[name] = np.load(path, mmap_mode="r+")
            fits = arrays[name].dtype == dtype and arrays[name].shape == shape
        except (OSError, ValueError, EOFError, SyntaxError):
            fits = False
        if not fits:
            raise DataError(f"{path}: is damaged; remove the folder {folder}, it is made again")
    return folder, arrays


class _Connection(sqlite3.Connection):
    """Takes texts with bytes of file names that are not UTF-8, as `printable` writes them."""

    def execute(self, query: str, values: Any = (), /) -> sqlite3.Cursor:
        """As sqlite3's."""
        return super().execute(query, _storable(values))

    def executemany(self, query: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """As sqlite3's."""
        return super().executemany(query, map(_storable, rows))


def _storable(values: Iterable[object]) -> Row:
    return tuple(printable(one) if isinstance(one, str) else one for one in values)


class Database:
    """One SQLite file, used from several threads and processes, consistent after any kill.

    Errors are DataErrors: `kind` names the file in them, and `hint` says what to do if it is
    damaged. Each thread has its own connection, and so has a process after a fork. With the
    `journal` "wal", readers do not wait for a writer.
    """

    def __init__(self, path: Path, *, kind: str, hint: str, journal: str = "delete") -> None:
        self.path = path
        self._kind, self._hint, self._journal = kind, hint, journal
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
                    self.path,
                    timeout=BUSY_S,
                    isolation_level=None,
                    check_same_thread=False,
                    factory=_Connection,
                )
                try:
                    # It is kept in the file; one that is another's is left as it is.
                    if not opened.execute("SELECT 1 FROM sqlite_master").fetchone():
                        _set_journal(opened, self._journal)
                except sqlite3.Error:
                    opened.close()
                    raise
                self._connections[key] = opened
        return self._connections[key]

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
            # Another process may have created them since.
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
                for statement in statements:
                    connection.execute(statement)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    def meta(self) -> dict[str, str]:
        """The values of the table `meta`."""
        return dict(self.rows("SELECT key, value FROM meta"))

    def check_meta(self, expected: Mapping[str, str]) -> None:
        """DataError where the table `meta` differs from `expected`."""
        found = self.meta()
        for key, value in expected.items():
            if found.get(key) != value:
                raise DataError(
                    f"{self.path}: was made with {key} {found.get(key)!r}, not {value!r}; "
                    "choose another directory"
                )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Within it everything is written or, if an error is raised, nothing."""
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
        """Close the connections of this process."""
        for (process, _), connection in list(self._connections.items()):
            if process == os.getpid():
                connection.close()
        self._connections.clear()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within it SQLite's errors are DataErrors that say what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{self.path}: is damaged or no {self._kind} ({error}); {self._hint}"
            ) from error

    def _unusable(self, error: Exception) -> DataError:
        return DataError(
            f"{self.path}: {error}; see that the disk has room, the folder can be written "
            "and no other program holds the file"
        )


def _set_journal(connection: sqlite3.Connection, journal: str) -> None:
    """Change the journal; SQLite itself does not wait for the lock that this takes."""
    give_up_s = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != journal:
        try:
            connection.execute(f"PRAGMA journal_mode = {journal}")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.01)
