"""Clips of one's own with labels or captions: a manifest, a table, folders called like emotions."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aligncap.data.captioned import find_folder
from aligncap.data.layouts import Fault
from aligncap.data.manifest import (
    SAME_EMOTION,
    Utterance,
    labelled,
    read_csv,
    read_each_utterance,
    utterance_of_row,
)
from aligncap.errors import DataError
from aligncap.values import EMOTIONS

LEAST_CLIPS = 5
"""Of each emotion."""
LEAST_CAPTIONS = 20
"""Clips with captions, from which on a language model learns from them."""

MANIFEST = "manifest.jsonl"
TABLES = {".csv": ",", ".tsv": "\t"}
"""Suffixes of tables with a heading (file, emotion, speaker, caption …) and what parts their
columns."""


@dataclass(frozen=True, slots=True)
class OwnClips:
    """The clips of a folder, manifest or table, and what is wrong with others."""

    clips: tuple[Utterance, ...]
    faults: tuple[str, ...]
    """One line each, with the place."""

    @property
    def emotions(self) -> Counter[str]:
        """Clips of each emotion."""
        return Counter(one.emotion for one in self.clips if one.emotion)

    @property
    def speakers(self) -> int:
        """Different speakers, where every clip names one; else 0."""
        names = {one.speaker for one in self.clips}
        return 0 if None in names else len(names)

    @property
    def captioned(self) -> int:
        """Clips with captions of people."""
        return sum(bool(one.captions) for one in self.clips)


def read_clips(source: Path) -> OwnClips:
    """The clips of a manifest (.jsonl), a table (.csv, .tsv) or a folder.

    A folder holds a manifest.jsonl, or sound files in folders that are called like the emotions
    (`sad/…`, `SPEAKER/sad/…`, `sad/SPEAKER/…`), captions in a .txt beside each, or both. Clips
    that cannot be used are faults and the rest goes on. DataError where there is nothing to read.
    """
    clips: list[Utterance] = []
    faults: list[str] = []
    seen: set[str] = set()
    for found in _found(source):
        if not isinstance(found, Utterance):
            faults.append(str(found))
            continue
        clip = labelled(found)
        if clip.id in seen:
            faults.append(f"{clip.id}: is there twice; give each clip an id of its own")
        elif not clip.path.is_file():
            faults.append(f"{clip.path}: no such file; put it there or remove its line")
        elif clip.emotion is None and not clip.captions:
            faults.append(f"{clip.path}: has neither an emotion nor a caption; label it")
        else:
            seen.add(clip.id)
            clips.append(clip)
    return OwnClips(tuple(clips), tuple(faults))


def _found(source: Path) -> Iterator["Utterance | DataError | Fault"]:
    if source.is_dir():
        if (source / MANIFEST).is_file():
            yield from _found(source / MANIFEST)
        else:
            found = find_folder(source)
            yield from (
                _placed(one, source) if isinstance(one, Utterance) else one for one in found
            )
    elif source.suffix.lower() in TABLES:
        yield from _of_table(source)
    else:
        yield from (one for _, one in read_each_utterance(source))


def emotion_named(name: str) -> str | None:
    """The emotion category that a folder's name is, "Sadness" as well as "sad"."""
    word = name.strip().lower()
    word = SAME_EMOTION.get(word, word)
    return word if word in EMOTIONS else None


def _placed(clip: Utterance, source: Path) -> Utterance:
    """A clip of a folder with the emotion and the speaker that the folders above it name."""
    folders = clip.path.relative_to(source).parts[:-1]
    named = next((one for one in reversed(folders) if emotion_named(one)), None)
    others = [one for one in folders if one != named]
    emotion = clip.emotion or (emotion_named(named) if named else None)
    speaker = clip.speaker or (others[-1] if others and named else None)
    return replace(clip, emotion=emotion, speaker=speaker)


def _of_table(path: Path) -> Iterator[Utterance | DataError]:
    """The clips of a table; "caption" and "captions" are one caption a row."""
    for place, row in read_csv(path, what="table", delimiter=TABLES[path.suffix.lower()]):
        if isinstance(row, DataError):
            yield row
            continue
        told: dict[str, Any] = {
            key.strip().lower(): (cell or "").strip() for key, cell in row.items()
        }
        written = [told.pop(key, "") for key in ("caption", "captions")]
        told["captions"] = [one for one in written if one]
        told["emotion"] = told.get("emotion", "").lower()
        told.pop("duration", None)
        try:
            yield utterance_of_row(told, folder=path.parent, place=place)
        except DataError as error:
            yield error


def check_clips(found: OwnClips) -> None:
    """DataError where there is too little to learn from."""
    counts = found.emotions
    few = [f"{count} of {name}" for name, count in sorted(counts.items()) if count < LEAST_CLIPS]
    if few:
        raise DataError(
            f"only {', '.join(few)} can be used; give at least {LEAST_CLIPS} clips of each "
            "emotion, or leave those out"
        )
    if len(counts) < 2 and found.captioned < LEAST_CAPTIONS:
        what = f"every clip is {next(iter(counts))}" if counts else "no clip has an emotion"
        first = f" (the first fault: {found.faults[0]})" if found.faults else ""
        raise DataError(
            f"{what}; give clips of two emotions or more, or {LEAST_CAPTIONS} clips "
            f"with captions{first}"
        )
