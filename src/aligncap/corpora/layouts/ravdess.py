"""RAVDESS: `Actor_NN/03-01-06-01-02-01-12.wav`, everything told by the seven numbers of the name.

Modality, channel (01 speech, 02 song), emotion, intensity, sentence, repetition, actor (odd: a
man). Songs and files with a picture are passed over.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import Corpus
from aligncap.corpora.layouts.reading import sound_files
from aligncap.corpora.manifest import SAME_EMOTION, Utterance

STEM = re.compile(r"03-01-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES = {"01": "normal", "02": "strong"}
ACTORS = tuple(f"{number:02}" for number in range(1, 25))
CLIPS_OF_AN_ACTOR = 60


FETCH = (
    "Audio_Speech_Actors_01-24.zip (1,440 clips) from https://zenodo.org/records/1188976 "
    "(CC BY-NC-SA 4.0)"
)


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The spoken clips below a folder."""
    for file in sound_files(source):
        match = STEM.fullmatch(file.stem)
        if match is None:
            continue
        emotion, intensity, sentence, _, actor = match.groups()
        if emotion not in EMOTIONS or intensity not in INTENSITIES or actor not in ACTORS:
            yield Fault(
                Kind.LABEL,
                f"{file}: RAVDESS has no emotion {emotion}, intensity {intensity} or actor "
                f"{actor}; fetch it anew or take it away",
            )
            continue
        label = EMOTIONS[emotion]
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="ravdess",
            language="en",
            speaker=f"ravdess_{actor}",
            gender="male" if int(actor) % 2 else "female",
            emotion=SAME_EMOTION.get(label, label),
            label=label,
            intensity=INTENSITIES[intensity],
            sentence=sentence,
        )


def part_of(utterance: Utterance) -> str:
    """Its actor."""
    return utterance.id[-2:]


CORPUS = Corpus(
    name="ravdess",
    counts=MappingProxyType(dict.fromkeys(ACTORS, CLIPS_OF_AN_ACTOR)),
    rates_hz=frozenset({48_000}),
    fetch=FETCH,
    find=find,
    part_of=part_of,
)
