"""Hypotheses and references, read from JSON lines; a mistake in them names file and line.

    hypotheses   {"id": "a1", "caption": "A woman shouts."}
    references   {"id": "a1", "captions": ["…", "…"], "file": "a1.wav", "emotion": "angry"}

`file` and `emotion` may be left out; `file` is relative to the references. A line without `id` is
named by the stem of its `file`, so what `aligncap caption --format jsonl` writes is read as
hypotheses as it is: recordings/a1.wav is clip a1. Its lines with `error` instead of `caption` count
as a system that said nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aligncap.corpora.manifest import SAME_EMOTION, Row, read_rows, text_of, texts_of
from aligncap.errors import DataError
from aligncap.scoring.values import ScoredClip


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """What one system said, by clip."""

    source: Path
    captions: Mapping[str, str]
    places: Mapping[str, str]
    """The line of each clip: "h.jsonl:3"."""
    failed: int
    """Lines with `error`: their caption is ""."""


@dataclass(frozen=True, slots=True)
class References:
    """What people, or a corpus, say of each clip; the hypotheses are still empty."""

    source: Path
    clips: Mapping[str, ScoredClip]
    places: Mapping[str, str]


def read_hypotheses(path: Path) -> Hypotheses:
    """One system's captions. Raises DataError, which names file, line and cure."""
    captions: dict[str, str] = {}
    places: dict[str, str] = {}
    failed = 0
    for place, row in _named(path, "hypotheses", places):
        captions[row["id"]] = _hypothesis(row, place)
        failed += "caption" not in row
    return Hypotheses(path, captions, places, failed)


def read_references(path: Path) -> References:
    """What is to be scored against. Raises DataError, which names file, line and cure."""
    clips: dict[str, ScoredClip] = {}
    places: dict[str, str] = {}
    for place, row in _named(path, "references", places):
        written = texts_of(row, "captions", place)
        if not written:
            raise DataError(f"{place}: has no 'captions'; write a list of at least one text")
        file, emotion = text_of(row, "file", place), text_of(row, "emotion", place)
        try:
            clips[row["id"]] = ScoredClip(
                id=row["id"],
                hypothesis="",
                references=tuple(_whole(text, place) for text in written),
                file=path.parent / file if file else None,
                emotion=SAME_EMOTION.get(emotion, emotion) if emotion else None,
            )
        except DataError as error:
            raise (
                error if str(error).startswith(place) else DataError(f"{place}: {error}")
            ) from error
    return References(path, clips, places)


def clips_of(hypotheses: Hypotheses, references: References) -> list[ScoredClip]:
    """Each clip of the references with its hypothesis, in the order of the references.

    Raises DataError where a clip is in one file only: a system may not choose what it is scored on.
    """
    for name, place in hypotheses.places.items():
        if name not in references.clips:
            raise DataError(
                f"{place}: clip {name!r} has no reference in {references.source}; "
                "add one or remove the line"
            )
    for name, place in references.places.items():
        if name not in hypotheses.captions:
            raise DataError(
                f"{place}: clip {name!r} has no hypothesis in {hypotheses.source}; "
                'add one ("caption": "" where the system said nothing) or remove the line'
            )
    return [
        replace(clip, hypothesis=hypotheses.captions[name])
        for name, clip in references.clips.items()
    ]


def _named(path: Path, what: str, places: dict[str, str]) -> Iterator[tuple[str, Row]]:
    """Rows with their `id` found out; it is entered into `places`, where it must be new."""
    for place, row in read_rows(path, what=what):
        name, file = text_of(row, "id", place), text_of(row, "file", place)
        if name is None and file is None:
            raise DataError(f"{place}: has no 'id'; name the clip")
        row["id"] = name or Path(file or "").stem
        if row["id"] in places:
            raise DataError(
                f"{place}: clip {row['id']!r} is in line {places[row['id']].rpartition(':')[2]} "
                "already; keep one of the two"
            )
        places[row["id"]] = place
        yield place, row
    if not places:
        raise DataError(f"{path}:1: the {what} are empty; write one JSON object a line")


def _hypothesis(row: Row, place: str) -> str:
    if "caption" in row:
        caption = row["caption"]
        if not isinstance(caption, str):
            raise DataError(f"{place}: 'caption' is {caption!r}; write it as text in quotes")
        return _whole(caption, place)
    if text_of(row, "error", place) is None:
        raise DataError(f"{place}: has no 'caption'; write \"\" where the system said nothing")
    return ""


def _whole(text: str, place: str) -> str:
    """The text, where it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: holds half of a surrogate pair ({text[error.start]!a}); write the whole one"
        ) from error
    return text
