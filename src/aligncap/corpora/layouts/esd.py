"""ESD, the Emotional Speech Dataset: `<speaker>/<Emotion>/[train|evaluation|test/]*.wav`.

350 sentences in five emotions by each of twenty speakers, 0001–0010 in Mandarin and 0011–0020 in
English; `<speaker>/<speaker>.txt` has the sentences.
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

STEM = re.compile(r"(?P<speaker>\d{4})_\d{6}")
EMOTIONS = {
    "Angry": "angry",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
CLIPS_OF_A_SPEAKER = 1750
SPEAKERS = tuple(f"{number:04}" for number in range(1, 21))
WOMEN = frozenset({"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"})
"""By the owners' own list."""


FETCH = (
    "ESD (35,000 clips) from https://github.com/HLTSingapore/Emotional-Speech-Data (for research)"
)


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips of ESD below a folder, whatever lies between."""
    told = Path()
    sentences: dict[str, str] = {}
    found: set[str] = set()
    for file in sound_files(source):
        match = STEM.fullmatch(file.stem)
        if match is None:
            continue
        speaker = match["speaker"]
        folder = next((one for one in file.parents[:2] if one.name in EMOTIONS), None)
        home = folder.parent if folder else file.parent
        if told != home / f"{speaker}.txt":
            yield from without_sound(told, sentences.keys() - found, FETCH)
            told, sentences, found = home / f"{speaker}.txt", {}, set()
            yield from _read_sentences(told, sentences)
        found.add(file.stem)
        if folder is None:
            yield Fault(
                Kind.LABEL,
                f"{file}: lies in no folder called {', '.join(EMOTIONS)}; move it to the "
                f"folder of its emotion, such as {speaker}/Angry/",
            )
        emotion = EMOTIONS[folder.name] if folder else None
        yield _utterance(file, speaker, emotion, sentences.get(file.stem))
    yield from without_sound(told, sentences.keys() - found, FETCH)


def part_of(utterance: Utterance) -> str:
    """Its speaker."""
    return (utterance.speaker or "").removeprefix("esd_")


def _utterance(file: Path, speaker: str, emotion: str | None, text: str | None) -> Utterance:
    return Utterance(
        id=file.stem,
        path=file,
        corpus="esd",
        language="zh" if speaker <= "0010" else "en",
        speaker=f"esd_{speaker}",
        gender="female" if speaker in WOMEN else "male",
        emotion=emotion,
        text=text,
    )


def _read_sentences(file: Path, sentences: dict[str, str]) -> Iterator[Fault]:
    """Fill in the sentences of a speaker by clip; what is wrong with the file is given out."""
    try:
        for place, line in read_lines(file):
            clip, *rest = (
                line.split("\t") if "\t" in line else line.rsplit(None, 1)[0].split(None, 1)
            )
            if STEM.fullmatch(clip.strip()) and rest:
                sentences[clip.strip()] = rest[0].strip()
            else:
                yield Fault(
                    Kind.LABEL,
                    f"{place}: {line[:40]!r} is not clip, sentence, emotion; fetch the file anew",
                )
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))


CORPUS = Corpus(
    name="esd",
    counts=MappingProxyType(dict.fromkeys(SPEAKERS, CLIPS_OF_A_SPEAKER)),
    rates_hz=frozenset({16_000}),
    fetch=FETCH,
    find=find,
    part_of=part_of,
)
