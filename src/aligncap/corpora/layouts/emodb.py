"""EmoDB, the Berlin database: `wav/03a01Fa.wav`: speaker, sentence, emotion, version."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import ALL, Corpus
from aligncap.corpora.layouts.reading import sound_files
from aligncap.corpora.manifest import SAME_EMOTION, Utterance

STEM = re.compile(r"(\d\d)([ab]\d\d)([A-Z])([a-z]?)")
EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
"""The first letters of the German words."""
GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}


FETCH = "download.zip (535 clips) from http://emodb.bilderbar.info (free for research)"


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips below a folder."""
    for file in sound_files(source):
        match = STEM.fullmatch(file.stem)
        if match is None:
            continue
        speaker, sentence, letter, _ = match.groups()
        if letter not in EMOTIONS or speaker not in GENDERS:
            yield Fault(
                Kind.LABEL,
                f"{file}: EmoDB has no speaker {speaker} or emotion {letter} (it has "
                f"{', '.join(EMOTIONS)}); fetch it anew or take it away",
            )
            continue
        label = EMOTIONS[letter]
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="emodb",
            language="de",
            speaker=f"emodb_{speaker}",
            gender=GENDERS[speaker],
            emotion=SAME_EMOTION.get(label, label),
            label=label,
            sentence=sentence,
        )


CORPUS = Corpus(
    name="emodb",
    counts=MappingProxyType({ALL: 535}),
    rates_hz=frozenset({16_000}),
    fetch=FETCH,
    find=find,
)
