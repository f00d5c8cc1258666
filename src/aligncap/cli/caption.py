"""From what was typed to the recordings meant: files, folders, globs, manifests, standard input.

What is written of one recording, and what an earlier run has written already.

Captions as text for a person, or as jsonl or csv for a program; each written as it is ready.

`aligncap caption`: recordings in, captions out, in order and as they are ready.
"""

import csv
import glob
import json
import os
import tempfile
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from aligncap.audio.files import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES
from aligncap.cli.console import Captions, Console, Progress, open_served, warnings_said
from aligncap.errors import AlignCapError, AudioError, DataError, RecipeError
from aligncap.values import Caption, Evidence, Waveform

SOUND_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd", b"ID3", b"\xff\xfb")
"""How a sound file begins; on standard input, it tells audio from a list of paths."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recording: what to call it, and where its sound is or why there is none."""

    file: str
    """As typed or found; the `file` of a record."""
    audio: Path | Waveform | AlignCapError


def find_sources(paths: Iterable[str], *, world: Console) -> Iterator[Source]:
    """The recordings meant by `paths`, in order, each once; folders are searched as reached."""
    seen: set[str] = set()
    for path in paths:
        found = _of_stdin(world) if path == "-" else _of_path(path)
        for source in found:
            if source.file not in seen:
                seen.add(source.file)
                yield source


def _of_path(path: str) -> Iterator[Source]:
    place = Path(path)
    if place.is_dir():
        yield from _of_folder(path)
    elif place.suffix.lower() == ".jsonl" and place.is_file():
        yield from _of_manifest(place)
    elif glob.has_magic(path) and not place.exists():
        yield from _of_glob(path)
    else:
        yield Source(path, place)


def _of_glob(pattern: str) -> Iterator[Source]:
    names = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207  keeps what was typed
    if not names:
        yield Source(pattern, AudioError(f"{pattern}: no file matches"))
    for name in names:
        if not os.path.isdir(name) or "**" not in pattern:  # noqa: PTH112
            yield from _of_path(name)


def _of_folder(folder: str) -> Iterator[Source]:
    """Every recording below a folder, sorted; anything else in it is passed over."""
    found = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        sounds = [name for name in folders if _is_sound(name)]
        for name in sounds:  # a folder called x.wav: `load` says what is wrong with it
            folders.remove(name)
        for name in sorted([*sounds, *(name for name in files if _is_sound(name))]):
            found += 1
            file = os.path.join(place, name)  # noqa: PTH118  Path would drop a leading ./
            yield Source(file, Path(file))
    if not found:
        yield Source(folder, AudioError(f"{folder}: no sound file in this folder"))


def _is_sound(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return not name.startswith(".") and suffix in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES


def _of_manifest(manifest: Path) -> Iterator[Source]:
    """The recordings of a manifest; a broken line is one source with its error, the rest go on.

    Only `file` is asked for: labels that training could not use do not stop a caption.
    """
    with manifest.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _of_line(line, manifest=manifest, place=f"{manifest}:{number}")


def _of_line(line: str, *, manifest: Path, place: str) -> Source:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        return Source(place, DataError(f"{place}: not JSON ({error.msg}); mend or remove the line"))
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
        return Source(place, DataError(f'{place}: no "file"; each line is {{"file": "a.wav", …}}'))
    file = manifest.parent / name
    return Source(str(file), file)


def _of_stdin(world: Console) -> Iterator[Source]:
    """Paths, one a line, or the bytes of one sound file."""
    data = world.stdin.buffer.read()
    if data.startswith(SOUND_MAGIC) or b"\0" in data[:64]:
        yield _of_bytes(data)
        return
    paths = [os.fsdecode(line) for line in data.splitlines() if line]
    if not paths:
        yield Source("stdin", AudioError("stdin: neither a path nor sound on standard input"))
    for path in paths:
        yield from _of_path(path)


def _of_bytes(data: bytes) -> Source:
    """Sound by way of a file of our own, so that it is read and refused as any other."""
    from aligncap.audio import load

    with tempfile.TemporaryDirectory(prefix="aligncap-") as folder:
        file = Path(folder) / "stdin"
        file.write_bytes(data)
        try:
            return Source("stdin", replace(load(file), source="stdin"))
        except AudioError as error:
            return Source("stdin", AudioError(str(error).replace(str(file), "stdin")))


Record = dict[str, Any]
"""One line of jsonl: a caption and what is known beside it, or `file` and `error`."""

COLUMNS = (
    "file",
    "duration_s",
    "language",
    "caption",
    "clues",
    "emotion",
    "arousal",
    "valence",
    "gender",
    "pitch",
    "loudness",
    "pace",
    "confidence",
    "model",
    "part_s",
    "candidates",
    "error",
)
"""The columns of csv; a jsonl record has those of them that it has a value for."""


def caption_record(file: str, caption: Caption) -> Record:
    """A caption as plain values; `part_s` only where the recording is longer than the model reads,
    `candidates` only where others were asked for."""
    record: Record = {
        "file": file,
        "duration_s": round(caption.duration_s, 3),
        "language": caption.language,
        "caption": caption.text,
        "clues": [_clue(evidence) for evidence in caption.evidence],
        "emotion": {label: round(float(share), 4) for label, share in caption.emotion.items()},
        "arousal": _rounded(caption.arousal),
        "valence": _rounded(caption.valence),
        "gender": caption.gender,
        "pitch": caption.pitch,
        "loudness": caption.loudness,
        "pace": caption.pace,
        "confidence": round(float(caption.confidence), 4),
        "model": caption.model,
    }
    if caption.part_s is not None:
        record["part_s"] = [round(float(edge), 2) for edge in caption.part_s]
    if caption.candidates:
        record["candidates"] = list(caption.candidates)
    return record


def error_record(file: str, error: Exception) -> Record:
    """A recording that has no caption, and why."""
    message = " ".join(str(error).split("\n"))
    return {"file": file, "error": message if file in message else f"{file}: {message}"}


def _clue(evidence: Evidence) -> dict[str, str]:
    return {
        "word": evidence.clue.word,
        "trait": evidence.clue.trait,
        "verdict": evidence.verdict.value,
        "evidence": evidence.measurement,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), 3)


def csv_row(record: Record) -> list[str]:
    """A record as cells; clues as "word=verdict; …", emotions as "label=probability; …"."""
    cells = dict(record)
    if "clues" in record:
        cells["clues"] = "; ".join(f"{clue['word']}={clue['verdict']}" for clue in record["clues"])
    if "emotion" in record:
        cells["emotion"] = _shares(record["emotion"])
    if "part_s" in record:
        cells["part_s"] = "{}-{}".format(*record["part_s"])
    if "candidates" in record:
        cells["candidates"] = " | ".join(record["candidates"])
    return ["" if cells.get(name) is None else str(cells[name]) for name in COLUMNS]


def _shares(shares: Mapping[str, float]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return "; ".join(f"{label}={share:.2f}" for label, share in ranked)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an output file held before this run."""

    done: frozenset[str] = frozenset()
    """The files that it has, failed ones included."""
    failed: int = 0


def read_earlier(output: Path, *, format: str) -> Earlier:  # noqa: A002
    """The files that an output has; a last line torn by a kill is cut off the file.

    Raises DataError where the file is not such an output, before anything is written to it.
    """
    if not output.exists():
        return Earlier()
    _cut_torn_line(output)
    with output.open(encoding="utf-8", newline="", errors="surrogateescape") as lines:
        try:
            records = (
                list(csv.DictReader(lines)) if format == "csv" else list(map(json.loads, lines))
            )
            done = [record["file"] for record in records]
        except (json.JSONDecodeError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{output}: holds no {format} of aligncap caption; choose another --output"
            ) from error
    return Earlier(frozenset(done), sum(bool(record.get("error")) for record in records))


def _cut_torn_line(output: Path) -> None:
    """Cut a file after its last line end."""
    block = 1 << 16
    with output.open("r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                file.truncate(start + last + 1)
                return
            end = start
        file.truncate(0)


MARKS = {"supported": "✓", "contradicted": "✗", "cannot tell": "?"}
COLOURS = {"supported": "green", "contradicted": "red", "cannot tell": "bright_black"}


class Writer(Protocol):
    """Writes records one at a time."""

    tells_errors: bool
    """Whether an error record is in what it writes; if not, it must be said elsewhere."""

    def write(self, record: Record) -> None:
        """One record, on its way out when this returns."""


class JsonlWriter:
    """One JSON object a line, in UTF-8."""

    tells_errors = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """One line."""
        print(json.dumps(record, ensure_ascii=False), file=self._stream, flush=True)


class CsvWriter:
    """One row a recording, below a row of names."""

    tells_errors = True

    def __init__(self, stream: TextIO, *, heading: bool) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, lineterminator="\n")
        if heading:
            self._rows.writerow(COLUMNS)

    def write(self, record: Record) -> None:
        """One row."""
        self._rows.writerow(csv_row(record))
        self._stream.flush()


class TextWriter:
    """The file, its caption, other candidates; with `evidence`, the clues and what was measured."""

    tells_errors = False

    def __init__(self, stream: TextIO, *, evidence: bool) -> None:
        self._stream = stream
        self._evidence = evidence
        self._colour = stream.isatty()

    def write(self, record: Record) -> None:
        """A few lines; an error record is passed over."""
        if "error" in record:
            return
        lines = [f"{record['file']}  ({_length(record)})", f"  {record['caption']}"]
        lines += [f"  or: {other}" for other in record.get("candidates", ())]
        if self._evidence:
            lines += clue_lines(record["clues"], colour=self._colour)
        print(*lines, sep="\n", file=self._stream, flush=True)


def _length(record: Record) -> str:
    length = f"{record['duration_s']:.1f} s"
    if "part_s" not in record:
        return length
    start, end = record["part_s"]
    return f"{length}, of which {start:.1f} to {end:.1f} s are captioned"


def clue_lines(clues: list[dict[str, str]], *, colour: bool) -> list[str]:
    """A line for each clue: verdict, word, trait, measurement, in columns."""
    word = max((cells(clue["word"]) for clue in clues), default=0)
    trait = max((cells(clue["trait"]) for clue in clues), default=0)
    return [
        f"    {_mark(clue['verdict'], colour=colour)} {pad(clue['word'], word)}  "
        f"{pad(clue['trait'], trait)}  {clue['evidence'] or clue['verdict']}"
        for clue in clues
    ]


def _mark(verdict: str, *, colour: bool) -> str:
    if not colour:
        return MARKS[verdict]
    import typer

    return typer.style(MARKS[verdict], fg=COLOURS[verdict])


def cells(text: str) -> int:
    """How many columns of a terminal a text takes; a Chinese character takes two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def pad(text: str, width: int) -> str:
    """The text, filled with spaces to `width` columns."""
    return text + " " * (width - cells(text))


SOME_FAILED = 1
INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionOptions:
    """What was asked for; `format` None means what the output's suffix says, else text."""

    model: str
    language: str
    format: str | None
    candidates: int
    evidence: bool
    output: Path | None
    resume: bool
    endpoint: str | None = None
    """Base URL of a server that has the language model."""
    served: str | None = None
    """The name it has there."""
    tokenizer_weights: Path | None = None
    """Where the model's speech tokenizer is, if it is not in its folder."""

    @property
    def chosen_format(self) -> str:
        """text, jsonl or csv."""
        suffix = self.output.suffix.lower().removeprefix(".") if self.output else ""
        return self.format or (suffix if suffix in ("jsonl", "csv") else "text")


def caption_paths(paths: Sequence[str], options: CaptionOptions, *, world: Console) -> int:
    """Caption everything meant by `paths`; returns 0, 1 if some failed, 130 if stopped by Ctrl-C.

    Raises AlignCapError where nothing can be done at all: no such model, an output in the way.
    """
    earlier = _earlier(options)
    model = _open(options, world)
    tally = Tally(failed=earlier.failed)
    with ExitStack() as stack:
        stack.enter_context(warnings_said(world))
        writer = _open_writer(options, stack=stack, world=world)
        progress = stack.enter_context(
            Progress(world, "captioning", results_on_stdout=options.output is None)
        )
        sources = (
            source for source in find_sources(paths, world=world) if source.file not in earlier.done
        )
        known = sources if "-" in paths else progress.expect(sources)
        try:
            for record in caption_records(known, model=model, options=options):
                writer.write(record)
                progress.advance()
                tally.add(record)
                if "error" in record and not writer.tells_errors:
                    world.say(record["error"])
        except KeyboardInterrupt:
            progress.stop()
            world.say(f"stopped; {_kept(tally, options)}")
            return INTERRUPTED
    return _finish(tally, earlier=earlier, world=world)


def _open(options: CaptionOptions, world: Console) -> Captions:
    if options.endpoint is None:
        if options.served is not None:
            raise RecipeError(f"--served {options.served}: give --endpoint too, the server's URL")
        return world.open_model(options.model, tokenizer_path=options.tokenizer_weights)
    return open_served(
        options.model,
        url=options.endpoint,
        served=options.served,
        environment=world.environment,
        tokenizer_path=options.tokenizer_weights,
    )


@dataclass
class Tally:
    """How many recordings were captioned and how many could not be."""

    captioned: int = 0
    failed: int = 0

    def add(self, record: Record) -> None:
        """Count one record."""
        if "error" in record:
            self.failed += 1
        else:
            self.captioned += 1


def caption_records(
    sources: Iterable[Source], *, model: Captions, options: CaptionOptions
) -> Iterator[Record]:
    """A record for each source, in order.

    The model may look ahead to caption several at once; sources that already have an error wait in
    the same queue, so that they come out where they went in.
    """
    waiting: deque[Source] = deque()

    def readable() -> Iterator[Path | Waveform]:
        for source in sources:
            waiting.append(source)
            if not isinstance(source.audio, AlignCapError):
                yield source.audio

    outcomes = model.caption_many(
        readable(),
        language=options.language,
        candidates=options.candidates,
        evidence=options.evidence or options.chosen_format != "text",
    )
    for outcome in outcomes:
        yield from _broken(waiting)
        yield _record(waiting.popleft(), outcome)
    yield from _broken(waiting)


def _broken(waiting: deque[Source]) -> Iterator[Record]:
    while waiting and isinstance(error := waiting[0].audio, AlignCapError):
        yield error_record(waiting.popleft().file, error)


def _record(source: Source, outcome: Caption | AlignCapError) -> Record:
    if isinstance(outcome, AlignCapError):
        return error_record(source.file, outcome)
    return caption_record(source.file, outcome)


def _earlier(options: CaptionOptions) -> Earlier:
    """What the output holds; an output that would be overwritten is refused."""
    output = options.output
    if options.resume:
        if output is None or options.chosen_format == "text":
            raise DataError("--resume goes on with a file: give --output FILE.jsonl or FILE.csv")
        return read_earlier(output, format=options.chosen_format)
    if output is not None and output.is_file() and output.stat().st_size > 0:
        raise DataError(f"{output} is there already; --resume goes on with it, or remove it first")
    return Earlier()


def _open_writer(options: CaptionOptions, *, stack: ExitStack, world: Console) -> Writer:
    stream: TextIO = world.stdout
    fresh = True
    if options.output is not None:
        try:
            # A name that is not UTF-8 is written as the \\udcXX that JSON reads back as the name.
            opened = options.output.open(
                "a", encoding="utf-8", newline="", errors="backslashreplace"
            )
        except OSError as error:
            raise DataError(f"{options.output}: cannot be written ({error.strerror})") from error
        stream = stack.enter_context(opened)
        fresh = stream.tell() == 0
    match options.chosen_format:
        case "jsonl":
            return JsonlWriter(stream)
        case "csv":
            return CsvWriter(stream, heading=fresh)
    return TextWriter(stream, evidence=options.evidence)


def _kept(tally: Tally, options: CaptionOptions) -> str:
    done = tally.captioned + tally.failed
    if options.output is None:
        return f"{done} files are done"
    if options.chosen_format == "text":
        return f"{done} files are in {options.output}"
    return f"{done} files are in {options.output}; the same command with --resume goes on"


def _finish(tally: Tally, *, earlier: Earlier, world: Console) -> int:
    total = tally.captioned + tally.failed + len(earlier.done) - earlier.failed
    if tally.failed == 0:
        return 0
    if total > 1:
        world.say(f"{tally.failed} of {total} files could not be captioned")
    return SOME_FAILED
