"""IEMOCAP: `SessionN/sentences/wav/<dialog>/*.wav`, with labels and transcripts by dialogue.

`SessionN/dialog/EmoEvaluation/<dialog>.txt` has the emotion of each turn,
`SessionN/dialog/transcriptions/<dialog>.txt` what is said.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import Corpus
from aligncap.corpora.layouts.reading import read_lines, sound_files, without_sound
from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError

STEM = re.compile(r"(?P<session>Ses0[1-5])(?P<dialog>[FM]_\w+)_(?P<gender>[FM])\d{3}")
EMOTIONS = {
    "ang": ("angry", "anger"),
    "hap": ("happy", "happiness"),
    "exc": ("happy", "excited"),
    "sad": ("sad", "sadness"),
    "neu": ("neutral", "neutral"),
    "fru": ("angry", "frustrated"),
    "fea": ("fearful", "fear"),
    "sur": ("surprised", "surprise"),
    "dis": ("disgusted", "disgust"),
    "oth": (None, "other"),
    "xxx": (None, "no agreement"),
}
"""Codes of the evaluation files → category and word; excited counts as happy, frustrated as
angry, as in our vocabulary of clues."""

_TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\w+)\s+\[.*\]")
_SAID = re.compile(r"(Ses\S+) \[[\d.]+-[\d.]+\]:\s*(.*)")


FETCH = "IEMOCAP (10,039 clips) from https://sail.usc.edu/iemocap/ (on request, for research)"


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips of IEMOCAP below a folder."""
    dialog, told = Path(), Path()
    labels: dict[str, str] = {}
    texts: dict[str, str] = {}
    found: set[str] = set()
    for file in sound_files(source):
        match = STEM.fullmatch(file.stem)
        if match is None:
            continue
        if file.parent != dialog:
            yield from without_sound(told, labels.keys() - found, FETCH)
            dialog, labels, texts, found = file.parent, {}, {}, set()
            # SessionN/sentences/wav/<dialog>/x.wav → SessionN/dialog
            home = Path(*file.parts[:-4]) / "dialog"
            name = f"{match['session']}{match['dialog']}.txt"
            told = home / "EmoEvaluation" / name
            yield from _read_labels(told, labels)
            yield from _read_texts(home / "transcriptions" / name, texts)
        found.add(file.stem)
        if labels and file.stem not in labels:
            yield Fault(Kind.LABEL, f"{file}: has no line in its EmoEvaluation file; fetch it anew")
        yield _utterance(file, match, labels.get(file.stem), texts.get(file.stem))
    yield from without_sound(told, labels.keys() - found, FETCH)


def part_of(utterance: Utterance) -> str:
    """Its session."""
    return utterance.id[:5]


def _utterance(file: Path, match: re.Match[str], code: str | None, text: str | None) -> Utterance:
    emotion, label = EMOTIONS[code] if code else (None, None)
    return Utterance(
        id=file.stem,
        path=file,
        corpus="iemocap",
        language="en",
        speaker=f"iemocap_{match['session']}{match['gender']}",
        gender="female" if match["gender"] == "F" else "male",
        emotion=emotion,
        label=label,
        text=text,
    )


def _read_labels(file: Path, labels: dict[str, str]) -> Iterator[Fault]:
    """Fill in the emotion codes of a dialogue; what is wrong with the file is given out."""
    try:
        for place, line in read_lines(file):
            if not line.startswith("[") or "START_TIME" in line:  # a comment, an annotator's line
                continue
            match = _TURN.fullmatch(line)
            if match is None or match[2] not in EMOTIONS:
                yield Fault(
                    Kind.LABEL,
                    f"{place}: {line[:60]!r} is not [time] turn emotion [values] with an emotion "
                    f"of {', '.join(EMOTIONS)}; fetch the file anew",
                )
            else:
                labels[match[1]] = match[2]
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))


def _read_texts(file: Path, texts: dict[str, str]) -> Iterator[Fault]:
    """Fill in what is said; lines without a time are remarks."""
    try:
        for _, line in read_lines(file):
            if match := _SAID.fullmatch(line):
                texts[match[1]] = match[2]
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))


CORPUS = Corpus(
    name="iemocap",
    counts=MappingProxyType(
        {"Ses01": 1819, "Ses02": 1811, "Ses03": 2136, "Ses04": 2103, "Ses05": 2170}
    ),
    rates_hz=frozenset({16_000}),
    fetch=FETCH,
    find=find,
    part_of=part_of,
)
