"""A corpus annotated shard by shard, by several processes or machines, and taken up again.

First each shard is measured and captioned into a file of its own under `.annotate`; once all are
there, speakers are known, and the rows are written with all columns. Every file is there whole or
not at all, so that a run goes on after any kill where it was.
"""

import json
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, cast

from aligncap.captioner.checkpoint import find_model, model_fingerprint
from aligncap.errors import AlignCapError, DataError, LostProcessError, RecipeError
from aligncap.foreign import read_table
from aligncap.storage import atomic_file, hash_of, hash_of_parts, usable_cores, write_atomic
from aligncap.tts.annotator import (
    AnnotateSettings,
    Annotator,
    check_voices,
    complete,
    merged,
    open_captioner,
    speaker_of,
    usual_voices,
)
from aligncap.tts.bins import read_bins
from aligncap.tts.measures import Row, Speaker, statistics_of
from aligncap.tts.sources import Corpus, Shard
from aligncap.tts.tables import (
    AUDIO,
    Kinds,
    audio_column,
    embedded,
    fields_of,
    joined,
    note,
    schema_of,
    write_shard,
)
from aligncap.values import Baseline

WORK_FOLDER = ".annotate"
DATA_FOLDER = "data"
NAMES = {
    "corpus": "corpus or --shard-rows",
    "shards": "corpus or --shard-rows",
    "bins": "content of --bins",
}
"""What a plan's entries are on the command line, where they are called otherwise."""
OFTEN = 16
"""Rows after which progress is told."""

Told = Callable[[int, float], None]
"""Hears of progress: rows that are done, and seconds of sound in them."""

OpenModel = Callable[[AnnotateSettings], Any]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to."""

    rows: int
    failed: int
    sound_s: float
    """Of all rows that are annotated, now or before."""
    unmeasured: int
    """Shards that other processes have yet to measure; the corpus is written when it is 0."""


@dataclass(frozen=True)
class AnnotateRun:
    """A corpus, where it goes, and how."""

    corpus: Corpus
    out: Path
    settings: AnnotateSettings
    audio: bool = True
    """Whether the recordings are written too."""
    jobs: int = 1
    part: tuple[int, int] = (0, 1)
    """Number of this machine, from 0, and how many there are."""
    open_model: OpenModel = open_captioner

    def __call__(self, told: Told = lambda *_: None) -> Summary:
        """Annotate what is left of this part, and write the corpus once all parts are done.

        Raises DataError where `out` holds something else, LostProcessError where a process died.
        """
        self.check_plan()
        tasks = [
            (number, (self._found(number), self.corpus.shards[number])) for number in self.left
        ]
        threads = self.settings.threads or max(1, usable_cores() // self.jobs)
        settings = replace(self._read_settings, threads=threads)
        usual = self.usual if tasks else {}
        run_tasks(MeasureJob(settings, self.open_model, usual), tasks, self.jobs, told)
        numbers = range(len(self.corpus.shards))
        unmeasured = sum(not self._found(number).exists() for number in numbers)
        if not unmeasured:
            self._write(told)
        ends = [read_end(self._found(number)) for number in numbers if self._found(number).exists()]
        return Summary(
            sum(one["rows"] for one in ends),
            sum(one["failed"] for one in ends),
            sum(one["sound_s"] for one in ends),
            unmeasured,
        )

    @property
    def left(self) -> list[int]:
        """The numbers of the shards of this part that are still to be measured."""
        own, of = self.part
        numbers = range(own, len(self.corpus.shards), of)
        return [number for number in numbers if not self._found(number).exists()]

    @cached_property
    def usual(self) -> dict[str, Baseline]:
        """How each speaker of the corpus usually sounds, if captions are to be relative to that;
        they are heard at the first call."""
        if not self.settings.per_speaker:
            return {}
        captioner = self.open_model(self._read_settings)
        return usual_voices(captioner, self._rows, self._read_settings)

    def _rows(self) -> Iterator[Row]:
        return chain.from_iterable(shard.read() for shard in self.corpus.shards)

    @property
    def _read_settings(self) -> AnnotateSettings:
        # A corpus' rows have in `audio` what a text in another column names.
        audio = None if self._audio_column() == AUDIO else self.settings.audio
        return replace(self.settings, audio=audio)

    def remove_earlier(self) -> None:
        """Remove what was annotated in `out` before; the corpus is open, and the model and who
        speaks are looked for first.

        RecipeError where other machines do parts of it, DataError where `out` holds more.
        """
        if self.part[1] > 1:
            raise RecipeError(
                f"--overwrite: would remove what others of the {self.part[1]} parts have done; "
                f"remove {self.out} before the first one starts, or give another --out"
            )
        find_model(self.settings.model)
        self._check_voices()
        if not (self.out / WORK_FOLDER).is_dir():
            return
        if {one.name for one in self.out.iterdir()} - {WORK_FOLDER, DATA_FOLDER}:
            raise DataError(f"{self.out}: holds something else too; choose another --out")
        # The plan goes last: without it, what is left after a kill would be somebody else's.
        shutil.rmtree(self.out / DATA_FOLDER, ignore_errors=True)
        shutil.rmtree(self.out / WORK_FOLDER)

    def done(self) -> int:
        """Rows that are annotated already."""
        paths = (self._found(number) for number in range(len(self.corpus.shards)))
        return sum(read_end(path)["rows"] for path in paths if path.exists())

    def _found(self, number: int) -> Path:
        return self.out / WORK_FOLDER / f"{number:05d}.jsonl"

    def check_plan(self) -> None:
        """Begin the folder; DataError where that was done with another corpus, model or settings,
        or where it holds something else."""
        made = {
            "corpus": hash_of_parts(f"{one.split}:{one.described}\n" for one in self.corpus.shards),
            "shards": len(self.corpus.shards),
            "settings": json.loads(self.settings.signature),
            "bins": hash_of(repr(read_bins(self.settings.bins))),
            "model": model_fingerprint(find_model(self.settings.model))[:12],
            "audio": self.audio,
        }
        path = self.out / WORK_FOLDER / "plan.json"
        if path.exists():
            found = read_table(path, hint="choose another --out")
            if _names(found) != _names(made):
                raise DataError(
                    f"{self.out}: was begun by another version of aligncap, which noted other "
                    "things of the corpus; end it with that, give --overwrite, or another --out"
                )
            for name, value in made.items():
                if found.get(name) != value:
                    raise DataError(
                        f"{self.out}: was begun with another {NAMES.get(name, name)}; "
                        "give what it was begun with, --overwrite, or another --out"
                    )
            return
        if self.out.exists() and any(one.name != WORK_FOLDER for one in self.out.iterdir()):
            raise DataError(f"{self.out}: holds something else; choose another --out")
        self._check_voices()
        write_atomic(path, json.dumps(made, indent=1) + "\n")

    def _check_voices(self) -> None:
        if self.settings.per_speaker:
            check_voices(self._rows(), self._read_settings)

    def _write(self, told: Told) -> None:
        """Write every shard that is not there yet with all columns."""
        places = [self._found(number) for number in range(len(self.corpus.shards))]
        targets = output_paths(self.corpus.shards, self.out)
        if all(target.exists() for target in targets):
            return
        ends = [read_end(place) for place in places]
        given, found = (
            joined({name: set(found) for name, found in end[key].items()} for end in ends)
            for key in ("given", "columns")
        )
        audio = self._audio_column()
        fields, features = fields_of(self.corpus, given, audio)
        if not self.audio:
            fields.pop(audio, None)
        schema = schema_of(fields, self.settings, found, features)
        speakers = statistics_of(
            (line["speaker"], line["found"]) for place in places for line in read_found(place)
        )
        job = WriteJob(self.settings, speakers, schema, audio)
        tasks = [
            (number, (place, target, shard))
            for number, (place, target, shard) in enumerate(
                zip(places, targets, self.corpus.shards, strict=True)
            )
            if not target.exists()
        ]
        run_tasks(job, tasks, self.jobs, told)

    def _audio_column(self) -> str:
        return audio_column(self.corpus, self.settings.audio)


def output_paths(shards: Sequence[Shard], out: Path) -> list[Path]:
    """Where each shard is written: data/train-00000-of-00003.parquet."""
    splits = [shard.split for shard in shards]
    seen: dict[str, int] = {}
    paths = []
    for split in splits:
        number = seen.get(split, 0)
        seen[split] = number + 1
        paths.append(
            out / DATA_FOLDER / f"{split}-{number:05d}-of-{splits.count(split):05d}.parquet"
        )
    return paths


def read_found(path: Path) -> Iterator[dict[str, Any]]:
    """What was found of the rows of a shard, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "found" in row:
                yield row


def read_end(path: Path) -> dict[str, Any]:
    """The last line of a shard's file: its rows, failures, seconds of sound and kinds."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        size, block = file.tell(), 1 << 12
        while True:
            file.seek(max(0, size - block))
            tail = file.read().rstrip(b"\n")
            if b"\n" in tail or block >= size:
                end: dict[str, Any] = json.loads(tail.rpartition(b"\n")[2])
                return end
            block *= 4


class Job(Protocol):
    """What is done with a task; it goes to other processes by pickle."""

    def __call__(self, *task: Any) -> Iterator[tuple[int, float]]:
        """Do a task and give out progress: rows and seconds of sound since the last."""


@dataclass(frozen=True)
class MeasureJob:
    """Measures and captions a shard."""

    settings: AnnotateSettings
    open_model: OpenModel
    usual: Mapping[str, Baseline]

    @cached_property
    def annotator(self) -> Annotator:
        """The model, opened with the first shard."""
        return Annotator(self.settings, self.open_model)

    def __call__(self, place: Path, shard: Shard) -> Iterator[tuple[int, float]]:
        """Write what is found of each row to `place`."""
        waiting: deque[Row] = deque()

        def noted() -> Iterator[Row]:
            for row in shard.read():
                waiting.append(row)
                yield row

        end: dict[str, Any] = {"rows": 0, "failed": 0, "sound_s": 0.0}
        given: Kinds = {}
        columns: Kinds = {}
        news, seconds = 0, 0.0
        with atomic_file(place) as file:
            for found in self.annotator.columns(noted(), self.usual):
                row = waiting.popleft()
                print(
                    json.dumps({"speaker": speaker_of(row, self.settings), "found": found}),
                    file=file,
                )
                note(given, row)
                note(columns, found)
                length = found.get("duration_s") or 0.0
                end["rows"] += 1
                end["failed"] += found.get("error") is not None
                end["sound_s"] += length
                news, seconds = news + 1, seconds + length
                if news == OFTEN:
                    yield news, seconds
                    news, seconds = 0, 0.0
            for name, kinds in (("given", given), ("columns", columns)):
                end[name] = {column: sorted(found) for column, found in kinds.items()}
            print(json.dumps(end), file=file)
        yield news, seconds


@dataclass(frozen=True)
class WriteJob:
    """Writes the rows of a shard with all columns."""

    settings: AnnotateSettings
    speakers: Mapping[str, Speaker]
    schema: Any
    audio: str
    """The column of the recordings."""

    def __call__(self, place: Path, target: Path, shard: Shard) -> Iterator[tuple[int, float]]:
        """Write `target` of the corpus' rows and what `place` has of them."""
        write_shard(target, self.schema, self._rows(place, shard))
        yield 0, 0.0

    def _rows(self, place: Path, shard: Shard) -> Iterator[Row]:
        try:
            for row, line in zip(shard.read(), read_found(place), strict=True):
                whole = merged(row, line["found"], self.settings)
                if self.audio in whole and self.audio in self.schema.names:
                    self._embed(whole)
                yield complete(whole, self.speakers, self.settings)
        except ValueError as error:
            raise DataError(
                f"{target_name(place)}: the corpus has changed while it was annotated; "
                "annotate it anew"
            ) from error

    def _embed(self, row: Row) -> None:
        import pyarrow as pa

        if pa.types.is_struct(self.schema.field(self.audio).type):
            row[self.audio] = embedded(row[self.audio])


def _names(plan: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """What a plan notes, and which settings."""
    return set(plan), set(plan.get("settings") or ())


def target_name(place: Path) -> str:
    """The folder that a shard's file is for."""
    return str(place.parent.parent)


def run_tasks(job: Job, tasks: Sequence[tuple[int, Any]], jobs: int, told: Told) -> None:
    """Do all tasks, in this process or in `jobs` others; what they raise is raised here.

    LostProcessError where a process died.
    """
    if jobs <= 1 or len(tasks) <= 1:
        for _, task in tasks:
            for rows, seconds in job(*task):
                told(rows, seconds)
        return
    context = get_context("spawn")
    left = iter(tasks)
    processes = {}
    try:
        for _, task in islice(left, jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
            ours.send(task)
        busy = set(processes)
        while busy:
            # Windows' connections are of a class of their own, which does the same.
            for ready in cast(list[Connection], wait(list(busy))):
                if _hear(ready, told):
                    following = next(left, None)
                    if following is None:
                        busy.discard(ready)
                    else:
                        ready.send(following[1])
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
            process.join()


def _hear(connection: Connection, told: Told) -> bool:
    """Take one message; whether the task is done."""
    try:
        message = connection.recv()
    except (EOFError, OSError) as error:
        raise LostProcessError(
            "a process died (out of memory?); shards that are done are kept: "
            "the same command goes on, with fewer --jobs if memory was short"
        ) from error
    if isinstance(message, str):
        raise DataError(message)
    if isinstance(message, ModuleNotFoundError | OSError):
        raise message
    if message is None:
        return True
    told(*message)
    return False


def _serve(connection: Connection, job: Job) -> None:
    """In a process of its own: do tasks until there is nobody who sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            for message in _messages(job, task):
                connection.send(message)


def _messages(job: Job, task: Sequence[Any]) -> Iterator[Any]:
    """The progress of a task and None at its end, or what it raised."""
    try:
        yield from job(*task)
    except AlignCapError as error:
        yield str(error)  # one of ours need not be made of its message alone, as pickle has it
    except ModuleNotFoundError as error:
        yield error
    except OSError as error:  # a full disk
        yield OSError(error.errno, error.strerror or str(error), error.filename)
    else:
        yield None
