"""Corpora with captions: files of captions over sound, and folders of recordings.

- EMOSEC: a JSON file of captions over the sound of ESD and IEMOCAP. One folder holds all three, or
  links to them: any `*.json` at its top, ESD and IEMOCAP anywhere below; clips match by stem.
- MER2023: `train/ test1/ test2/ test3/` of films, and a csv of labels for each: `train-label.csv`,
  `test1-label.csv` … with the columns name, discrete, valence. Captions are those of EMER, a csv
  with name, chinese and english, of which one sentence is on the voice. The sound of the films is
  read from `audio/NAME.wav` or `<part>/NAME.wav`.
- SECap's test set: `wav.scp` (clip, file), `text.txt` (clip, transcript), `fid2captions.json`.
- folder: any folder of sound files. `clip.txt` holds captions of `clip.wav`, one a line;
  `clip.json` an object with keys of a manifest (speaker, gender, emotion, text, captions …).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from aligncap.data import layouts
from aligncap.data.manifest import Utterance, utterance_of_row
from aligncap.errors import DataError, UnknownNameError

_NAMES = ("id", "name", "utt", "fid", "key", "file", "filename", "audio", "wav", "path")
_CAPTIONS = ("captions", "caption", "description", "descriptions", "text")

_SHAPES = '{"clip": ["caption", …]}, {"clip": "caption"} or [{"id": "clip", "caption": "…"}, …]'


def read_captions(file: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each clip, by the stem of its name ("0001_000001").

    The file holds a dict of lists, a dict of strings, a dict of records or a list of records; a
    clip may come more than once. It is held whole. Raises DataError, which names the file, the
    entry and what is accepted, for anything else.
    """
    try:
        told = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); fetch it anew") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(f"{file}: not JSON in UTF-8 ({error}); fetch it anew") from error
    found: dict[str, dict[str, None]] = {}
    for place, name, value in _entries(told, file):
        captions = found.setdefault(stem_of(name), {})
        captions.update(dict.fromkeys(_texts(value, place)))
    return {stem: tuple(captions) for stem, captions in found.items()}


def stem_of(name: str) -> str:
    """The name of a clip without folders and suffix ("ESD/0001/Sad/0001_001051.wav")."""
    return PurePosixPath(name.replace("\\", "/")).stem


def _entries(told: Any, file: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, clip and captions of each entry."""
    if isinstance(told, dict):
        for name, value in told.items():
            place = f"{file}: {name!r}"
            yield place, name, _field(value, _CAPTIONS, place) if _is_record(value) else value
    elif isinstance(told, list):
        for number, record in enumerate(told):
            place = f"{file}: entry {number}"
            if not _is_record(record):
                raise DataError(f"{place} is no record; write {_SHAPES}")
            name = _field(record, _NAMES, place)
            if not isinstance(name, str):
                raise DataError(f"{place} names its clip {name!r}; write text in quotes")
            yield place, name, _field(record, _CAPTIONS, place)
    else:
        raise DataError(f"{file}: holds a {type(told).__name__}; write {_SHAPES}")


def _is_record(value: Any) -> bool:
    return isinstance(value, dict)


def _field(record: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if record.get(name):
            return record[name]
    raise DataError(f"{place} has none of {', '.join(names)}; write {_SHAPES}")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place} has no captions ({value!r:.40}); write {_SHAPES}")
    return tuple(stripped for text in texts if (stripped := text.strip()))


PARTS = ("train", "test1", "test2", "test3")
MER2023_EMOTIONS = {
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


MER2023_FETCH = (
    "MER2023 (5,030 labelled clips) from http://merchallenge.cn/datasets (licence to sign, "
    "for research) and EMER's captions from https://github.com/zeroQiaoba/AffectGPT"
)


def find_mer2023(source: Path) -> Iterator[Utterance | layouts.Fault]:
    """The clips that the label files name."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give the folder of the corpus")
    captions: dict[str, tuple[str, ...]] = {}
    yield from _read_mer2023_captions(source, captions)
    for part in PARTS:
        try:
            for place, row in layouts.read_table(
                source / f"{part}-label.csv", ("name", "discrete")
            ):
                yield from _find_clip(source, part, place, row, captions)
        except DataError as error:
            yield layouts.Fault(layouts.Kind.LABEL, str(error))


def _find_clip(
    source: Path,
    part: str,
    place: str,
    row: Mapping[str, str],
    captions: Mapping[str, tuple[str, ...]],
) -> Iterator[Utterance | layouts.Fault]:
    name, label = row["name"], row["discrete"].lower()
    if not name:
        yield layouts.Fault(layouts.Kind.LABEL, f"{place}: has no name; fetch the file anew")
        return
    if label not in MER2023_EMOTIONS:
        yield layouts.Fault(
            layouts.Kind.LABEL,
            f"{place}: {name} is {label!r}, must be one of {', '.join(MER2023_EMOTIONS)}",
        )
    yield Utterance(
        id=name,
        path=_sound_of(source, part, name),
        corpus="mer2023",
        language="zh",
        emotion=MER2023_EMOTIONS.get(label),
        label=label if label in MER2023_EMOTIONS else None,
        captions=captions.get(name, ()),
    )


def _sound_of(source: Path, part: str, name: str) -> Path:
    """The sound of a clip, or else its film, or else where it should be."""
    for suffix in _SUFFIXES:
        for folder in (source / "audio", source / part):
            if (file := folder / f"{name}{suffix}").exists():
                return file
    return source / part / f"{name}.wav"


def _read_mer2023_captions(
    source: Path, captions: dict[str, tuple[str, ...]]
) -> Iterator[layouts.Fault]:
    """Fill in what EMER's csv files say is heard, English first; faults are given out."""
    labels = {f"{part}-label.csv" for part in PARTS}
    for file in sorted(source.glob("*.csv")):
        if file.name in labels:
            continue
        try:
            for place, row in layouts.read_table(file, ("name", "english", "chinese")):
                heard = tuple(_mer2023_heard(row[language], language) for language in _HEARD)
                if not any(heard):
                    yield layouts.Fault(
                        layouts.Kind.CAPTION,
                        f'{place}: {row["name"]} has no sentence that begins "In the audio,"; '
                        "add one or take the row away",
                    )
                captions[row["name"]] = tuple(text for text in heard if text)
        except DataError as error:
            yield layouts.Fault(layouts.Kind.CAPTION, str(error))


def _mer2023_heard(description: str, language: str) -> str:
    """Of a description, what its sentence on the audio says: "the man's voice is low." """
    match = _HEARD[language].search(description)
    if match is None:
        return ""
    sentence = match[1].strip()
    return sentence[:1].upper() + sentence[1:]


MER2023 = layouts.Corpus(
    name="mer2023",
    counts=MappingProxyType({layouts.ALL: 5030}),
    fetch=MER2023_FETCH,
    find=find_mer2023,
)


SECAP_FETCH = "the test set (600 clips) that https://github.com/thuhcsi/SECap links to"


def find_secap(source: Path) -> Iterator[Utterance | layouts.Fault]:
    """The clips that wav.scp names."""
    listed = source / "wav.scp"
    if not listed.is_file():
        raise DataError(f"{source}: has no wav.scp; fetch {SECAP_FETCH}")
    captions: dict[str, tuple[str, ...]] = {}
    texts: dict[str, str] = {}
    try:
        captions = read_captions(source / "fid2captions.json")
    except DataError as error:
        yield layouts.Fault(layouts.Kind.LABEL, str(error))
    yield from _read_pairs(source / "text.txt", texts)
    files: dict[str, str] = {}
    yield from _read_pairs(listed, files)
    for clip, file in files.items():
        if captions and clip not in captions:
            yield layouts.Fault(
                layouts.Kind.CAPTION, f"{clip}: has no caption in fid2captions.json; fetch it anew"
            )
        yield Utterance(
            id=clip,
            path=_secap_place(source, file),
            corpus="secap",
            language="zh",
            text=texts.get(clip),
            captions=captions.get(clip, ()),
        )
    for clip in sorted(captions.keys() - files.keys()):
        yield layouts.Fault(
            layouts.Kind.MISSING,
            f"{clip}: has a caption but no line in {listed}; fetch {SECAP_FETCH}",
        )


def _secap_place(source: Path, file: str) -> Path:
    """Where a listed file is: as listed, or by its name where it was listed on another machine."""
    listed, name = source / file, Path(file).name
    places = (listed, source / "wav" / name, source / "wavs" / name, source / name)
    return next((place for place in places if place.exists()), listed)


def _read_pairs(file: Path, pairs: dict[str, str]) -> Iterator[layouts.Fault]:
    """Fill in the second word and what follows, by the first; faults are given out."""
    try:
        for place, line in layouts.read_lines(file):
            clip, _, rest = line.replace("\t", " ", 1).partition(" ")
            if not rest.strip():
                yield layouts.Fault(
                    layouts.Kind.LABEL,
                    f"{place}: {line[:40]!r} is one word, must be two; fetch it anew",
                )
            elif clip in pairs:
                yield layouts.Fault(
                    layouts.Kind.DUPLICATE,
                    f"{place}: {clip} has a line before; take one of them away",
                )
            else:
                pairs[clip] = rest.strip()
    except DataError as error:
        yield layouts.Fault(layouts.Kind.LABEL, str(error))


SECAP = layouts.Corpus(
    name="secap",
    counts=MappingProxyType({layouts.ALL: 600}),
    rates_hz=frozenset({24_000}),
    fetch=SECAP_FETCH,
    find=find_secap,
)


FOLDER_FETCH = "it from where it came"


def find_folder(source: Path) -> Iterator[Utterance | layouts.Fault]:
    """Every recording below a folder; its id is its place in the folder without the suffix."""
    name = source.resolve().name
    for file in layouts.sound_files(source):
        place = file.relative_to(source).with_suffix("")
        clip = Utterance(id=place.as_posix(), path=file, corpus=name)
        try:
            clip = _described(clip)
        except DataError as error:
            yield layouts.Fault(layouts.Kind.LABEL, str(error))
        yield clip


def _described(clip: Utterance) -> Utterance:
    """A clip with what is written beside it."""
    told = clip.path.with_suffix(".json")
    if told.is_file():
        try:
            row = json.loads(told.read_text("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{told}: not JSON in UTF-8 ({error}); mend it") from error
        if not isinstance(row, dict):
            raise DataError(f"{told}: holds a {type(row).__name__}; write one JSON object")
        own = {"id": clip.id, "corpus": clip.corpus, **row, "file": clip.path.name}
        clip = utterance_of_row(own, folder=clip.path.parent, place=str(told))
    written = clip.path.with_suffix(".txt")
    if written.is_file():
        captions = (*clip.captions, *(line for _, line in layouts.read_lines(written)))
        clip = replace(clip, captions=tuple(dict.fromkeys(captions)))
    return clip


FOLDER = layouts.Corpus(
    name="folder",
    counts=MappingProxyType({}),
    fetch=FOLDER_FETCH,
    find=find_folder,
)


_AUDIO = (layouts.ESD, layouts.IEMOCAP)


EMOSEC_FETCH = (
    f"the captions from https://zenodo.org/records/10948423, and {_AUDIO[0].fetch}, "
    f"and {_AUDIO[1].fetch}"
)


def find_emosec(source: Path) -> Iterator[Utterance | layouts.Fault]:
    """The clips of ESD and IEMOCAP below a folder that have captions."""
    files = sorted(source.glob("*.json"))
    if not files:
        raise DataError(f"{source}: has no .json file of captions; fetch {EMOSEC_FETCH}")
    captions: dict[str, tuple[str, ...]] = {}
    for file in files:
        try:
            captions |= read_captions(file)
        except DataError as error:
            yield layouts.Fault(layouts.Kind.LABEL, str(error))
    if not captions:  # or every clip would be said to have none
        return
    left = set(captions)
    for corpus in _AUDIO:
        for found in corpus.find(source):
            if isinstance(found, layouts.Fault):
                if found.kind is not layouts.Kind.MISSING:  # the captions name it as well
                    yield found
            elif texts := captions.get(found.id):
                left.discard(found.id)
                yield replace(found, corpus="emosec", captions=texts)
            else:
                yield layouts.Fault(
                    layouts.Kind.CAPTION,
                    f"{found.path}: has no caption in {_names(files)}; fetch the captions anew",
                )
    for stem in sorted(left):
        yield _captioned_only(stem, source)


def emosec_part(utterance: Utterance) -> str:
    """The corpus that its sound is from."""
    return "iemocap" if layouts.IEMOCAP_STEM.fullmatch(utterance.id) else "esd"


def _captioned_only(stem: str, source: Path) -> layouts.Fault:
    patterns = ((layouts.ESD, layouts.ESD_STEM), (layouts.IEMOCAP, layouts.IEMOCAP_STEM))
    owner = next((corpus for corpus, pattern in patterns if pattern.fullmatch(stem)), None)
    if owner is None:
        hint = "its name is neither of ESD nor of IEMOCAP; mend the captions"
    else:
        hint = f"fetch {owner.fetch}"
    return layouts.Fault(
        layouts.Kind.MISSING, f"{stem}: has a caption but no sound file below {source}; {hint}"
    )


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)


EMOSEC = layouts.Corpus(
    name="emosec",
    counts=MappingProxyType({"esd": 35_000, "iemocap": 10_039}),
    rates_hz=frozenset({16_000}),
    fetch=EMOSEC_FETCH,
    find=find_emosec,
    part_of=emosec_part,
)


CORPORA: Mapping[str, layouts.Corpus] = {
    corpus.name: corpus
    for corpus in (
        EMOSEC,
        MER2023,
        layouts.NNIME,
        SECAP,
        layouts.ESD,
        layouts.IEMOCAP,
        layouts.RAVDESS,
        layouts.EMODB,
        FOLDER,
    )
}


def open_corpus(name: str) -> layouts.Corpus:
    """The corpus of that name; UnknownNameError where there is none."""
    if name not in CORPORA:
        raise UnknownNameError("corpus", name, CORPORA)
    return CORPORA[name]
