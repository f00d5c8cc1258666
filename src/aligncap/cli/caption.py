"""`aligncap caption`: recordings in, captions out, in order and as they are ready.

Written as text for a person, or as jsonl or csv for a program; a run that was stopped goes on
where its output ends.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from aligncap.cli.console import (
    SOME_FAILED,
    CaptionLanguage,
    Console,
    Output,
    Progress,
    Record,
    Recording,
    TokenizerWeights,
    aligned,
    error_record,
    find_recordings,
)
from aligncap.errors import AlignCapError, DataError, InterruptedRunError, RecipeError

if TYPE_CHECKING:
    from aligncap.values import Caption, Waveform

Format = Literal["text", "jsonl", "csv"]

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
    Format | None,
    typer.Option(help="How captions are written; text, or what OUTPUT's suffix says."),
]
Candidates = Annotated[int, typer.Option(min=1, max=64, help="How many captions of each file.")]
ShowEvidence = Annotated[
    bool,
    typer.Option("--evidence", help="Show each clue beside the measurement that bears on it."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with OUTPUT: skip the files it already has.")
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
    evidence: ShowEvidence = False,
    output: Output = None,
    resume: Resume = False,
    endpoint: Endpoint = None,
    served: Served = None,
    tokenizer_weights: TokenizerWeights = None,
) -> int:
    """Caption recordings: one sentence for each file."""
    console: Console = context.obj
    suffix = output.suffix.lower().removeprefix(".") if output else ""
    form = format or (suffix if suffix in ("jsonl", "csv") else "text")
    written = _written_before(output, form, resume=resume)
    captioner = _load(console, model, endpoint, served, tokenizer_weights)
    done, failed = len(written), sum(written.values())
    with (
        _open_output(console, output, form) as stream,
        Progress(console, "captioning", results_on_stdout=output is None) as bar,
    ):
        recordings: Iterable[Recording] = (
            one for one in find_recordings(paths, console) if one.file not in written
        )
        if bar.shown and "-" not in paths:
            recordings = list(recordings)
            bar.add_total(len(recordings))
        asked = {"language": language, "candidates": candidates}
        asked["evidence"] = evidence or form != "text"
        try:
            for record in caption_records(recordings, captioner, **asked):
                if "error" in record and form == "text":
                    console.log(record["error"])
                else:
                    text = format_record(record, form, evidence=evidence, colour=stream.isatty())
                    print(text, file=stream, flush=True)
                done += 1
                failed += "error" in record
                bar.advance()
        except KeyboardInterrupt as stop:
            kept = f"{done} files are {f'in {output}' if output else 'done'}"
            resumable = "; the same command with --resume goes on"
            raise InterruptedRunError(
                f"stopped; {kept}{resumable if output and form != 'text' else ''}"
            ) from stop
    if failed and done > 1:
        console.log(f"{failed} of {done} files could not be captioned")
    return SOME_FAILED if failed else 0


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

    def usable() -> "Iterator[Path | Waveform]":
        for recording in recordings:
            waiting.append(recording)
            if not isinstance(recording.audio, AlignCapError):
                yield recording.audio

    def unusable() -> Iterator[Record]:
        while waiting and isinstance(error := waiting[0].audio, AlignCapError):
            yield error_record(waiting.popleft().file, error)

    for outcome in captioner.caption_many(usable(), **options):
        yield from unusable()
        file = waiting.popleft().file
        if isinstance(outcome, AlignCapError):
            yield error_record(file, outcome)
        else:
            yield caption_record(file, outcome)
    yield from unusable()


COLUMNS = (
    *("file", "duration_s", "language", "caption", "clues", "emotion", "arousal", "valence"),
    *("gender", "pitch", "loudness", "pace", "confidence", "model", "part_s", "candidates"),
    "error",
)
"""The columns of csv; a jsonl record has those of them that it has a value for."""


def caption_record(file: str, caption: "Caption") -> Record:
    """A caption as plain values, after the file's name."""
    return {"file": file, **caption.to_dict()}


def _written_before(output: Path | None, form: str, *, resume: bool) -> dict[str, bool]:
    """The files that an output to be resumed has, and whether each failed.

    A last line torn by a kill is cut off the file. Raises DataError where the output would be
    overwritten, cannot be resumed, or is of something else; then nothing is written to it.
    """
    if not resume:
        if output is not None and output.is_file() and output.stat().st_size > 0:
            message = f"{output} is there already; --resume goes on with it, or remove it first"
            raise DataError(message)
        return {}
    if output is None or form == "text":
        raise DataError("--resume goes on with a file: give --output FILE.jsonl or FILE.csv")
    if not output.exists():
        return {}
    _cut_torn_line(output)
    with output.open(encoding="utf-8", newline="", errors="surrogateescape") as lines:
        try:
            records = csv.DictReader(lines) if form == "csv" else map(json.loads, lines)
            return {record["file"]: bool(record.get("error")) for record in records}
        except (json.JSONDecodeError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{output}: holds no {form} of aligncap caption; choose another --output"
            ) from error


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


@contextmanager
def _open_output(console: Console, output: Path | None, form: str) -> Iterator[TextIO]:
    """Standard output, or the file to append to; a new csv begins with the names of its columns."""
    with ExitStack() as stack:
        stream = console.stdout
        if output is not None:
            try:
                # A name that is not UTF-8 is written as the \\udcXX that JSON reads as that name.
                stream = output.open("a", encoding="utf-8", newline="", errors="backslashreplace")
            except OSError as error:
                raise DataError(f"{output}: cannot be written ({error.strerror})") from error
            stack.enter_context(stream)
        if form == "csv" and (output is None or stream.tell() == 0):
            print(_csv_line(COLUMNS), file=stream, flush=True)
        yield stream


def format_record(record: Record, form: str, *, evidence: bool, colour: bool) -> str:
    """A record as jsonl, csv or text; as text, `evidence` adds a line for each clue."""
    if form == "jsonl":
        return json.dumps(record, ensure_ascii=False)
    if form == "csv":
        return _csv_line(csv_row(record))
    length = f"{record['duration_s']:.1f} s"
    if "part_s" in record:
        start, end = record["part_s"]
        length += f", of which {start:.1f} to {end:.1f} s are captioned"
    lines = [f"{record['file']}  ({length})", f"  {record['caption']}"]
    lines += [f"  or: {other}" for other in record.get("candidates", ())]
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


def csv_row(record: Record) -> list[str]:
    """A record as cells; clues as "word=verdict; …", emotions as "label=probability; …"."""
    cells = dict(record)
    if "clues" in record:
        cells["clues"] = "; ".join(f"{one['word']}={one['verdict']}" for one in record["clues"])
    if "emotion" in record:
        ranked = sorted(record["emotion"].items(), key=lambda item: -item[1])
        cells["emotion"] = "; ".join(f"{label}={share:.2f}" for label, share in ranked)
    if "part_s" in record:
        cells["part_s"] = "{}-{}".format(*record["part_s"])
    if "candidates" in record:
        cells["candidates"] = " | ".join(record["candidates"])
    return ["" if cells.get(name) is None else str(cells[name]) for name in COLUMNS]


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
