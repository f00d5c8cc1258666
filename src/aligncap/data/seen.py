"""What a corpus check keeps on disk: what was met before, and what was measured of each sound."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aligncap.audio.files import VIDEO_SUFFIXES
from aligncap.errors import AudioError
from aligncap.storage import Database, Row, hash_of, hash_of_file

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


BOOK = "sounds.sqlite"
"""The file, beside a manifest, of what was measured of each sound."""

_SOUNDS_SCHEMA = (
    "CREATE TABLE sounds (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL,"
    " modified_ns INTEGER NOT NULL, sha256 TEXT NOT NULL, duration_s REAL NOT NULL,"
    " rate_hz INTEGER NOT NULL)",
)
_FLUSH_CLIPS = 256


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file that was read to its end."""

    sha256: str
    duration_s: float
    rate_hz: int


def read_sound(file: Path) -> Sound:
    """Read a sound file to its end; raises AudioError, with the cure, for one that cannot be used.

    A film is refused with the line that takes its sound out.
    """
    import soundfile

    from aligncap.audio import load
    from aligncap.audio.files import refuse_unopenable

    refuse_unopenable(file)
    if file.suffix.lower() in VIDEO_SUFFIXES:
        raise AudioError(
            f"{file}: is a film, of which the sound is not read here; take it out: "
            f"ffmpeg -i {file} -vn -ac 1 -ar 16000 {file.with_suffix('.wav')}"
        )
    waveform = load(file)
    if not waveform.samples.any():
        raise AudioError(f"{file}: holds nothing but silence; fetch or export it again")
    sha256 = hash_of_file(file)
    with file.open("rb") as opened:
        rate_hz = int(soundfile.info(opened).samplerate)
    return Sound(sha256, round(waveform.duration_s, 3), rate_hz)


def read_header(file: Path) -> Sound:
    """What a sound file says of itself, unread and without a hash; AudioError where it is none."""
    import soundfile

    from aligncap.audio.files import refuse_foreign, refuse_unopenable

    refuse_unopenable(file)
    refuse_foreign(file)
    try:
        with file.open("rb") as opened:
            info = soundfile.info(opened)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{file}: is damaged or no sound; fetch or export it again") from error
    return Sound("", round(info.frames / info.samplerate, 3), int(info.samplerate))


class SoundBook:
    """Sounds by their files, kept so that a run that was stopped goes on where it was.

    A file that has changed its size or time is read again, by `read`.
    """

    def __init__(self, path: Path, *, read: Callable[[Path], Sound] = read_sound) -> None:
        self._read = read
        self._database = Database(
            path, kind="record of sounds", cure="delete it, it can be made anew"
        )
        self._database.create(_SOUNDS_SCHEMA, {"record_of_sounds": "1"})
        self._new: list[tuple[object, ...]] = []

    def sound(self, file: Path) -> Sound:
        """The sound of a file, from the record or read now; raises as `read_sound` does."""
        try:
            status = file.stat()
        except OSError:
            return self._read(file)  # which says what is wrong with it
        seen = (os.fspath(file.resolve()), status.st_size, status.st_mtime_ns)
        row = self._database.row(
            "SELECT sha256, duration_s, rate_hz FROM sounds"
            " WHERE path = ? AND bytes = ? AND modified_ns = ?",
            seen,
        )
        if row:
            return Sound(*row)
        sound = self._read(file)
        self._new.append((*seen, sound.sha256, sound.duration_s, sound.rate_hz))
        if len(self._new) >= _FLUSH_CLIPS:
            self.flush()
        return sound

    def flush(self) -> None:
        """Write what was read, in one transaction."""
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO sounds VALUES (?,?,?,?,?,?)", self._new)
        self._new.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        self._database.close()
