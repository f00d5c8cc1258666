"""`aligncap caption`: recordings in, captions out, in order and as they are ready.

Written as text for a person, or as jsonl or csv for a program; a run that was stopped goes on
where its output ends.
"""

import csv
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from aligncap.cli.console import (
    RECORD_SUFFIXES,
    SOME_FAILED,
    CaptionLanguage,
    Console,
    Output,
    Overwrite,
    Progress,
    Record,
    RecordFormat,
    Recording,
    TokenizerWeights,
    aligned,
    csv_line,
    error_record,
    expanded,
    find_recordings,
    for_terminal,
    format_of,
    with_baselines,
)
from aligncap.cli.segments import (
    Channels,
    Plot,
    SegmentOptions,
    Segments,
    SegmentsAs,
    Transcript,
    caption_segments,
)
from aligncap.errors import AlignCapError, DataError, InterruptedRunError, RecipeError
from aligncap.storage import atomic_file, printable

if TYPE_CHECKING:
    from aligncap.values import Caption

Style = Literal["full", "short", "tts"]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH",
        help="Sound files, folders (searched for sound files), quoted globs, manifests "
        "(.jsonl), or - for standard input: paths, one a line, or the bytes of one sound file.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|DIR", help="A built-in model, a model folder, or ORG/NAME of the hub."
    ),
]
CaptionFormat = Annotated[
    RecordFormat | None,
    typer.Option(help="How captions are written; text, or what OUTPUT's suffix says."),
]
Candidates = Annotated[int, typer.Option(min=1, max=64, help="How many captions of each file.")]
CaptionStyle = Annotated[
    Style,
    typer.Option(help="One sentence or two, a phrase, or a description as synthesisers take it."),
]
ShowEvidence = Annotated[
    bool,
    typer.Option("--evidence", help="Show each clue beside the measurement that bears on it."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with OUTPUT: skip what it has, try again what failed."),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="PATH",
        help="Recordings of how the speaker usually sounds: a file, folder, glob or manifest; may "
        "be given several times. High, loud and fast are relative to them.",
    ),
]
Per = Annotated[
    Literal["speaker", "folder", "file"] | None,
    typer.Option(
        help="Relative to the other recordings of the speaker (by a manifest's speaker) or of the "
        "folder; file: each by itself."
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A completions server (…/v1) that has the merged model."),
]
Served = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model's name there; its own if not given."),
]


def caption(
    context: typer.Context,
    paths: Paths,
    model: Model = "mini",
    language: CaptionLanguage = "en",
    format: CaptionFormat = None,  # noqa: A002
    candidates: Candidates = 1,
    style: CaptionStyle = "full",
    evidence: ShowEvidence = False,
    baseline: Baselines = None,
    per: Per = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    endpoint: Endpoint = None,
    served: Served = None,
    tokenizer_weights: TokenizerWeights = None,
    segments: Segments = False,
    segments_as: SegmentsAs = None,
    channels: Channels = "mix",
    transcript: Transcript = None,
    plot: Plot = None,
) -> int:
    """Caption recordings: one sentence for each file, or for each utterance of long ones."""
    console: Console = context.obj
    if segments or segments_as or transcript or plot:
        others = bool(resume or baseline or per or candidates > 1)
        _check_segments(others=others, style=style)
        wanted = SegmentOptions(
            *(language, format, segments_as, output, overwrite),
            *(channels == "split", transcript, plot),
        )
        load = partial(_load, console, model, endpoint, served, tokenizer_weights)
        return caption_segments(console, expanded(paths), load, wanted)
    form = format_of(output, format, RECORD_SUFFIXES)
    paths = expanded(paths)
    file = CaptionFile(output, form, resume=resume, overwrite=overwrite)
    recordings: Iterable[Recording] = find_recordings(paths, console)
    if file.is_there:
        recordings = list(recordings)
    _check_output(console, output, paths, recordings if file.is_there else (), resume or overwrite)
    captioner = _load(console, model, endpoint, served, tokenizer_weights)
    asked = _asked(captioner, language=language, candidates=candidates, style=style)
    recordings, relative = with_baselines(recordings, captioner, console, files=baseline, per=per)
    signature = ""
    if output is not None and form != "text":
        signature = _signature(captioner, asked | relative, endpoint and (served or "model"))
    captions = partial(caption_records, captioner=captioner, **asked)
    _write_captions(
        *(console, file, recordings, captions),
        signature=signature,
        evidence=evidence,
        output=output,
        countable="-" not in paths,
    )
    if file.failed and file.done > 1:
        console.log(f"{file.failed} of {file.done} files could not be captioned")
    return SOME_FAILED if file.failed else 0


def _write_captions(
    console: Console,
    file: "CaptionFile",
    recordings: Iterable[Recording],
    captions: Callable[..., Iterator[Record]],
    *,
    signature: str,
    evidence: bool,
    output: Path | None,
    countable: bool,
) -> None:
    """Caption the recordings and write each record, or its error, as it is ready; `countable` says
    whether all of them are there at once."""
    form = file.form
    with (
        file.opened(console, recordings, signature) as (stream, recordings),
        Progress(console, "captioning", results_on_stdout=output is None) as bar,
    ):
        if bar.shown and countable:
            recordings = list(recordings)  # noqa: PLW2901
            bar.add_total(len(recordings))
        try:
            for record in captions(recordings, evidence=evidence or form != "text"):
                file.count(record)
                if "error" in record and form == "text":
                    console.log(record["error"])
                else:
                    kept = {"signature": signature} if signature else {}
                    _print_record(record | kept, form, stream, evidence=evidence, output=output)
                bar.advance()
        except KeyboardInterrupt as stop:
            raise InterruptedRunError(f"stopped; {file.kept()}") from stop


def _print_record(
    record: Record, form: str, stream: Any, *, evidence: bool, output: Path | None
) -> None:
    text = format_record(record, form, evidence=evidence, colour=stream.isatty())
    text = text if output or form == "text" else for_terminal(text)
    print(text, file=stream, flush=True)


def _check_segments(*, others: bool, style: str) -> None:
    """RecipeError where --segments is given with what it does not take."""
    if others or style != "full":
        raise RecipeError(
            "--segments goes without --resume, --baseline, --per, --candidates, --style"
        )


def _check_output(
    console: Console,
    output: Path | None,
    paths: Iterable[str],
    recordings: Iterable[Recording],
    overwrite: bool,
) -> None:
    """DataError where the output is an input, or is there already and not to be replaced."""
    heard = [one.audio for one in recordings if isinstance(one.audio, Path)]
    console.check_output(output, [*paths, *heard], overwrite=overwrite)


def _asked(captioner: Any, *, style: str, **options: Any) -> dict[str, Any]:
    """What is asked of a captioner that writes this style; RecipeError where it does not."""
    if style == "full":
        return options  # outputs of earlier versions, which can be gone on with, do not name it
    captioner.check_style(style)
    return {**options, "style": style}


def _signature(captioner: Any, asked: Mapping[str, object], served: str | None) -> str:
    """Everything that captions depend on: "model:mini/3f9a…|language:en|candidates:1"."""
    parts = {"model": captioner.signature, **asked, **({"served": served} if served else {})}
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _load(
    console: Console,
    model: str,
    url: str | None,
    served: str | None,
    tokenizer_weights: Path | None,
) -> Any:
    """The captioner; its language model runs on the server at `url` if one is given, whose key is
    ALIGNCAP_ENDPOINT_KEY of the environment."""
    if url is None:
        if served is not None:
            raise RecipeError(f"--served {served}: give --endpoint too, the server's URL")
        return console.load_model(model, tokenizer_path=tokenizer_weights)
    from aligncap.captioner.runtimes import EndpointSettings

    key = console.environment.get("ALIGNCAP_ENDPOINT_KEY", "").strip() or None
    endpoint = EndpointSettings(url=url, model=served, key=key, proxy=console.proxy_for(url))
    return console.load_model(model, tokenizer_path=tokenizer_weights, endpoint=endpoint)


def caption_records(
    recordings: Iterable[Recording], captioner: Any, **options: Any
) -> Iterator[Record]:
    """A record for each recording, in order; `options` are those of `Captioner.caption_many`.

    The captioner may look ahead to caption several at once; recordings that have an error already
    wait in the same queue, so that they come out where they went in.
    """
    waiting: deque[Recording] = deque()

    from aligncap.captioner.preparing import Spoken

    def usable() -> "Iterator[Spoken]":
        for recording in recordings:
            waiting.append(recording)
            if not isinstance(recording.audio, AlignCapError):
                yield Spoken(recording.audio, recording.baseline)

    def unusable() -> Iterator[Record]:
        while waiting and isinstance(error := waiting[0].audio, AlignCapError):
            yield error_record(waiting.popleft(), error)

    for outcome in captioner.caption_many(usable(), **options):
        yield from unusable()
        recording = waiting.popleft()
        if isinstance(outcome, AlignCapError):
            yield error_record(recording, outcome)
        else:
            yield recording.described(caption_record(recording.file, outcome))
    yield from unusable()


COLUMNS = (
    *("file", "duration_s", "language", "caption", "clues", "emotion", "arousal", "valence"),
    *("gender", "pitch", "loudness", "pace", "confidence", "certainty", "second_emotion"),
    *("vocalization", "unfamiliar", "model", "baseline", "part_s", "candidates"),
    *("error", "id", "speaker", "signature"),
)
"""The columns of csv; a jsonl record has those of them that it has a value for, and the other
columns of a manifest."""


def caption_record(file: str, caption: "Caption") -> Record:
    """A caption as plain values, after the file's name."""
    return {"file": file, **caption.to_dict()}


Key = tuple[str, str]
"""Of a recording in an output: its file and its id, "" where it has none."""


class CaptionFile:
    """Where captions are written to: standard output, or a file that one process at a time writes
    and that a run that was stopped goes on with.

    Raises DataError where the file would be replaced unasked, or cannot be gone on with since it
    is of something else or made another way; then nothing is written to it.
    """

    def __init__(self, path: Path | None, form: str, *, resume: bool, overwrite: bool) -> None:
        if resume and (path is None or form == "text"):
            raise DataError("--resume goes on with a file: give --output FILE.jsonl or FILE.csv")
        if resume and overwrite:
            raise RecipeError("--resume goes on with a file, --overwrite replaces it; give one")
        self._path, self.form, self._resume = path, form, resume
        self.is_there = path is not None and path.is_file() and path.stat().st_size > 0
        self._replaces = overwrite and self.is_there
        self._failed: dict[Key, bool] = {}
        self.done = self.failed = 0

    @contextmanager
    def opened(
        self, console: Console, recordings: Iterable[Recording], signature: str
    ) -> Iterator[tuple[IO[Any], Iterable[Recording]]]:
        """The stream to write to, and those of the recordings that are to be captioned: without
        those that it has; what failed before is tried again."""
        with ExitStack() as stack:
            stream: IO[Any] = console.stdout
            if self._path is not None:
                writing = atomic_file if self._replaces else _locked
                stream = stack.enter_context(writing(self._path))
                if not (self._resume or self._replaces or _is_empty(stream)):
                    raise DataError(f"{self._path}: another process has written it; look at it")
            if self._resume and self.is_there and self._path is not None:
                recordings = list(recordings)
                if self._read_earlier(self._path, recordings, signature):
                    self._mend(self._path)
                    stream = stack.enter_context(_locked(self._path))
                recordings = [one for one in recordings if self._earlier(one) is None]
            elif self.form == "csv":
                print(csv_line(COLUMNS), file=stream, flush=True)
            yield stream, recordings

    def _earlier(self, recording: Recording) -> Key | None:
        """The key under which the output has a recording; an older one knows no ids. Another sound
        may come by standard input each time."""
        if not isinstance(recording.audio, Path | AlignCapError):
            return None
        file = printable(recording.file)
        keys = (file, printable(str(recording.columns.get("id", "")))), (file, "")
        return next((key for key in keys if key in self._failed), None)

    def _read_earlier(self, path: Path, recordings: Iterable[Recording], signature: str) -> bool:
        """Remember what the output has; returns whether some of it must go: a line torn by a kill,
        errors of these recordings."""
        torn = False
        for _, record in _lines_of(path, self.form):
            if record is None:
                torn = True
            else:
                _check_made_alike(path, record, signature)
                self._failed[_key_of(record)] = bool(record.get("error"))
        keys = {self._earlier(one) for one in recordings}
        again = [key for key in keys if key is not None and self._failed[key]]
        for key in again:
            del self._failed[key]
        self.done, self.failed = len(self._failed), sum(self._failed.values())
        return torn or bool(again)

    def _mend(self, path: Path) -> None:
        """Write the file anew without what must go."""
        with atomic_file(path) as file:
            if self.form == "csv":
                print(csv_line(COLUMNS), file=file)
            for line, record in _lines_of(path, self.form):
                if record is not None and _key_of(record) in self._failed:
                    print(line, file=file)

    def count(self, record: Record) -> None:
        """One more is done."""
        self.done += 1
        self.failed += "error" in record

    def kept(self) -> str:
        """What a run that is stopped now leaves behind."""
        if self._path is None:
            return f"{self.done} files are done"
        if self._replaces:
            return f"{self._path} is as it was"
        resumable = "; the same command with --resume goes on" if self.form != "text" else ""
        return f"{self.done} files are in {self._path}{resumable}"


@contextmanager
def _locked(path: Path) -> Iterator[IO[Any]]:
    """A file to append to, which no other process may open so; DataError where one has."""
    import fcntl

    try:
        # A name that is not UTF-8 is written as the \\udcXX that JSON reads as that name.
        stream = path.open("a", encoding="utf-8", newline="", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    with stream:
        taken = False
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = True
        except OSError:  # a file system without locks
            pass
        if taken or not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
            raise DataError(f"{path}: another process is writing it; wait for it to end")
        yield stream


def _is_empty(stream: IO[Any]) -> bool:
    found = os.fstat(stream.fileno())
    return not (stat.S_ISREG(found.st_mode) and found.st_size)


def _key_of(record: Record) -> Key:
    return printable(record["file"]), printable(str(record.get("id") or ""))


def _check_made_alike(path: Path, record: Record, signature: str) -> None:
    """DataError where a record was made by another model or with other options; of an older one
    only its language is known."""
    made = str(record.get("signature") or "")
    older = f"language:{record['language']}" if record.get("language") else ""
    before, now = (
        dict(part.partition(":")[::2] for part in one.split("|") if part)
        for one in (made or older, signature)
    )
    for name in [*before, *(now if made else ())]:
        if before.get(name) != now.get(name):
            raise DataError(
                f"{path}: was made with {name} {before.get(name, 'none')}, not "
                f"{now.get(name, 'none')}; give the same options, or another --output"
            )


def _lines_of(path: Path, form: str) -> Iterator[tuple[str, Record | None]]:
    """The lines of an output, each with its record; None where a kill tore the last one.

    DataError where it is no output of `aligncap caption`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n", errors="surrogateescape") as lines:
            yield from (_csv_records if form == "csv" else _json_records)(lines)
    except (ValueError, LookupError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(
            f"{path}: holds no {form} of aligncap caption; choose another --output"
        ) from error


BEGINNING = '{"file": "'
"""Of a record; of a torn one there may be less."""


def _json_records(lines: Iterable[str]) -> Iterator[tuple[str, Record | None]]:
    for line in lines:
        text = line.rstrip("\n").strip("\0")  # a disk that lost power may leave zeros
        whole = line.endswith("\n")
        try:
            record = json.loads(text) if text else None
        except ValueError:
            if whole or not BEGINNING.startswith(text[: len(BEGINNING)]):
                raise
            record = None
        if record is not None:
            if not isinstance(record["file"], str) or not {"duration_s", "error"} & record.keys():
                raise TypeError
            yield text, record
        if not whole:
            yield "", None


def _csv_records(lines: Iterable[str]) -> Iterator[tuple[str, Record | None]]:
    last = ""

    def noted() -> Iterator[str]:
        nonlocal last
        for line in lines:
            last = line
            yield line

    rows = csv.reader(noted())
    if next(rows, None) != list(COLUMNS):
        raise ValueError
    torn = False
    for row in rows:
        if torn:
            raise ValueError
        torn = len(row) < len(COLUMNS) or not last.endswith("\n")
        yield csv_line(row), None if torn else dict(zip(COLUMNS, row, strict=True))


def format_record(record: Record, form: str, *, evidence: bool, colour: bool) -> str:
    """A record as jsonl, csv or text; as text, `evidence` adds a line for each clue."""
    if form == "jsonl":
        return json.dumps(record, ensure_ascii=False)
    if form == "csv":
        return csv_line(csv_row(record))
    length = f"{record['duration_s']:.1f} s"
    if "part_s" in record:
        start, end = record["part_s"]
        length += f", of which {start:.1f} to {end:.1f} s are captioned"
    lines = [f"{record['file']}  ({length})", f"  {record['caption']}{doubt(record)}"]
    if record["unfamiliar"]:
        lines.append("  unlike anything that the model learnt from: do not rely on the caption")
    if "baseline" in record:
        lines.append(f"  {against(record['baseline'])}")
    lines += [f"  or: {other}" for other in record.get("candidates", ())]
    lines = [for_terminal(" ".join(line.split("\n"))) for line in lines]
    if evidence:
        clues = record["clues"]
        texts = aligned(
            (one["word"], one["trait"], one["evidence"] or one["verdict"]) for one in clues
        )
        for one, text in zip(clues, texts, strict=True):
            mark, ink = MARKS[one["verdict"]]
            lines.append(f"    {typer.style(mark, fg=ink) if colour else mark} {text}")
    return "\n".join(lines)


MARKS = {
    "supported": ("✓", "green"),
    "contradicted": ("✗", "red"),
    "cannot tell": ("?", "bright_black"),
}
"""Verdict → its mark, and the mark's colour on a terminal."""


def doubt(record: Record) -> str:
    """How sure the emotion or the vocalization is, where it is not: "  (likely: sad 52%)"; ""
    where it is."""
    if record["certainty"] in (None, "sure"):
        return ""
    rivals = (
        ranked(record) if record["emotion"] else [(record["vocalization"], record["confidence"])]
    )
    shown = 2 if record["certainty"] == "unsure" or record["second_emotion"] else 1
    shares = ", ".join(f"{label} {share:.0%}" for label, share in rivals[:shown])
    return f"  ({record['certainty']}: {shares})"


def against(baseline: Record) -> str:
    """What a caption is relative to: "relative to speaker 03 (12 recordings)"."""
    if "reason" in baseline:
        return f"no baseline of {baseline['source']}: {baseline['reason']}"
    clips = baseline["clips"]
    return f"relative to {baseline['source']} ({clips} recording{'s' * (clips > 1)})"


def ranked(record: Record) -> list[tuple[str, float]]:
    """The emotions of a record with their probabilities, the likeliest first."""
    return sorted(record["emotion"].items(), key=lambda item: -item[1])


def csv_row(record: Record) -> list[str]:
    """A record as cells; clues as "word=verdict; …", emotions as "label=probability; …"."""
    cells = dict(record)
    if "clues" in record:
        cells["clues"] = "; ".join(f"{one['word']}={one['verdict']}" for one in record["clues"])
    if record.get("emotion"):
        cells["emotion"] = "; ".join(f"{label}={share:.2f}" for label, share in ranked(record))
    if "baseline" in record:
        cells["baseline"] = "; ".join(f"{name}={it}" for name, it in record["baseline"].items())
    if "part_s" in record:
        cells["part_s"] = "{}-{}".format(*record["part_s"])
    if "candidates" in record:
        cells["candidates"] = " | ".join(record["candidates"])
    return ["" if cells.get(name) is None else str(cells[name]) for name in COLUMNS]
