"""What a corpus check keeps on disk: what was met before, and what was measured of each sound.

Train, validation and test: who goes where, and what lies in more than one part.

Every rule is a pure function of one utterance, so a subset, a shuffle or a corpus that grows
cannot move anybody from validation into training.
"""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from aligncap.data.layouts import Fault, Kind
from aligncap.data.manifest import Utterance, read_manifest, write_manifests
from aligncap.errors import AudioError, DataError, UnknownNameError
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
            self._file, kind="record", hint="run the command again", journal="off"
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
    """Read a sound file, or that of a film, to its end; raises AudioError, with the hint, for one
    that cannot be used."""
    from aligncap.audio import load
    from aligncap.audio.files import read_header

    waveform = load(file)
    if not waveform.samples.any():
        raise AudioError(f"{file}: holds nothing but silence; fetch or export it again")
    return Sound(hash_of_file(file), round(waveform.duration_s, 3), read_header(file)[1])


def read_sound_header(file: Path) -> Sound:
    """What a sound file says of itself, unread and without a hash; AudioError where it is none."""
    from aligncap.audio.files import read_header

    length_s, rate_hz = read_header(file)
    return Sound("", round(length_s, 3), rate_hz)


class SoundBook:
    """Sounds by their files, kept so that a run that was stopped goes on where it was.

    A file that has changed its size or time is read again, by `read`.
    """

    def __init__(self, path: Path, *, read: Callable[[Path], Sound] = read_sound) -> None:
        self._read = read
        self._database = Database(
            path, kind="record of sounds", hint="delete it, it can be made anew"
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


VALIDATION_SPEAKERS = frozenset(
    {
        # RAVDESS: two men, two women.
        *("ravdess_05", "ravdess_10", "ravdess_15", "ravdess_20"),
        # EmoDB: a man and a woman, neither of them one of the three who recorded disgust here.
        *("emodb_10", "emodb_14"),
        # nEMO: a woman.
        "nemo_IC0",
        # ASED: every eighth speaker in the order of their ids.
        *("ased_09", "ased_18", "ased_27", "ased_36", "ased_45", "ased_54", "ased_63"),
        *("emovo_f1", "uem_es_2", "uem_es_8", "turev_db_1358"),
    }
)
"""Speakers that no model of ours is trained on, by whom settings are chosen."""

TEST_SPEAKERS = frozenset(
    {
        *("ravdess_03", "ravdess_04", "ravdess_11", "ravdess_18"),
        *("emodb_03", "emodb_09", "nemo_MK0", "nemo_MP0"),
        *("ased_05", "ased_14", "ased_23", "ased_41", "ased_50", "ased_59"),
        *("emovo_m1", "uem_es_5", "uem_es_11", "turev_db_7895"),
    }
)
"""Speakers that no model of ours is trained on nor chosen by: results are reported on them."""

KEPT_BACK = MappingProxyType({"iesc": (10, 20), "baved": (10, 20), "nonverbal": (15, 30)})
"""Corpora of many speakers → of a hundred speakers how many are for validation, and for it or the
test, by a hash of their names."""

SECAP_SHARE = 0.29
"""Share of secap's audiobook sources kept back, which makes a tenth of its clips."""


def validation_split(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, validation) by the project's fixed speakers, in the order given; test speakers are
    in neither."""
    parts: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
    for utterance in utterances:
        parts[split_of(utterance)].append(utterance)
    return parts["train"], parts["validation"]


def split_of(utterance: Utterance) -> str:
    """ "train", "validation" or "test": by the speaker, in secap by the source."""
    speaker, corpus = utterance.speaker, utterance.corpus or ""
    if corpus == "secap":
        source = secap_source(utterance.id)
        # Each of the few studio voices has more than a tenth of the clips: they are trained on.
        kept = source.startswith("tx_emulate") and _place(source, "validation") < SECAP_SHARE
        return "validation" if kept else "train"
    if corpus in KEPT_BACK and speaker is not None:
        validation, test = KEPT_BACK[corpus]
        place = zlib.crc32(f"aligncap{speaker}".encode()) % 100
        return "validation" if place < validation else "test" if place < test else "train"
    if speaker in TEST_SPEAKERS:
        return "test"
    return "validation" if speaker in VALIDATION_SPEAKERS else "train"


def is_validation(utterance: Utterance) -> bool:
    """Whether an utterance is kept back for validation."""
    return split_of(utterance) == "validation"


def secap_source(utterance_id: str) -> str:
    """The source of a secap clip, which all clips of one voice or one audiobook share.

    `tx_emotion_003…` is a studio voice (three of them, told apart by their spectra),
    `tx_xiao…` a fourth, `tx_emulate_02_006…` an audiobook; chapter and clip numbers follow.
    """
    match = re.match(r"tx_emotion_\d{3}|tx_xiao|tx_emulate_\d\d_\d{3}", utterance_id)
    if match is None:
        raise DataError(f"{utterance_id}: not a secap id (tx_emotion…, tx_xiao… or tx_emulate…)")
    return match.group()


def split_by_hash(key: str, shares: Mapping[str, float], *, salt: str = "") -> str:
    """The name of the part that a key falls into, for shares such as 8:1:1.

    The same key always falls into the same part, whatever else is in the corpus. Use an
    utterance id for a random split and a speaker for a speaker-disjoint one; another salt gives
    another split. Raises DataError if the shares are not positive.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or total <= 0:
        raise DataError(f"shares {dict(shares)}: must be 0 or more, and one of them above 0")
    place, edge = _place(key, salt) * total, 0.0
    for name, share in shares.items():
        edge += share
        if place < edge:
            return name
    # Rounding left a sliver above the last edge.
    return max(shares, key=lambda name: shares[name])


def _place(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on nothing but key and salt."""
    return int(hash_of(f"{salt}\0{key}")[:12], 16) / 2**48


SHARES = {"train": 8.0, "validation": 1.0, "test": 1.0}
"""The paper's 8:1:1 (§4.1)."""

PARTS = tuple(SHARES)
FILES = tuple(f"{part}.jsonl" for part in PARTS)

_SALTS = 1000
_MOST_SPEAKERS = 2000
"""So many speakers leave no part empty."""


def _by_clip(clip: Utterance) -> str:
    return clip.id


def _by_speaker(clip: Utterance) -> str:
    if clip.speaker is not None:
        return clip.speaker
    if clip.corpus == "secap":  # it names no speakers, but its ids tell voices and books apart
        return secap_source(clip.id)
    raise DataError(
        f"{clip.id}: has no speaker, so it cannot be split by speaker; split at random, or give "
        "each clip its speaker"
    )


SPLITS: Mapping[str, Callable[[Utterance], str]] = {"random": _by_clip, "speaker": _by_speaker}
"""What of a clip decides on its part: its id (as the paper splits), or who speaks."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a corpus is split; another salt gives another split."""

    by: str
    salt: str = ""

    def __post_init__(self) -> None:
        if self.by not in SPLITS:
            raise UnknownNameError("split", self.by, SPLITS)

    def part_of(self, clip: Utterance) -> str:
        """The part of a clip, whatever else is in the corpus."""
        return split_by_hash(SPLITS[self.by](clip), SHARES, salt=self.salt)


@dataclass(frozen=True, slots=True)
class Leaks:
    """How many lie in more than one part."""

    speakers: int
    sentences: int
    sounds: int


def meet_in_part(clip: Utterance, part: str, seen: Seen) -> None:
    """Remember in which part a clip's speaker, sentence and sound lie."""
    number = PARTS.index(part)
    if (speaker := clip.speaker) is not None:
        seen.note("speaker in part", speaker, name=speaker, part=number)
    if sentence := sentence_of(clip):
        seen.note("sentence in part", sentence, name=clip.text or sentence, part=number)
    seen.note("sound in part", clip.sha256 or str(clip.path), name=clip.id, part=number)


def sentence_of(clip: Utterance) -> str:
    """What of a clip is equal where the same sentence is spoken; empty where it is not known."""
    if clip.sentence:
        return f"{clip.corpus}/{clip.sentence}"
    return "".join(letter for letter in (clip.text or "").casefold() if letter.isalnum())


def count_leaks(seen: Seen) -> Leaks:
    """How many speakers, sentences and sounds lie in more than one part."""
    speakers, sentences, sounds = (
        sum(1 for _ in seen.shared(f"{kind} in part")) for kind in ("speaker", "sentence", "sound")
    )
    return Leaks(speakers, sentences, sounds)


def leak_faults(seen: Seen, split: Split | None) -> Iterator[Fault]:
    """A sound in two parts is a fault always, a speaker where the split is by speaker.

    A sentence is none: where each speaker says the same ones, no split of clips can part them.
    """
    kinds = ("sound", "speaker") if split and split.by == "speaker" else ("sound",)
    for kind in kinds:
        for one in seen.shared(f"{kind} in part"):
            files = " and ".join(FILES[number] for number in one.parts)
            yield Fault(Kind.LEAK, f"{kind} {one.name}: is in {files}; split the corpus anew")


def empty_parts(seen: Seen, counts: Mapping[str, int], split: Split) -> Iterator[Fault]:
    """A fault for each part without a clip, with a salt that leaves none empty."""
    empty = [part for part in PARTS if not counts[f"{part}.jsonl"]]
    if not empty or not any(counts.values()):
        return
    if split.by != "speaker":
        hint = "the corpus is too small to split; leave out --split, or give another --salt"
    else:
        hint = _better_salt(seen)
    for part in empty:
        yield Fault(Kind.COUNT, f"{part}.jsonl: has no clip; {hint}")


def _better_salt(seen: Seen) -> str:
    speakers = seen.number("speaker in part")
    if not len(PARTS) <= speakers <= _MOST_SPEAKERS:
        return f"{speakers} speakers cannot be split by speaker; split at random"
    clips = dict(seen.times("speaker in part"))
    total = sum(clips.values())
    wanted = {part: share / sum(SHARES.values()) for part, share in SHARES.items()}

    def shares(salt: str) -> dict[str, float]:
        found = dict.fromkeys(PARTS, 0.0)
        for speaker, count in clips.items():
            found[split_by_hash(speaker, SHARES, salt=salt)] += count / total
        return found

    def distance(salt: str) -> float:
        found = shares(salt)
        missing = sum(not share for share in found.values())
        return missing + sum(abs(found[part] - wanted[part]) for part in PARTS)

    best = min((str(salt) for salt in range(_SALTS)), key=distance)
    percents = "/".join(f"{share:.0%}" for share in shares(best).values())
    return f"give --salt {best}, which gives {percents}"


def split_manifest(manifest: Path, out: Path, split: Split, seen: Seen) -> dict[str, int]:
    """Write train.jsonl, validation.jsonl and test.jsonl of a manifest to a folder; their lengths.

    One utterance at a time is held. What lies in more than one part is in `seen` afterwards.
    """

    def files_of(clip: Utterance) -> tuple[str, ...]:
        part = split.part_of(clip)
        meet_in_part(clip, part, seen)
        return (f"{part}.jsonl",)

    return write_manifests(out, read_manifest(manifest), files=FILES, files_of=files_of)
