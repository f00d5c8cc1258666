"""How a corpus is laid out: its faults, its description, and reading of folders and label files.

Corpora whose labels stand in their file names or folders.

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

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from aligncap.audio.containers import AUDIO_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES
from aligncap.data.manifest import SAME_EMOTION, Utterance, csv_rows
from aligncap.errors import DataError
from aligncap.storage import decoded


class Kind(StrEnum):
    """What a fault is about."""

    MISSING = "missing"
    """A file that is named but not there."""
    BROKEN = "broken"
    """A file that cannot be read as sound."""
    CHANGED = "changed"
    """A file that is no longer what the manifest was made of."""
    RATE = "rate"
    DURATION = "duration"
    DUPLICATE = "duplicate"
    """One id, or one sound, twice."""
    LABEL = "label"
    """A label file, or a line of one, that cannot be used."""
    CAPTION = "caption"
    """A clip without the caption it should have."""
    COUNT = "count"
    """More or fewer clips than the corpus has."""
    LEAK = "leak"
    """Something on both sides of a split that must not be."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that the user can put right."""

    kind: Kind
    message: str
    """One line: the thing, the place, the hint."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


ALL = "all"
"""The part of a corpus that is counted as one."""


class Find(Protocol):
    """Finds the clips of a corpus."""

    def __call__(self, source: Path, /) -> Iterator[Utterance | Fault]:
        """What is in a folder, one clip at a time; the sound files are not opened.

        A label that cannot be read is a fault, and its clip is given out without it unless the
        clip cannot be told from its name either. Raises
        DataError where the folder holds nothing of this corpus to begin with.
        """


def as_one(_: Utterance) -> str:
    """The part of an utterance where a corpus is counted as one."""
    return ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus whose files are laid out in a known way."""

    name: str
    counts: Mapping[str, int]
    """How many clips each of its parts has; empty where nobody can know."""
    rates_hz: frozenset[int] = frozenset()
    """The sampling rates it is shipped at; empty where they differ."""
    fetch: str
    """What to fetch from where, to put after "fetch"."""
    find: Find
    part_of: Callable[[Utterance], str] = as_one
    """The part that an utterance is counted in."""


SOUNDS = AUDIO_SUFFIXES | MEDIA_SUFFIXES | VIDEO_SUFFIXES
"""Suffixes of recordings, films among them."""


def sound_files(folder: Path, *, suffixes: Iterable[str] = SOUNDS) -> Iterator[Path]:
    """Every recording below a folder, folder by folder and sorted in each; links are followed.

    Hidden files are passed over. Names of one folder at a time are held. Raises DataError where
    the folder is none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the corpus")
    wanted = frozenset(suffixes)
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up would have no end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in wanted:
                yield Path(place) / name


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that hold something, each after its place ("0001.txt:3").

    UTF-8, UTF-16 with its mark, or Chinese in GB 18030. DataError where it is missing or neither.
    """
    for number, line in enumerate(_decoded(file).splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def read_table(file: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a csv file with a header, each after its place; DataError where a column is
    missing or the file is none."""
    rows = csv_rows(file, _decoded(file))
    _, heading = next(rows, ("", []))
    present = [name.strip() for name in heading]
    if absent := [name for name in columns if name not in present]:
        raise DataError(
            f"{file}:1: has no column {', '.join(absent)} (it has {', '.join(present)}); "
            "fetch the file anew"
        )
    for place, cells in rows:
        told = dict(zip(present, cells, strict=False))
        yield place, {name: told.get(name, "").strip() for name in present}


def without_sound(told: Path, clips: Iterable[str], fetch: str) -> Iterator[Fault]:
    """A fault for each clip that the label file `told` names and that has no sound file."""
    for clip in sorted(clips):
        yield Fault(Kind.MISSING, f"{clip}: is in {told} and has no sound file; fetch {fetch}")


def _decoded(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: does not exist; fetch it, it comes with the corpus") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); fetch it anew") from error
    with suppress(DataError):
        return decoded(data, str(file), "file")
    with suppress(UnicodeDecodeError, DataError):
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return decoded(data.decode("utf-16").encode(), str(file), "file")
        if _is_chinese(text := data.decode("gb18030")):
            return text
    raise DataError(f"{file}: neither UTF-8, UTF-16 nor Chinese in GB 18030; save it as UTF-8")


COMMONEST_HAN = frozenset(
    "的一是不了在有人我他她这中大来上个到说们为子和你地出时也年得就那要下以生会着去之过"
    "家学对可里后小么心多天而能好都然没声音语气情绪调男女性速平感话高低快慢"
)


def _is_chinese(text: str) -> bool:
    """Whether what was read as GB 18030 is: nearly any bytes can be, those of Windows-1252 too.

    Four in five characters beyond ASCII are those of GB 2312 up to its common Han, few Han stand
    alone, and in a longer text the commonest are among them.
    """
    codes = [letter.encode("gb18030") for letter in text if not letter.isascii()]
    usual = sum(len(one) == 2 and one[0] in range(0xA1, 0xD8) and one[1] > 0xA0 for one in codes)
    runs = re.findall("[\u4e00-\u9fff]+", text)
    han = "".join(runs)
    alone = sum(len(run) == 1 for run in runs)
    commonest = sum(letter in COMMONEST_HAN for letter in han)
    return (
        usual >= 0.8 * len(codes) and 2 * alone < len(han) and commonest >= 0.08 * (len(han) - 12)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedNames:
    """File names that code the labels of a clip; a file whose name does not match is passed over.

    `stem` has the groups "emotion" and "speaker", and may have "intensity" and "sentence".
    """

    title: str
    corpus: str
    language: str
    stem: re.Pattern[str]
    emotions: Mapping[str, tuple[str, str]]
    """Code → the corpus' own word and our category."""
    speakers: Mapping[str, tuple[str, str | None]]
    """Code → speaker and gender."""
    intensities: Mapping[str, str]

    def find(self, source: Path) -> Iterator[Utterance | Fault]:
        """The clips below a folder."""
        tables = {
            "emotion": self.emotions, "intensity": self.intensities, "speaker": self.speakers
        }  # fmt: skip
        for file in sound_files(source):
            match = self.stem.fullmatch(file.stem)
            if match is None:
                continue
            codes = match.groupdict()
            unknown = [
                f"{name} {codes[name]}"
                + (f" (it has {', '.join(table)})" if len(table) < 25 else "")
                for name, table in tables.items()
                if name in codes and codes[name] not in table
            ]
            if unknown:
                yield Fault(
                    Kind.LABEL,
                    f"{file}: {self.title} has no {' and no '.join(unknown)}; fetch it anew or "
                    "take it away",
                )
                continue
            label, emotion = self.emotions[codes["emotion"]]
            speaker, gender = self.speakers[codes["speaker"]]
            yield Utterance(
                id=file.stem,
                path=file,
                corpus=self.corpus,
                language=self.language,
                speaker=f"{self.corpus}_{speaker}",
                gender=gender,
                emotion=emotion,
                label=label,
                intensity=self.intensities.get(codes.get("intensity", "")),
                sentence=codes.get("sentence"),
            )


def _categories(labels: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {code: (label, SAME_EMOTION.get(label, label)) for code, label in labels.items()}


ACTORS = tuple(f"{number:02}" for number in range(1, 25))
CLIPS_PER_ACTOR = 60


def ravdess_part(utterance: Utterance) -> str:
    """Its actor."""
    return utterance.id[-2:]


RAVDESS = Corpus(
    name="ravdess",
    counts=MappingProxyType(dict.fromkeys(ACTORS, CLIPS_PER_ACTOR)),
    rates_hz=frozenset({48_000}),
    fetch=(
        "Audio_Speech_Actors_01-24.zip (1,440 clips) from https://zenodo.org/records/1188976 "
        "(CC BY-NC-SA 4.0)"
    ),
    find=CodedNames(
        title="RAVDESS",
        corpus="ravdess",
        language="en",
        stem=re.compile(
            r"03-01-(?P<emotion>\d\d)-(?P<intensity>\d\d)-(?P<sentence>\d\d)-\d\d-(?P<speaker>\d\d)"
        ),
        emotions=_categories(
            {
                "01": "neutral",
                "02": "calm",
                "03": "happy",
                "04": "sad",
                "05": "angry",
                "06": "fearful",
                "07": "disgust",
                "08": "surprised",
            }
        ),
        speakers={one: (one, "male" if int(one) % 2 else "female") for one in ACTORS},
        intensities={"01": "normal", "02": "strong"},
    ).find,
    part_of=ravdess_part,
)

EMODB = Corpus(
    name="emodb",
    counts=MappingProxyType({ALL: 535}),
    rates_hz=frozenset({16_000}),
    fetch="download.zip (535 clips) from http://emodb.bilderbar.info (free for research)",
    find=CodedNames(
        title="EmoDB",
        corpus="emodb",
        language="de",
        stem=re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?"),
        # The first letters of the German words.
        emotions=_categories(
            {
                "W": "angry",
                "L": "boredom",
                "E": "disgust",
                "A": "fearful",
                "F": "happy",
                "T": "sad",
                "N": "neutral",
            }
        ),
        speakers={
            **{one: (one, "male") for one in ("03", "10", "11", "12", "15")},
            **{one: (one, "female") for one in ("08", "09", "13", "14", "16")},
        },
        intensities={},
    ).find,
)

NNIME = Corpus(
    name="nnime",
    counts=MappingProxyType({ALL: 5028}),
    fetch="NNIME (5,028 clips) from https://nnime.ee.nthu.edu.tw (on request, for research)",
    find=CodedNames(
        title="NNIME",
        corpus="nnime",
        language="zh",
        stem=re.compile(r"(?P<emotion>[A-Za-z]+)_(?P<speaker>\d\d_[ABab])_\w+"),
        # The atmospheres of its scenes; frustration counts as anger, as in our vocabulary of clues.
        emotions={
            written: (word, category)
            for category, words in {
                "angry": ("angry", "anger", "frustration", "frustrated"),
                "happy": ("happy", "happiness"),
                "sad": ("sad", "sadness"),
                "neutral": ("neutral",),
                "surprised": ("surprise", "surprised"),
            }.items()
            for word in words
            for written in (word, word.capitalize(), word.upper())
        },
        speakers={
            f"{session:02}_{letter}": (f"{session:02}{letter.upper()}", None)
            for session in range(1, 23)
            for letter in "ABab"
        },
        intensities={},
    ).find,
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
