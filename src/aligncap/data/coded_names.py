"""Corpora whose labels stand in their file names or folders.

- RAVDESS: `Actor_NN/03-01-06-01-02-01-12.wav`: modality, channel (01 speech, 02 song), emotion,
  intensity, sentence, repetition, actor (odd: a man). Songs and films are passed over.
- EmoDB: `wav/03a01Fa.wav`: speaker, sentence, emotion, version.
- NNIME: `<emotion>_<session 01-22>_<A|B>_<utterance>.wav`, in Mandarin; it has no captions.
- ESD: `<speaker>/<Emotion>/[train|evaluation|test/]*.wav`: 350 sentences in five emotions by each
  of twenty speakers, 0001–0010 in Mandarin, 0011–0020 in English; `<speaker>/<speaker>.txt` has the
  sentences.
- IEMOCAP: `SessionN/sentences/wav/<dialog>/*.wav`; `SessionN/dialog/EmoEvaluation/<dialog>.txt` has
  the emotion of each turn, `SessionN/dialog/transcriptions/<dialog>.txt` what is said.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.data.layouts import ALL, Corpus, Fault, Kind, read_lines, sound_files, without_sound
from aligncap.data.manifest import SAME_EMOTION, Utterance
from aligncap.errors import DataError

RAVDESS_STEM = re.compile(r"03-01-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
RAVDESS_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
RAVDESS_INTENSITIES = {"01": "normal", "02": "strong"}
ACTORS = tuple(f"{number:02}" for number in range(1, 25))
CLIPS_OF_AN_ACTOR = 60


RAVDESS_FETCH = (
    "Audio_Speech_Actors_01-24.zip (1,440 clips) from https://zenodo.org/records/1188976 "
    "(CC BY-NC-SA 4.0)"
)


def find_ravdess(source: Path) -> Iterator[Utterance | Fault]:
    """The spoken clips below a folder."""
    for file in sound_files(source):
        match = RAVDESS_STEM.fullmatch(file.stem)
        if match is None:
            continue
        emotion, intensity, sentence, _, actor = match.groups()
        if (
            emotion not in RAVDESS_EMOTIONS
            or intensity not in RAVDESS_INTENSITIES
            or actor not in ACTORS
        ):
            yield Fault(
                Kind.LABEL,
                f"{file}: RAVDESS has no emotion {emotion}, intensity {intensity} or actor "
                f"{actor}; fetch it anew or take it away",
            )
            continue
        label = RAVDESS_EMOTIONS[emotion]
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="ravdess",
            language="en",
            speaker=f"ravdess_{actor}",
            gender="male" if int(actor) % 2 else "female",
            emotion=SAME_EMOTION.get(label, label),
            label=label,
            intensity=RAVDESS_INTENSITIES[intensity],
            sentence=sentence,
        )


def ravdess_part(utterance: Utterance) -> str:
    """Its actor."""
    return utterance.id[-2:]


RAVDESS = Corpus(
    name="ravdess",
    counts=MappingProxyType(dict.fromkeys(ACTORS, CLIPS_OF_AN_ACTOR)),
    rates_hz=frozenset({48_000}),
    fetch=RAVDESS_FETCH,
    find=find_ravdess,
    part_of=ravdess_part,
)


EMODB_STEM = re.compile(r"(\d\d)([ab]\d\d)([A-Z])([a-z]?)")
EMODB_EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
"""The first letters of the German words."""
EMODB_GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}


EMODB_FETCH = "download.zip (535 clips) from http://emodb.bilderbar.info (free for research)"


def find_emodb(source: Path) -> Iterator[Utterance | Fault]:
    """The clips below a folder."""
    for file in sound_files(source):
        match = EMODB_STEM.fullmatch(file.stem)
        if match is None:
            continue
        speaker, sentence, letter, _ = match.groups()
        if letter not in EMODB_EMOTIONS or speaker not in EMODB_GENDERS:
            yield Fault(
                Kind.LABEL,
                f"{file}: EmoDB has no speaker {speaker} or emotion {letter} (it has "
                f"{', '.join(EMODB_EMOTIONS)}); fetch it anew or take it away",
            )
            continue
        label = EMODB_EMOTIONS[letter]
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="emodb",
            language="de",
            speaker=f"emodb_{speaker}",
            gender=EMODB_GENDERS[speaker],
            emotion=SAME_EMOTION.get(label, label),
            label=label,
            sentence=sentence,
        )


EMODB = Corpus(
    name="emodb",
    counts=MappingProxyType({ALL: 535}),
    rates_hz=frozenset({16_000}),
    fetch=EMODB_FETCH,
    find=find_emodb,
)


NNIME_STEM = re.compile(r"(?P<emotion>[A-Za-z]+)_(?P<session>\d\d)_(?P<who>[ABab])_(?P<number>\w+)")
NNIME_EMOTIONS = {
    **dict.fromkeys(("angry", "anger"), "angry"),
    **dict.fromkeys(("happy", "happiness"), "happy"),
    **dict.fromkeys(("sad", "sadness"), "sad"),
    "neutral": "neutral",
    **dict.fromkeys(("surprise", "surprised"), "surprised"),
    **dict.fromkeys(("frustration", "frustrated"), "angry"),
}
"""The atmospheres of its scenes; frustration counts as anger, as in our vocabulary of clues."""
NNIME_SESSIONS = 22


NNIME_FETCH = "NNIME (5,028 clips) from https://nnime.ee.nthu.edu.tw (on request, for research)"


def find_nnime(source: Path) -> Iterator[Utterance | Fault]:
    """The clips below a folder."""
    for file in sound_files(source):
        match = NNIME_STEM.fullmatch(file.stem)
        if match is None:
            continue
        label = match["emotion"].lower()
        if label not in NNIME_EMOTIONS or not 1 <= int(match["session"]) <= NNIME_SESSIONS:
            yield Fault(
                Kind.LABEL,
                f"{file}: NNIME has no emotion {label} or session {match['session']}; it has "
                f"{', '.join(NNIME_EMOTIONS)} and 01 to {NNIME_SESSIONS}",
            )
            continue
        yield Utterance(
            id=file.stem,
            path=file,
            corpus="nnime",
            language="zh",
            speaker=f"nnime_{match['session']}{match['who'].upper()}",
            emotion=NNIME_EMOTIONS[label],
            label=label,
        )


NNIME = Corpus(
    name="nnime",
    counts=MappingProxyType({ALL: 5028}),
    fetch=NNIME_FETCH,
    find=find_nnime,
)


ESD_STEM = re.compile(r"(?P<speaker>\d{4})_\d{6}")
ESD_EMOTIONS = {
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


ESD_FETCH = (
    "ESD (35,000 clips) from https://github.com/HLTSingapore/Emotional-Speech-Data (for research)"
)


def find_esd(source: Path) -> Iterator[Utterance | Fault]:
    """The clips of ESD below a folder, whatever lies between."""
    told = Path()
    sentences: dict[str, str] = {}
    found: set[str] = set()
    for file in sound_files(source):
        match = ESD_STEM.fullmatch(file.stem)
        if match is None:
            continue
        speaker = match["speaker"]
        folder = next((one for one in file.parents[:2] if one.name in ESD_EMOTIONS), None)
        home = folder.parent if folder else file.parent
        if told != home / f"{speaker}.txt":
            yield from without_sound(told, sentences.keys() - found, ESD_FETCH)
            told, sentences, found = home / f"{speaker}.txt", {}, set()
            yield from _read_sentences(told, sentences)
        found.add(file.stem)
        if folder is None:
            yield Fault(
                Kind.LABEL,
                f"{file}: lies in no folder called {', '.join(ESD_EMOTIONS)}; move it to the "
                f"folder of its emotion, such as {speaker}/Angry/",
            )
        emotion = ESD_EMOTIONS[folder.name] if folder else None
        yield _esd_utterance(file, speaker, emotion, sentences.get(file.stem))
    yield from without_sound(told, sentences.keys() - found, ESD_FETCH)


def esd_part(utterance: Utterance) -> str:
    """Its speaker."""
    return (utterance.speaker or "").removeprefix("esd_")


def _esd_utterance(file: Path, speaker: str, emotion: str | None, text: str | None) -> Utterance:
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
            if ESD_STEM.fullmatch(clip.strip()) and rest:
                sentences[clip.strip()] = rest[0].strip()
            else:
                yield Fault(
                    Kind.LABEL,
                    f"{place}: {line[:40]!r} is not clip, sentence, emotion; fetch the file anew",
                )
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))


ESD = Corpus(
    name="esd",
    counts=MappingProxyType(dict.fromkeys(SPEAKERS, CLIPS_OF_A_SPEAKER)),
    rates_hz=frozenset({16_000}),
    fetch=ESD_FETCH,
    find=find_esd,
    part_of=esd_part,
)


IEMOCAP_STEM = re.compile(r"(?P<session>Ses0[1-5])(?P<dialog>[FM]_\w+)_(?P<gender>[FM])\d{3}")
IEMOCAP_EMOTIONS = {
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


IEMOCAP_FETCH = (
    "IEMOCAP (10,039 clips) from https://sail.usc.edu/iemocap/ (on request, for research)"
)


def find_iemocap(source: Path) -> Iterator[Utterance | Fault]:
    """The clips of IEMOCAP below a folder."""
    dialog, told = Path(), Path()
    labels: dict[str, str] = {}
    texts: dict[str, str] = {}
    found: set[str] = set()
    for file in sound_files(source):
        match = IEMOCAP_STEM.fullmatch(file.stem)
        if match is None:
            continue
        if file.parent != dialog:
            yield from without_sound(told, labels.keys() - found, IEMOCAP_FETCH)
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
        yield _iemocap_utterance(file, match, labels.get(file.stem), texts.get(file.stem))
    yield from without_sound(told, labels.keys() - found, IEMOCAP_FETCH)


def iemocap_part(utterance: Utterance) -> str:
    """Its session."""
    return utterance.id[:5]


def _iemocap_utterance(
    file: Path, match: re.Match[str], code: str | None, text: str | None
) -> Utterance:
    emotion, label = IEMOCAP_EMOTIONS[code] if code else (None, None)
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
            if match is None or match[2] not in IEMOCAP_EMOTIONS:
                yield Fault(
                    Kind.LABEL,
                    f"{place}: {line[:60]!r} is not [time] turn emotion [values] with an emotion "
                    f"of {', '.join(IEMOCAP_EMOTIONS)}; fetch the file anew",
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


IEMOCAP = Corpus(
    name="iemocap",
    counts=MappingProxyType(
        {"Ses01": 1819, "Ses02": 1811, "Ses03": 2136, "Ses04": 2103, "Ses05": 2170}
    ),
    rates_hz=frozenset({16_000}),
    fetch=IEMOCAP_FETCH,
    find=find_iemocap,
    part_of=iemocap_part,
)
