"""What a corpus needs to know of a sound file: that all of it can be read, its length, its hash."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aligncap.audio.suffixes import VIDEO_SUFFIXES
from aligncap.errors import AudioError
from aligncap.storage import Database, hash_of_file

BOOK = "sounds.sqlite"
"""The file, beside a manifest, of what was measured of each sound."""

_SCHEMA = (
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
    from aligncap.audio.refusals import refuse_unopenable

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

    from aligncap.audio.refusals import refuse_foreign, refuse_unopenable

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
        self._database.create(_SCHEMA, {"record_of_sounds": "1"})
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
