"""Manifests: one JSON object a line for every utterance, read as a stream."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path, PurePath

from aligncap.corpora.rows import Row, read_each_row, read_rows, text_of, texts_of
from aligncap.errors import DataError
from aligncap.storage import atomic_file
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
    sentence: str | None = None
    """The corpus' code of the sentence spoken, where several clips share one ("a01")."""
    captions: tuple[str, ...] = ()
    """Written by people."""
    duration_s: float | None = None
    sha256: str | None = None
    """Of the sound file, in hexadecimal, when the manifest was made."""

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
        yield utterance_of_row(row, folder=path.parent, place=place)


@dataclass(frozen=True, slots=True)
class Manifests:
    """The utterances of several manifests, one manifest after another; they are read anew each
    time, one utterance at a time."""

    paths: Sequence[Path]

    def __iter__(self) -> Iterator[Utterance]:
        return chain.from_iterable(map(read_manifest, self.paths))


def read_each_utterance(path: Path) -> Iterator[tuple[str, Utterance | DataError]]:
    """The place ("m.jsonl:3") and utterance of every line, or what is wrong with the line.

    Raises DataError only where the file cannot be read at all.
    """
    for place, row in read_each_row(path, what="manifest"):
        if isinstance(row, DataError):
            yield place, row
            continue
        try:
            yield place, utterance_of_row(row, folder=path.parent, place=place)
        except DataError as error:
            yield place, error


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> int:
    """Write utterances as a JSONL manifest beside their audio; returns how many.

    The file appears only when it is whole. Audio paths are written relative to it.
    """
    path = Path(path)
    return write_manifests(
        path.parent, utterances, files=[path.name], files_of=lambda _: (path.name,)
    )[path.name]


def write_manifests(
    folder: Path,
    utterances: Iterable[Utterance],
    *,
    files: Sequence[str],
    files_of: Callable[[Utterance], Iterable[str]],
) -> dict[str, int]:
    """Write several manifests of one folder in one pass; returns how many each has.

    `files_of` says in which of `files` an utterance belongs. Nothing appears until all are whole;
    one utterance at a time is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(files, 0)
    # Most clips lie in the folder of the one before, and where it lies takes long to work out.
    relative = lru_cache(maxsize=64)(partial(os.path.relpath, start=folder))
    with ExitStack() as stack:
        opened = {name: stack.enter_context(atomic_file(folder / name)) for name in files}
        for utterance in utterances:
            place = PurePath(relative(utterance.path.parent), utterance.path.name).as_posix()
            line = json.dumps(_row(utterance, file=place), ensure_ascii=False) + "\n"
            for name in files_of(utterance):
                opened[name].write(line)
                counts[name] += 1
    return counts


def utterance_of_row(row: Row, *, folder: Path, place: str) -> Utterance:
    """The utterance of a manifest's row; its file is relative to `folder`.

    Raises DataError, which begins with `place`, for a row that is none.
    """
    file = text_of(row, "file", place)
    if file is None:
        raise DataError(f"{place}: has no 'file'; name the clip, relative to the manifest")
    emotion = text_of(row, "emotion", place)
    try:
        return Utterance(
            id=text_of(row, "id", place) or Path(file).stem,
            path=folder / file,
            corpus=text_of(row, "corpus", place),
            language=text_of(row, "language", place),
            speaker=text_of(row, "speaker", place),
            gender=text_of(row, "gender", place),
            emotion=SAME_EMOTION.get(emotion, emotion) if emotion else None,
            label=text_of(row, "label", place) or emotion,
            intensity=text_of(row, "intensity", place),
            text=text_of(row, "text", place),
            sentence=text_of(row, "sentence", place),
            captions=texts_of(row, "captions", place),
            duration_s=_seconds(row, place),
            sha256=text_of(row, "sha256", place),
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


def _row(utterance: Utterance, *, file: str) -> dict[str, object]:
    label, emotion = utterance.label, utterance.emotion
    if label and SAME_EMOTION.get(label, label) == emotion:  # one word says both
        label, emotion = None, label
    row = {
        "id": utterance.id,
        "file": file,
        "corpus": utterance.corpus,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "emotion": emotion,
        "label": label if label != emotion else None,
        "intensity": utterance.intensity,
        "text": utterance.text,
        "sentence": utterance.sentence,
        "captions": list(utterance.captions),
        "duration": utterance.duration_s,
        "sha256": utterance.sha256,
    }
    return {key: value for key, value in row.items() if value not in (None, [])}


def _either(known: tuple[str, ...]) -> str:
    return f"{', '.join(known[:-1])} or {known[-1]}"
