"""One SQLite file of speech tokens: written in short transactions, so a kill loses no more than
what was not yet flushed, and what is read back is always whole.

The tokens of a corpus, made once: under the hash of each sound file, for one tokenizer.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import AlignCapError, DataError
from aligncap.storage import Database, hash_of_file
from aligncap.values import SpeechTokenizer, SpeechTokens

_SCHEMA = (
    "CREATE TABLE tokens (content TEXT PRIMARY KEY, codes BLOB NOT NULL, readout TEXT NOT NULL)",
    "CREATE TABLE clips (id TEXT PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " modified_ns INTEGER NOT NULL, content TEXT NOT NULL)",
    "CREATE INDEX clips_by_path ON clips (path)",
)


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """A clip as it was when its tokens were made."""

    id: str
    path: str
    bytes: int
    modified_ns: int
    content: str
    """SHA-256 of the file."""

    def is_still(self, other: "ClipRecord") -> bool:
        """Whether the file looks untouched: same place, size and time."""
        return (self.path, self.bytes, self.modified_ns) == (
            other.path,
            other.bytes,
            other.modified_ns,
        )


class TokenStore:
    """Tokens by the hash of their sound file, and clips by id; one tokenizer a file.

    `meta` says what the tokens were made with; it must hold `codebooks` and `codebook_size`.
    Opening a file that was made with something else, or that is damaged, is a DataError. Readers
    in other processes may work while one writes; a store may be used after a fork.
    """

    def __init__(self, path: Path, meta: Mapping[str, str]) -> None:
        self.path = path
        self._codebooks = int(meta["codebooks"])
        self._codebook_size = int(meta["codebook_size"])
        self._dtype = np.dtype("<u2" if self._codebook_size <= 1 << 16 else "<u4")
        self._new_tokens: dict[str, tuple[bytes, str]] = {}
        self._new_clips: dict[str, ClipRecord] = {}
        self._database = Database(
            path, kind="token cache", cure="delete it, its tokens can be made anew"
        )
        self._database.create(_SCHEMA, dict(meta))
        self._database.check_meta(meta)

    def __len__(self) -> int:
        """Clips whose tokens are here."""
        self.flush()
        query = "SELECT count(*) FROM clips JOIN tokens USING (content)"
        return int(self._database.row(query)[0])

    def ids(self) -> Iterator[str]:
        """Ids of the clips, sorted, one at a time."""
        self.flush()
        for (clip_id,) in self._database.stream("SELECT id FROM clips ORDER BY id"):
            yield str(clip_id)

    def clip(self, clip_id: str) -> ClipRecord | None:
        """The clip of that id, or None."""
        if clip_id in self._new_clips:
            return self._new_clips[clip_id]
        row = self._database.row("SELECT * FROM clips WHERE id = ?", (clip_id,))
        return ClipRecord(*row) if row else None

    def clips_at(self, path: str) -> list[ClipRecord]:
        """The clips that were read from that path."""
        self.flush()
        rows = self._database.rows("SELECT * FROM clips WHERE path = ?", (path,))
        return [ClipRecord(*row) for row in rows]

    def has(self, content: str) -> bool:
        """Whether the tokens of that content are here."""
        return content in self._new_tokens or bool(
            self._database.row("SELECT 1 FROM tokens WHERE content = ?", (content,))
        )

    def tokens(self, content: str) -> SpeechTokens | None:
        """The tokens of that content, or None."""
        self.flush()
        query = "SELECT codes, readout FROM tokens WHERE content = ?"
        row = self._database.row(query, (content,))
        if not row:
            return None
        return SpeechTokens(self._unpack(row[0]), json.loads(row[1]))

    def add_tokens(self, content: str, tokens: SpeechTokens) -> None:
        """Keep tokens; on disk after `flush`. DataError for codes the tokenizer cannot give."""
        readout = {name: dict(values) for name, values in tokens.readout.items()}
        self._new_tokens[content] = (self._pack(tokens.codes), json.dumps(readout))

    def add_clip(self, clip: ClipRecord) -> None:
        """Remember where a content was found; on disk after `flush`."""
        self._new_clips[clip.id] = clip

    def flush(self) -> None:
        """Write what was added, in one transaction."""
        if not (self._new_tokens or self._new_clips):
            return
        tokens = [(content, *row) for content, row in self._new_tokens.items()]
        clips = [
            (clip.id, clip.path, clip.bytes, clip.modified_ns, clip.content)
            for clip in self._new_clips.values()
        ]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)", tokens)
            connection.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?, ?, ?)", clips)
        self._new_tokens.clear()
        self._new_clips.clear()

    def close(self) -> None:
        """Flush and close; the store cannot be used afterwards."""
        self.flush()
        self._database.close()

    def _pack(self, codes: NDArray[np.int64]) -> bytes:
        if codes.shape[0] != self._codebooks or (
            codes.size and not 0 <= codes.min() <= codes.max() < self._codebook_size
        ):
            raise DataError(
                f"{self.path}: codes of shape {codes.shape} do not fit {self._codebooks} codebooks "
                f"of {self._codebook_size} entries; the tokenizer is at fault"
            )
        return codes.astype(self._dtype).tobytes()

    def _unpack(self, packed: bytes) -> NDArray[np.int64]:
        if len(packed) % (self._codebooks * self._dtype.itemsize):
            raise DataError(f"{self.path}: holds a torn record; delete it and make it anew")
        return np.frombuffer(packed, self._dtype).reshape(self._codebooks, -1).astype(np.int64)


_FORMAT = "1"
_FLUSH_S = 5.0
_FLUSH_CLIPS = 64

Progress = Callable[[int], None]
"""Told the number of clips seen so far, after each."""


class CorpusClip(Protocol):
    """A sound file with an id, such as an utterance of a manifest."""

    @property
    def id(self) -> str:
        """Its name, one to a corpus."""

    @property
    def path(self) -> Path:
        """Where the file is."""


@dataclass(frozen=True, slots=True)
class TokenizeFailure:
    """A clip without tokens, and why."""

    id: str
    path: Path
    reason: str
    """One line that names the file and the cure."""


@dataclass(frozen=True, slots=True)
class TokenizeSummary:
    """What a fill did."""

    added: int
    """Clips encoded now."""
    present: int
    """Clips whose tokens were there already."""
    frames: int
    """Frames of the clips encoded now."""
    failures: tuple[TokenizeFailure, ...]
    """Clips that could not be encoded; the others were."""


class TokenCache:
    """Tokens of one corpus from one tokenizer, in one file of `directory`.

    The file's name carries the tokenizer's fingerprint, so another tokenizer, depth or set of
    weights never meets these tokens. A file that changes is encoded again. Memory does not grow
    with the corpus. Raises DataError if the file is damaged or cannot be written.
    """

    def __init__(self, directory: str | Path, tokenizer: SpeechTokenizer) -> None:
        self._tokenizer = tokenizer
        name = f"{tokenizer.name}-{tokenizer.fingerprint[:16]}.sqlite"
        self._store = TokenStore(
            Path(directory) / name,
            {
                "format": _FORMAT,
                "tokenizer": tokenizer.name,
                "fingerprint": tokenizer.fingerprint,
                "codebooks": str(tokenizer.codebooks),
                "codebook_size": str(tokenizer.codebook_size),
                "frame_rate_hz": str(tokenizer.frame_rate_hz),
            },
        )

    @property
    def path(self) -> Path:
        """The file the tokens are in."""
        return self._store.path

    def __len__(self) -> int:
        """How many clips have tokens."""
        return len(self._store)

    def __iter__(self) -> Iterator[str]:
        """The clips' ids, sorted."""
        return self._store.ids()

    def get(self, clip: str | Path) -> SpeechTokens:
        """The tokens of a clip by its id (a string) or of a sound file (a Path).

        An id is looked up and nothing else, the sound file need not be there any more. A file is
        recognised by place, size and time, or else by its content. Raises DataError where there
        are no tokens; OSError where a file cannot be read.
        """
        content = self._content_at(clip) if isinstance(clip, Path) else self._content_of(clip)
        tokens = self._store.tokens(content) if content else None
        if tokens is None:
            raise DataError(
                f"{clip}: no tokens of it in {self.path}; make them with: aligncap tokens"
            )
        return tokens

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
                    self._store.flush()
                    flushed_s = time.monotonic()
                if progress:
                    progress(number)
        finally:
            self._store.flush()
        return TokenizeSummary(**counts, failures=tuple(failures))

    def close(self) -> None:
        """Write what is left and let go of the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add(self, clip: CorpusClip) -> int | None:
        """Frames of a clip encoded now; None if its tokens were there."""
        known = self._store.clip(clip.id)
        seen = _record(clip, content=known.content if known else "")
        if known and known.is_still(seen) and self._store.has(known.content):
            return None
        record = _record(clip, content=hash_of_file(clip.path))
        if known and known.path != record.path and known.content != record.content:
            raise DataError(
                f"{clip.path}: its id {clip.id!r} belongs to {known.path} in {self.path}; "
                "keep one cache directory a corpus"
            )
        frames = None if self._store.has(record.content) else self._encode(clip, record.content)
        self._store.add_clip(record)
        return frames

    def _encode(self, clip: CorpusClip, content: str) -> int:
        # Imported on use: reading tokens needs no sound library.
        from aligncap.audio import load

        tokens = self._tokenizer.encode(load(clip.path))
        self._store.add_tokens(content, tokens)
        return int(tokens.codes.shape[1])

    def _content_of(self, clip_id: str) -> str | None:
        record = self._store.clip(clip_id)
        return record.content if record else None

    def _content_at(self, path: Path) -> str:
        seen = _stat(path)
        for record in self._store.clips_at(seen[0]):
            if (record.path, record.bytes, record.modified_ns) == seen:
                return record.content
        return hash_of_file(path)


def tokenize_manifest(
    manifest: Iterable[CorpusClip],
    tokenizer: SpeechTokenizer,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> TokenizeSummary:
    """Encode the clips of a manifest into the cache in directory `out`; resumes what is there.

    `manifest` is read once, one clip at a time (`corpora.read_manifest(path)` fits). Raises as
    `TokenCache` does; clips that cannot be read are listed in the summary instead.
    """
    with TokenCache(out, tokenizer) as cache:
        return cache.fill(manifest, progress)


def _record(clip: CorpusClip, *, content: str) -> ClipRecord:
    return ClipRecord(clip.id, *_stat(clip.path), content)


def _stat(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
