"""Manifests: one JSON object a line for every utterance, read as a stream."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aligncap.corpora.rows import Row, read_rows, text_of, texts_of
from aligncap.errors import DataError
from aligncap.values import EMOTIONS

SAME_EMOTION = {
    "calm": "neutral",
    "boredom": "bored",
    "disgust": "disgusted",
    "anger": "angry",
    "fear": "fearful",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}
"""Corpus names of emotions → the categories of `values.EMOTIONS`."""

GENDERS = ("female", "male")
INTENSITIES = ("normal", "strong")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip of a corpus and what its authors say of it; None where they do not say."""

    id: str
    path: Path
    corpus: str | None = None
    language: str | None = None
    """Of the speech ("en", "pl" …), not of the caption."""
    speaker: str | None = None
    gender: str | None = None
    emotion: str | None = None
    """A category of `values.EMOTIONS`."""
    label: str | None = None
    """The corpus' own word for the emotion: "calm" where the category is "neutral"."""
    intensity: str | None = None
    """"normal" or "strong"."""
    text: str | None = None
    captions: tuple[str, ...] = ()
    """Written by people."""
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise DataError("an utterance needs an id that is not empty")
        for name, value, known in (
            ("gender", self.gender, GENDERS),
            ("emotion", self.emotion, EMOTIONS),
            ("intensity", self.intensity, INTENSITIES),
        ):
            if value is not None and value not in known:
                raise DataError(f"{self.id}: {name} is {value!r}, must be {_either(known)}")
        if self.duration_s is not None and not self.duration_s >= 0:
            raise DataError(f"{self.id}: duration is {self.duration_s}, must be 0 s or more")


def read_manifest(path: str | Path) -> Iterator[Utterance]:
    """The utterances of a JSONL manifest, one at a time and in its order.

    Audio paths are relative to the manifest; blank lines are passed over and unknown keys too.
    Raises DataError, which names the file, the line and the cure, at the first line that is not
    an utterance; what came before has been given out.
    """
    path = Path(path)
    for place, row in read_rows(path, what="manifest"):
        yield _utterance(row, path, place)


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances as a JSONL manifest beside their audio; returns how many.

    The file appears only when it is whole. Audio paths are written relative to it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    count = 0
    with unfinished.open("w", encoding="utf-8") as lines:
        for utterance in utterances:
            lines.write(json.dumps(_row(utterance, path.parent), ensure_ascii=False) + "\n")
            count += 1
    unfinished.replace(path)
    return count


def _utterance(row: Row, manifest: Path, place: str) -> Utterance:
    file = text_of(row, "file", place)
    if file is None:
        raise DataError(f"{place}: has no 'file'; name the clip, relative to the manifest")
    label = text_of(row, "emotion", place)
    try:
        return Utterance(
            id=text_of(row, "id", place) or Path(file).stem,
            path=manifest.parent / file,
            corpus=text_of(row, "corpus", place),
            language=text_of(row, "language", place),
            speaker=text_of(row, "speaker", place),
            gender=text_of(row, "gender", place),
            emotion=SAME_EMOTION.get(label, label) if label else None,
            label=label,
            intensity=text_of(row, "intensity", place),
            text=text_of(row, "text", place),
            captions=texts_of(row, "captions", place),
            duration_s=_seconds(row, place),
        )
    except DataError as error:
        if str(error).startswith(place):
            raise
        raise DataError(f"{place}: {error}") from error


def _seconds(row: Row, place: str) -> float | None:
    value = row.get("duration")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{place}: 'duration' is {value!r}; write seconds as a number")
    return float(value)


def _row(utterance: Utterance, folder: Path) -> dict[str, object]:
    row = {
        "id": utterance.id,
        "file": Path(os.path.relpath(utterance.path, folder)).as_posix(),
        "corpus": utterance.corpus,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "emotion": utterance.label or utterance.emotion,
        "intensity": utterance.intensity,
        "text": utterance.text,
        "captions": list(utterance.captions),
        "duration": utterance.duration_s,
    }
    return {key: value for key, value in row.items() if value not in (None, [])}


def _either(known: tuple[str, ...]) -> str:
    return f"{', '.join(known[:-1])} or {known[-1]}"
