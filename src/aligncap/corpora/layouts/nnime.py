"""NNIME: `<emotion>_<session 01-22>_<A|B>_<utterance>.wav`, in Mandarin; it has no captions."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import ALL, Corpus
from aligncap.corpora.layouts.reading import sound_files
from aligncap.corpora.manifest import Utterance

STEM = re.compile(r"(?P<emotion>[A-Za-z]+)_(?P<session>\d\d)_(?P<who>[ABab])_(?P<number>\w+)")
EMOTIONS = {
    **dict.fromkeys(("angry", "anger"), "angry"),
    **dict.fromkeys(("happy", "happiness"), "happy"),
    **dict.fromkeys(("sad", "sadness"), "sad"),
    "neutral": "neutral",
    **dict.fromkeys(("surprise", "surprised"), "surprised"),
    **dict.fromkeys(("frustration", "frustrated"), "angry"),
}
"""The atmospheres of its scenes; frustration counts as anger, as in our vocabulary of clues."""
SESSIONS = 22


FETCH = "NNIME (5,028 clips) from https://nnime.ee.nthu.edu.tw (on request, for research)"


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips below a folder."""
    for file in sound_files(source):
        match = STEM.fullmatch(file.stem)
        if match is None:
            continue
        label = match["emotion"].lower()
        if label not in EMOTIONS or not 1 <= int(match["session"]) <= SESSIONS:
            yield Fault(
                Kind.LABEL,
                f"{file}: NNIME has no emotion {label} or session {match['session']}; it has "
                f"{', '.join(EMOTIONS)} and 01 to {SESSIONS}",
            )
            continue
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="nnime",
            language="zh",
            speaker=f"nnime_{match['session']}{match['who'].upper()}",
            emotion=EMOTIONS[label],
            label=label,
        )


CORPUS = Corpus(
    name="nnime",
    counts=MappingProxyType({ALL: 5028}),
    fetch=FETCH,
    find=find,
)
