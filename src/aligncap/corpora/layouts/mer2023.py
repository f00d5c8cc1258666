"""MER2023: `train/ test1/ test2/ test3/` of films, and a csv of labels for each.

`train-label.csv`, `test1-label.csv` … have the columns name, discrete, valence. Captions are those
of EMER, a csv with name, chinese and english, of which one sentence says what is heard. The sound
of the films is read from `audio/NAME.wav` or `<part>/NAME.wav`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import ALL, Corpus
from aligncap.corpora.layouts.reading import read_table
from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError

PARTS = ("train", "test1", "test2", "test3")
EMOTIONS = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "worried": "fearful",
    "surprise": "surprised",
    "surprised": "surprised",
}
"""Labels → categories; worried counts as fearful, as in our vocabulary of clues."""

_SUFFIXES = (".wav", ".flac", ".mp4", ".avi", ".mkv")
_HEARD = {
    "english": re.compile(r"In the audio,\s*([^.!?]*[.!?])", re.IGNORECASE),
    "chinese": re.compile(r"在音频中[，,]?\s*([^。！？]*[。！？])"),
}


FETCH = (
    "MER2023 (5,030 labelled clips) from http://merchallenge.cn/datasets (licence to sign, "
    "for research) and EMER's captions from https://github.com/zeroQiaoba/AffectGPT"
)


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips that the label files name."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the folder of the corpus")
    captions: dict[str, tuple[str, ...]] = {}
    yield from _read_captions(source, captions)
    for part in PARTS:
        try:
            for place, row in read_table(source / f"{part}-label.csv", ("name", "discrete")):
                yield from _find_clip(source, part, place, row, captions)
        except DataError as error:
            yield Fault(Kind.LABEL, str(error))


def _find_clip(
    source: Path,
    part: str,
    place: str,
    row: Mapping[str, str],
    captions: Mapping[str, tuple[str, ...]],
) -> Iterator[Utterance | Fault]:
    name, label = row["name"], row["discrete"].lower()
    if not name:
        yield Fault(Kind.LABEL, f"{place}: has no name; fetch the file anew")
        return
    if label not in EMOTIONS:
        yield Fault(
            Kind.LABEL, f"{place}: {name} is {label!r}, must be one of {', '.join(EMOTIONS)}"
        )
    yield Utterance(
        id=name,
        path=_sound_of(source, part, name),
        corpus="mer2023",
        language="zh",
        emotion=EMOTIONS.get(label),
        label=label if label in EMOTIONS else None,
        captions=captions.get(name, ()),
    )


def _sound_of(source: Path, part: str, name: str) -> Path:
    """The sound of a clip, or else its film, or else where it should be."""
    for suffix in _SUFFIXES:
        for folder in (source / "audio", source / part):
            if (file := folder / f"{name}{suffix}").exists():
                return file
    return source / part / f"{name}.wav"


def _read_captions(source: Path, captions: dict[str, tuple[str, ...]]) -> Iterator[Fault]:
    """Fill in what EMER's csv files say is heard, English first; faults are given out."""
    labels = {f"{part}-label.csv" for part in PARTS}
    for file in sorted(source.glob("*.csv")):
        if file.name in labels:
            continue
        try:
            for place, row in read_table(file, ("name", "english", "chinese")):
                heard = tuple(_heard(row[language], language) for language in _HEARD)
                if not any(heard):
                    yield Fault(
                        Kind.CAPTION,
                        f'{place}: {row["name"]} has no sentence that begins "In the audio,"; '
                        "add one or take the row away",
                    )
                captions[row["name"]] = tuple(text for text in heard if text)
        except DataError as error:
            yield Fault(Kind.CAPTION, str(error))


def _heard(description: str, language: str) -> str:
    """Of a description, what its sentence on the audio says: "the man's voice is low." """
    match = _HEARD[language].search(description)
    if match is None:
        return ""
    sentence = match[1].strip()
    return sentence[:1].upper() + sentence[1:]


CORPUS = Corpus(
    name="mer2023",
    counts=MappingProxyType({ALL: 5030}),
    fetch=FETCH,
    find=find,
)
