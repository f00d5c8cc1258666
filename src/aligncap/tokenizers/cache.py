"""What is computed once from the sound of a corpus and kept on disk: speech tokens and samples.

Tokens are in one SQLite file for each tokenizer, under the hash of their sound file, written in
short transactions, so that a kill loses the last seconds of work only; vectors of a speech encoder
that gives vectors are in it too, in half precision. Decoded samples, what the built-in encoder is
trained on, are an int16 array in a folder.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import AlignCapError, DataError
from aligncap.storage import Database, hash_of_file, printable, write_atomic
from aligncap.values import SpeechFeatures, SpeechTokenizer, SpeechTokens, Waveform

_SCHEMA = (
    "CREATE TABLE tokens (content TEXT PRIMARY KEY, codes BLOB NOT NULL, readout TEXT NOT NULL)",
    "CREATE TABLE clips (id TEXT PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " modified_ns INTEGER NOT NULL, content TEXT NOT NULL)",
    "CREATE INDEX clips_by_path ON clips (path)",
)
_FEATURES = "CREATE TABLE features (content TEXT PRIMARY KEY, vectors BLOB NOT NULL)"
_BY_ID = "SELECT * FROM clips WHERE id = ?"
_FORMAT = "1"
_FLUSH_S = 5.0
_FLUSH_CLIPS = 64

Progress = Callable[[int], None]
"""Called after each clip with the number of clips done."""


class CorpusClip(Protocol):
    """A sound file with an id, such as an utterance of a manifest."""

    @property
    def id(self) -> str:
        """Its name, unique in the corpus."""

    @property
    def path(self) -> Path:
        """Where the file is."""


@dataclass(frozen=True, slots=True)
class TokenizeFailure:
    """A clip without tokens, and why."""

    id: str
    path: Path
    reason: str
    """One line that names the file and a hint."""


@dataclass(frozen=True, slots=True)
class TokenizeSummary:
    """What `TokenCache.fill` did."""

    added: int
    """Clips encoded now."""
    present: int
    """Clips whose tokens were there already."""
    frames: int
    """Frames of the clips encoded now."""
    failures: tuple[TokenizeFailure, ...]
    """Clips that could not be encoded; the others were."""


@dataclass(frozen=True, slots=True)
class _ClipRow:
    """A clip as it was when its tokens were made: a row of the table `clips`."""

    id: str
    path: str
    bytes: int
    modified_ns: int
    content: str
    """SHA-256 of the file."""

    @property
    def stat(self) -> tuple[str, int, int]:
        """Place, size and time, by which an untouched file is recognised."""
        return self.path, self.bytes, self.modified_ns


def _stat(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return printable(str(path.resolve())), stat.st_size, stat.st_mtime_ns


class TokenCache:
    """Tokens of one corpus from one tokenizer, in one file of `directory`.

    The file's name carries the tokenizer's fingerprint, so another tokenizer, depth or set of
    weights never meets these tokens. A file that changes is encoded again. Memory does not grow
    with the corpus. Other processes may read while one writes, and a cache may be used after a
    fork. DataError if the file is damaged, of another tokenizer or cannot be written.
    """

    def __init__(self, directory: str | Path, tokenizer: SpeechTokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype = np.dtype("<u2" if tokenizer.codebook_size <= 1 << 16 else "<u4")
        self._books, self._entries = tokenizer.codebooks, tokenizer.codebook_size
        self.path = Path(directory) / f"{tokenizer.name}-{tokenizer.fingerprint[:16]}.sqlite"
        self._width: int = getattr(tokenizer, "feature_width", 0)
        self._new_tokens: dict[str, tuple[bytes, str]] = {}
        self._new_features: dict[str, bytes] = {}
        self._new_clips: dict[str, _ClipRow] = {}
        self._database = Database(
            self.path, kind="token cache", hint="delete it, its tokens can be made anew"
        )
        meta = {
            "format": _FORMAT,
            "tokenizer": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebooks": str(tokenizer.codebooks),
            "codebook_size": str(tokenizer.codebook_size),
            "frame_rate_hz": str(tokenizer.frame_rate_hz),
        }
        self._database.create((*_SCHEMA, *([_FEATURES] if self._width else [])), meta)
        self._database.check_meta(meta)

    @cached_property
    def _store(self) -> "FeatureStore":
        return FeatureStore(self.path, self._tokenizer.fingerprint)

    def __len__(self) -> int:
        """How many clips have tokens."""
        self._flush()
        query = "SELECT count(*) FROM clips JOIN tokens USING (content)"
        return int(self._database.row(query)[0])

    def __iter__(self) -> Iterator[str]:
        """The clips' ids, sorted, one at a time."""
        self._flush()
        for (clip_id,) in self._database.stream("SELECT id FROM clips ORDER BY id"):
            yield str(clip_id)

    def get(self, clip: str | Path) -> SpeechTokens:
        """The tokens of a clip by its id (a string) or of a sound file (a Path).

        The sound file of an id need not be there any more. A file is recognised by place, size
        and time, or else by its content. DataError where there are no tokens; OSError where a
        file cannot be read.
        """
        self._flush()
        if isinstance(clip, Path):
            stat = _stat(clip)
            rows = self._clips("SELECT * FROM clips WHERE path = ?", stat[0])
            content = next((row.content for row in rows if row.stat == stat), "")
            content = content or hash_of_file(clip)
        else:
            content = next((row.content for row in self._clips(_BY_ID, clip)), "")
        query = "SELECT codes, readout FROM tokens WHERE content = ?"
        row = self._database.row(query, (content,))
        if not row:
            raise DataError(
                f"{clip}: no tokens of it in {self.path}; make them with: aligncap tokens"
            )
        codes, readout = self._unpack(row[0]), json.loads(row[1])
        if not self._width:
            return SpeechTokens(codes, readout)
        return SpeechTokens(codes, readout, features=self._store.features(content))

    def fill(
        self, clips: Iterable[CorpusClip], progress: Progress | None = None
    ) -> TokenizeSummary:
        """Encode every clip that has no tokens yet.

        A clip that cannot be read is listed in the summary and the rest goes on. What was done is
        kept however it ends: at most the last 5 s of work are lost to a kill.
        """
        counts = {"added": 0, "present": 0, "frames": 0}
        failures: list[TokenizeFailure] = []
        flushed_s = time.monotonic()
        try:
            for number, clip in enumerate(clips, start=1):
                try:
                    frames = self._add(clip)
                except (AlignCapError, OSError) as error:
                    failures.append(TokenizeFailure(clip.id, clip.path, str(error)))
                else:
                    counts["present" if frames is None else "added"] += 1
                    counts["frames"] += frames or 0
                if number % _FLUSH_CLIPS == 0 or time.monotonic() - flushed_s > _FLUSH_S:
                    self._flush()
                    flushed_s = time.monotonic()
                if progress:
                    progress(number)
        finally:
            self._flush()
        return TokenizeSummary(**counts, failures=tuple(failures))

    def put(self, tokens: SpeechTokens) -> SpeechTokens:
        """Keep vectors that were made of no sound file, by their content; returns the tokens as
        `get` would."""
        assert tokens.features is not None
        key = tokens.features.key
        self._keep(key, tokens)
        return SpeechTokens(tokens.codes, tokens.readout, features=self._store.features(key))

    def _keep(self, content: str, tokens: SpeechTokens) -> None:
        readout = {name: dict(values) for name, values in tokens.readout.items()}
        self._new_tokens[content] = self._pack(tokens.codes), json.dumps(readout)
        if tokens.features is not None:
            vectors = tokens.features.read()
            self._new_features[content] = vectors.astype("<f2").tobytes()

    def close(self) -> None:
        """Write what is left and close the file."""
        self._flush()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, clip: CorpusClip) -> int | None:
        """Frames of a clip encoded now; None if its tokens were there."""
        stored = self._new_clips.get(clip.id) or next(iter(self._clips(_BY_ID, clip.id)), None)
        stat = _stat(clip.path)
        if stored and stored.stat == stat and self._has(stored.content):
            return None
        row = _ClipRow(clip.id, *stat, hash_of_file(clip.path))
        if stored and stored.path != row.path and stored.content != row.content:
            raise DataError(
                f"{clip.path}: its id {clip.id!r} belongs to {stored.path} in {self.path}; "
                "keep one cache directory a corpus"
            )
        frames = None
        if not self._has(row.content):
            # Imported on use: reading tokens needs no sound library.
            from aligncap.audio import load

            tokens = self._tokenizer.encode(load(clip.path))
            self._keep(row.content, tokens)
            frames = int(tokens.codes.shape[1])
        self._new_clips[clip.id] = row
        return frames

    def _clips(self, query: str, value: str) -> list[_ClipRow]:
        return [_ClipRow(*row) for row in self._database.rows(query, (value,))]

    def _has(self, content: str) -> bool:
        query = "SELECT 1 FROM tokens WHERE content = ?"
        return content in self._new_tokens or bool(self._database.row(query, (content,)))

    def _flush(self) -> None:
        """Write what was added, in one transaction."""
        if not (self._new_tokens or self._new_clips):
            return
        tokens = [(content, *row) for content, row in self._new_tokens.items()]
        clips = [(row.id, *row.stat, row.content) for row in self._new_clips.values()]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)", tokens)
            connection.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?)", clips)
            for content, vectors in self._new_features.items():
                connection.execute(
                    "INSERT OR IGNORE INTO features VALUES (?, ?)", (content, vectors)
                )
        self._new_tokens.clear()
        self._new_features.clear()
        self._new_clips.clear()

    def _pack(self, codes: NDArray[np.int64]) -> bytes:
        if codes.shape[0] != self._books or (
            codes.size and not 0 <= codes.min() <= codes.max() < self._entries
        ):
            raise DataError(
                f"{self.path}: codes of shape {codes.shape} do not fit {self._books} codebooks "
                f"of {self._entries} entries; the tokenizer is at fault"
            )
        return codes.astype(self._dtype).tobytes()

    def _unpack(self, packed: bytes) -> NDArray[np.int64]:
        if len(packed) % (self._books * self._dtype.itemsize):
            raise DataError(f"{self.path}: holds a torn record; delete it and make it anew")
        return np.frombuffer(packed, self._dtype).reshape(self._books, -1).astype(np.int64)


class FeatureStore:
    """The vectors of a token cache, read one clip at a time by the hash of its sound file; the
    speech encoder need not be here. DataError where the file is not there or is of another one."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        if not path.is_file():
            raise DataError(f"{path}: no such token cache; make the rows again, which fills it")
        self._database = Database(
            path, kind="token cache", hint="delete it, its tokens can be made anew"
        )
        self._database.check_meta({"format": _FORMAT, "fingerprint": fingerprint})
        self._path = path

    def features(self, content: str) -> SpeechFeatures:
        """The vectors of a clip, read when they are asked for."""
        return SpeechFeatures(content, partial(self._read, content))

    def _read(self, content: str) -> NDArray[np.float32]:
        query = (
            "SELECT vectors, length(codes) FROM features JOIN tokens USING (content) "
            "WHERE content = ?"
        )
        row = self._database.row(query, (content,))
        if not row or not row[1]:
            raise DataError(
                f"{self._path}: holds no vectors of {content[:12]}; make the rows again"
            )
        # One code of two bytes is counted for each frame.
        return np.frombuffer(row[0], "<f2").reshape(row[1] // 2, -1).astype(np.float32)


def tokenize_manifest(
    manifest: Iterable[CorpusClip],
    tokenizer: SpeechTokenizer,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> TokenizeSummary:
    """Encode the clips of a manifest into the cache in directory `out`; resumes what is there.

    `manifest` is read once, one clip at a time (`data.manifest.read_manifest` fits). Raises as
    `TokenCache` does; clips that cannot be read are listed in the summary instead.
    """
    with TokenCache(out, tokenizer) as cache:
        return cache.fill(manifest, progress)


_LISTING = "files.txt"

UTTERANCES = "utterances, 1"
"""What is read of a file (`encoder_training.load_utterance`): another number where that changes."""


class WaveformStore:
    """The samples of many clips, one after another, in one int16 array on disk."""

    def __init__(self, folder: Path) -> None:
        self.fingerprint = hash_of_file(folder / _LISTING)
        """Of the files as they were when they were read, and of what is read of a file."""
        self.samples: NDArray[np.int16] = np.load(folder / "samples.npy", mmap_mode="r+")
        ends: NDArray[np.int64] = np.load(folder / "ends.npy", allow_pickle=False)
        self.starts = np.concatenate((ends[:1] * 0, ends[:-1]))
        self.lengths = ends - self.starts


def store_waveforms(
    folder: Path, paths: Sequence[Path], read: Callable[[Path], Waveform]
) -> WaveformStore:
    """The samples of every file, from `folder` where it lists the same untouched files in the same
    order, else read into it. DataError for no files; OSError for one that is not there."""
    stats = ("\t".join(map(str, _stat(path))) for path in paths)
    listing = "\n".join([UTTERANCES, *stats])
    done = folder / _LISTING
    if done.exists() and done.read_text(encoding="utf-8") == listing:
        return WaveformStore(folder)
    if not paths:
        raise DataError(f"{folder}: no clips to read; name a manifest that is not empty")
    from rich.console import Console
    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    # A folder without a listing is not finished.
    done.unlink(missing_ok=True)
    ends = []
    with _GrowingArray(folder / "samples.npy") as samples:
        for path in track(paths, "reading sound", console=Console(stderr=True)):
            samples.append(np.rint(read(path).samples * 32767).astype("<i2"))
            ends.append(samples.count)
    np.save(folder / "ends.npy", np.array(ends))
    write_atomic(done, listing)
    return WaveformStore(folder)


class _GrowingArray:
    """An int16 .npy file written a piece at a time, complete when its context ends."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.count = 0
        self._write_header()

    def append(self, samples: NDArray[np.int16]) -> None:
        """Add samples."""
        self._file.write(samples.tobytes())
        self.count += len(samples)

    def _write_header(self) -> None:
        # Numpy leaves room in it for a first axis that grows.
        header = {"descr": "<i2", "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()
