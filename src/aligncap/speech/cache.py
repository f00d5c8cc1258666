"""The tokens of a corpus, made once: under the hash of each sound file, for one tokenizer."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from aligncap.errors import AlignCapError, DataError
from aligncap.speech.store import ClipRecord, TokenStore
from aligncap.storage import hash_of_file
from aligncap.values import SpeechTokenizer, SpeechTokens

_FORMAT = "1"
_FLUSH_S = 5.0
_FLUSH_CLIPS = 64

Progress = Callable[[int], None]
"""Told the number of clips seen so far, after each."""


class Clip(Protocol):
    """A sound file with an id, such as an utterance of a manifest."""

    @property
    def id(self) -> str:
        """Its name, one to a corpus."""

    @property
    def path(self) -> Path:
        """Where the file is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip without tokens, and why."""

    id: str
    path: Path
    reason: str
    """One line that names the file and the cure."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a fill did."""

    added: int
    """Clips encoded now."""
    present: int
    """Clips whose tokens were there already."""
    frames: int
    """Frames of the clips encoded now."""
    failures: tuple[Failure, ...]
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

    def fill(self, clips: Iterable[Clip], progress: Progress | None = None) -> Summary:
        """Encode every clip that has no tokens yet.

        A clip that cannot be read is listed in the summary and the rest goes on. What was done is
        kept however it ends: at most the last 5 s of work are lost to a kill.
        """
        counts = {"added": 0, "present": 0, "frames": 0}
        failures: list[Failure] = []
        flushed_s = time.monotonic()
        try:
            for number, clip in enumerate(clips, start=1):
                try:
                    frames = self._add(clip)
                except (AlignCapError, OSError) as error:
                    failures.append(Failure(clip.id, clip.path, str(error)))
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
        return Summary(**counts, failures=tuple(failures))

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

    def _add(self, clip: Clip) -> int | None:
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

    def _encode(self, clip: Clip, content: str) -> int:
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
    manifest: Iterable[Clip],
    tokenizer: SpeechTokenizer,
    out: str | Path,
    *,
    progress: Progress | None = None,
) -> Summary:
    """Encode the clips of a manifest into the cache in directory `out`; resumes what is there.

    `manifest` is read once, one clip at a time (`corpora.read_manifest(path)` fits). Raises as
    `TokenCache` does; clips that cannot be read are listed in the summary instead.
    """
    with TokenCache(out, tokenizer) as cache:
        return cache.fill(manifest, progress)


def _record(clip: Clip, *, content: str) -> ClipRecord:
    return ClipRecord(clip.id, *_stat(clip.path), content)


def _stat(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
