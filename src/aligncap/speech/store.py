"""One SQLite file of speech tokens: written in short transactions, so a kill loses no more than
what was not yet flushed, and what is read back is always whole."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.storage import Database
from aligncap.values import SpeechTokens

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
