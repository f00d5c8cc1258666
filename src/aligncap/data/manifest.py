"""Manifests: JSON lines, one utterance a line, read as a stream; which labels are relied on; and
the facts of whole corpora, measured once by several processes and kept as JSON lines.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, zip_longest
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from aligncap.audio import load
from aligncap.clues import emotion_of
from aligncap.errors import DataError
from aligncap.prosody import measure
from aligncap.storage import atomic_file, decoded, printable, usable_cores
from aligncap.values import EMOTIONS, VOCALIZATIONS, Fact, Facts

Row = dict[str, Any]


def read_rows(path: Path, *, what: str) -> Iterator[tuple[str, Row]]:
    """The objects of a file of JSON lines, each after its place ("m.jsonl:3"), one at a time.

    Blank lines are passed over. `what` is the file's name in messages ("manifest"). Raises
    DataError at the first line that is not a JSON object in UTF-8; NaN is not JSON.
    """
    for place, row in read_each_row(path, what=what):
        if isinstance(row, DataError):
            raise row
        yield place, row


def read_each_row(path: Path, *, what: str) -> Iterator[tuple[str, Row | DataError]]:
    """As `read_rows`, but a line that is not an object is given out as its error and the rest
    goes on."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                place = f"{path}:{number}"
                try:
                    text = decoded(line, place, what).strip()
                    if not text:
                        continue
                    row: Row | DataError = _object(text, place)
                except DataError as error:
                    row = error
                yield place, row
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the {what} ({error.strerror}); give a file of JSON lines"
        ) from error


def _object(text: str, place: str) -> Row:
    def refuse(word: str) -> None:
        raise DataError(f"{place}: holds {word}, which is not JSON; write a number or null")

    try:
        row = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}); write one object a line") from error
    except (RecursionError, ValueError) as error:  # nested without end; a number of 5,000 digits
        raise DataError(f"{place}: not JSON that can be read; write one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: holds a {type(row).__name__}; write one JSON object a line")
    return row


def read_csv(
    path: Path, *, what: str, delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str | None] | DataError]]:
    """The rows of a table with a heading, each after its place; columns without a name are passed
    over, cells that a row lacks are None.

    A row with more cells than the heading is given out as its error and the rest goes on: most
    often its text has a comma and no quotes. DataError where the file is no table in UTF-8, or its
    quotes do not match.
    """
    try:
        text = decoded(path.read_bytes(), str(path), what)
    except OSError as error:
        raise DataError(f"{path}: cannot read the {what} ({error.strerror})") from error
    rows = csv_rows(path, text, delimiter=delimiter)
    _, heading = next(rows, ("", []))
    for place, cells in rows:
        if any(cells[len(heading) :]):
            quote = f"put a text with {delimiter!r} in double quotes"
            yield place, DataError(f"{place}: has more cells than the heading; {quote}")
        else:
            told = dict(zip(heading, cells, strict=False))
            yield place, {key: told.get(key) for key in heading if key}


def csv_rows(path: Path, text: str, *, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table, its heading first, each after the place of its last line; blank lines
    and spaces before a cell are passed over.

    A cell in double quotes may hold several lines. DataError, with the first line of the row, where
    quotes do not match, or another row begins within them. Where tabs part the cells and the line
    has as many as the heading, its quotes are taken for a part of its text then: many programs put
    nothing in quotes there.
    """
    # Only what ends a line of csv does: a text may hold a line separator of Unicode.
    lines = list(io.StringIO(text, newline=""))
    at, width, before = 0, 0, list[str]()
    while at < len(lines):
        rows = csv.reader(
            (lines[number] for number in range(at, len(lines))),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=True,
        )
        try:
            cells = next(rows)
            taken, wrong = rows.line_num, _swallowed(cells, before, delimiter)
        except csv.Error as error:
            cells, taken, wrong = [], 1, f"no row of csv ({error})"
        if wrong:
            cells, taken = lines[at].rstrip("\r\n").split(delimiter), 1
            if delimiter != "\t" or len(cells) != width:
                raise DataError(
                    f"{path}:{at + 1}: {wrong}; close every double quote, and write one that is "
                    "part of a text in quotes twice"
                )
        at += taken
        if cells:
            width, before = width or len(cells), cells
            yield f"{path}:{at}", cells


def _swallowed(cells: Sequence[str], before: Sequence[str], delimiter: str) -> str:
    """What is wrong where a cell in quotes holds the beginning of another row: where a line within
    it names something in the column in which its row, or the one before, names its own."""
    for cell in cells:
        for line in re.split(r"[\r\n]+", cell)[1:]:
            within = line.split(delimiter)
            if len(within) > 1 and any(
                (shape := _shape_of_name(one)) and shape in map(_shape_of_name, others)
                for one, *others in zip_longest(within, cells, before, fillvalue="")
            ):
                return f"the row {line[:40]!r} lies within its double quotes"
    return ""


def _shape_of_name(cell: str) -> str:
    """ "a/a0.a" of "wav/clip17.flac": what names of a table have in common; "" where a cell is no
    name of a file or a clip, but a word, a number or a text."""
    cell = cell.strip()
    name = re.fullmatch(r"[\w./\\-]*\w", cell) and re.search(r"[\d._/\\]", cell)
    if not name or not re.search(r"[^\W\d_]", cell):
        return ""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", cell))


def text_of(row: Row, key: str, place: str) -> str | None:
    """The text under a key; None where it is absent, null or empty."""
    value = row.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {value!r}; write it as text in quotes")
    return value


def code_of(row: Row, key: str, place: str) -> str | None:
    """As `text_of`, of an id or a code, which some corpora write as a whole number."""
    value = row.get(key)
    return str(value) if type(value) is int else text_of(row, key, place)


def texts_of(row: Row, key: str, place: str) -> tuple[str, ...]:
    """The texts under a key, none where it is absent, null or empty."""
    value = row.get(key) or ()
    if not isinstance(value, list | tuple) or not all(isinstance(c, str) and c for c in value):
        raise DataError(f"{place}: {key!r} is {value!r}; write a list of texts")
    return tuple(value)


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
AROUSALS = ("low", "neutral", "high")


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
    arousal: str | None = None
    """"low", "neutral" or "high", where a corpus grades it whatever the emotion."""
    vocalization: str | None = None
    """A category of `values.VOCALIZATIONS` where no words are spoken."""
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
        object.__setattr__(self, "id", printable(self.id))
        for name, value, known in (
            ("gender", self.gender, GENDERS),
            ("emotion", self.emotion, EMOTIONS),
            ("intensity", self.intensity, INTENSITIES),
            ("arousal_level", self.arousal, AROUSALS),
            ("vocalization", self.vocalization, VOCALIZATIONS),
        ):
            if value is not None and value not in known:
                raise DataError(f"{self.id}: {name} is {value!r}, must be {_either(known)}")
        if self.duration_s is not None and not self.duration_s >= 0:
            raise DataError(f"{self.id}: duration is {self.duration_s}, must be 0 s or more")


def read_manifest(path: str | Path) -> Iterator[Utterance]:
    """The utterances of a JSONL manifest, one at a time and in its order.

    Audio paths are relative to the manifest; blank lines are passed over and unknown keys too.
    Raises DataError, which names the file, the line and the hint, at the first line that is not
    an utterance, or has no id and a file called like another's; what came before has been given
    out.
    """
    path = Path(path)
    unnamed: dict[str, Path] = {}
    for place, row in read_rows(path, what="manifest"):
        utterance = utterance_of_row(row, folder=path.parent, place=place)
        if row.get("id") in (None, ""):
            there = unnamed.setdefault(utterance.id, utterance.path)
            if there != utterance.path:
                raise DataError(
                    f"{place}: has no id, and its file is called like {there}; give each clip an "
                    "id of its own"
                )
        yield utterance


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
            id=code_of(row, "id", place) or Path(file).stem,
            path=folder / file,
            corpus=text_of(row, "corpus", place),
            language=text_of(row, "language", place),
            speaker=code_of(row, "speaker", place),
            gender=text_of(row, "gender", place),
            emotion=SAME_EMOTION.get(emotion, emotion) if emotion else None,
            label=text_of(row, "label", place) or emotion,
            intensity=text_of(row, "intensity", place),
            arousal=text_of(row, "arousal_level", place),
            vocalization=text_of(row, "vocalization", place),
            text=text_of(row, "text", place),
            sentence=code_of(row, "sentence", place),
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
        "arousal_level": utterance.arousal,
        "vocalization": utterance.vocalization,
        "text": utterance.text,
        "sentence": utterance.sentence,
        "captions": list(utterance.captions),
        "duration": utterance.duration_s,
        "sha256": utterance.sha256,
    }
    return {key: value for key, value in row.items() if value not in (None, [])}


def _either(known: tuple[str, ...]) -> str:
    return f"{', '.join(known[:-1])} or {known[-1]}"


DOUBTFUL_GENDER_FROM = "50"
"""ASED's speakers from this number on: nine of eleven "men" have a median pitch of 228–343 Hz."""


def trusted_gender(utterance: Utterance) -> str | None:
    """The gender that a corpus gives, but None where its labels contradict its voices."""
    number = (utterance.speaker or "").removeprefix("ased_")
    doubtful = utterance.corpus == "ased" and number >= DOUBTFUL_GENDER_FROM
    return None if doubtful else utterance.gender


def labelled(utterance: Utterance) -> Utterance:
    """The utterance with the labels that are relied on: a trusted gender, and the emotion that a
    human caption names where no label does."""
    emotion = utterance.emotion
    if emotion is None and utterance.captions:
        emotion = emotion_of(utterance.captions[0])
    return replace(utterance, gender=trusted_gender(utterance), emotion=emotion)


class FactsFile(Sequence[Facts]):
    """Facts by place, each read from its line when it is asked for: a corpus' are never held."""

    def __init__(self, cache: Path, starts: NDArray[np.int64]) -> None:
        """`starts` says where in the file `cache` the line of each begins, in bytes."""
        self._cache, self._starts = cache, starts

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> Facts: ...

    @overload
    def __getitem__(self, place: slice) -> "FactsFile": ...

    def __getitem__(self, place: int | slice) -> "Facts | FactsFile":
        if isinstance(place, slice):
            return FactsFile(self._cache, self._starts[place])
        with self._cache.open("rb") as file:
            return _facts_at(file, self._starts[place])

    def __iter__(self) -> Iterator[Facts]:
        if len(self):
            with self._cache.open("rb") as file:
                for start in self._starts:
                    yield _facts_at(file, start)


def measure_all(cache: Path, paths: Sequence[Path]) -> FactsFile:
    """The facts of every file in order; those in `cache` are read, the rest measured into it.

    A run that was broken off goes on where it stopped.
    """
    known = _whole_lines(cache)
    missing = [path for path in paths if str(path) not in known]
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cores = min(usable_cores(), 61)  # Windows waits for no more
        with ProcessPoolExecutor(cores) as pool, cache.open("ab") as file:
            lines = pool.map(_line_of, missing, chunksize=16)
            progress = track(
                zip(missing, lines, strict=True),
                "measuring",
                total=len(missing),
                console=Console(stderr=True),
            )
            for path, line in progress:
                known[str(path)] = file.tell()
                file.write(f"{path}\t{line}\n".encode())
    return FactsFile(cache, np.array([known[str(path)] for path in paths], dtype=np.int64))


def _whole_lines(cache: Path) -> dict[str, int]:
    """Path → the start of its last line that was finished; a line torn off at the end is cut from
    the file, or the next one would be written onto it."""
    if not cache.exists():
        return {}
    known: dict[str, int] = {}
    start = 0
    with cache.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                os.truncate(cache, start)
                break
            known[line.partition(b"\t")[0].decode()] = start
            start += len(line)
    return known


def _facts_at(file: BinaryIO, start: np.int64) -> Facts:
    file.seek(int(start))
    return read_facts(file.readline().partition(b"\t")[2].decode())


def _line_of(path: Path) -> str:
    return write_facts(measure(load(path)))


def write_facts(facts: Facts) -> str:
    """Facts as one line of JSON."""
    return json.dumps(table_of_facts(facts))


def read_facts(line: str) -> Facts:
    """The facts that `write_facts` wrote."""
    return facts_of(json.loads(line))


def table_of_facts(facts: Facts) -> list[object]:
    """Facts as plain JSON values: seconds, seconds of speech, and every fact by name."""
    rows = {one.name: [one.value, one.unit, one.confidence, one.reason] for one in facts}
    return [facts.duration_s, facts.speech_s, rows]


def facts_of(table: Sequence[Any]) -> Facts:
    """The facts that `table_of_facts` took apart."""
    duration_s, speech_s, rows = table
    named = {name: Fact(name, *row) for name, row in rows.items()}
    return Facts(duration_s, speech_s, MappingProxyType(named))
