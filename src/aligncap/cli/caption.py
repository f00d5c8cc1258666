"""`aligncap caption`: recordings in, captions out, in order and as they are ready.

Written as text for a person, or as jsonl or csv for a program; a run that was stopped goes on
where its output ends.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    error_record,
    expanded,
    files_of,
    find_recordings,
    for_terminal,
    format_of,
    with_baselines,
)
from aligncap.cli.outputs import CaptionFile, format_record
from aligncap.cli.segments import (
    Channels,
    Plot,
    SegmentOptions,
    Segments,
    SegmentsAs,
    Transcript,
    caption_segments,
)
from aligncap.errors import AlignCapError, InterruptedRunError, RecipeError

if TYPE_CHECKING:
    from aligncap.values import Caption

Style = Literal["full", "short", "tts"]

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH…",
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
        "folder; file: each by itself, and with --segments to its other utterances."
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
    load = partial(_load, console, model, endpoint, served, tokenizer_weights)
    if segments or segments_as or transcript or plot:
        wanted = SegmentOptions(
            *(language, format, segments_as, output, overwrite),
            *(channels == "split", transcript, plot, tuple(baseline or ()), per == "file"),
        )
        _check_segments(wanted, evidence, per, resume, candidates > 1, style != "full")
        return caption_segments(console, expanded(paths), load, wanted)
    if channels == "split":
        raise RecipeError("--channels split is of segments; give --segments too")
    form = format_of(output, format, RECORD_SUFFIXES)
    paths = expanded(paths)
    file = CaptionFile(output, form, resume=resume, overwrite=overwrite)
    recordings: Iterable[Recording] = find_recordings(paths, console)
    usual = list(find_recordings(baseline or (), console))
    inputs: list[str | Path] = [*paths, *(baseline or ()), *files_of(usual)]
    if file.is_there:
        recordings = list(recordings)
        inputs += files_of(recordings)
    console.check_output(output, inputs, overwrite=resume or overwrite)
    captioner = load()
    asked = _asked(captioner, language=language, candidates=candidates, style=style)
    recordings, relative = with_baselines(
        recordings, captioner, console, files=baseline or (), usual=usual, per=per
    )
    signature = ""
    if output is not None and form != "text":
        signature = _signature(captioner, asked | relative, endpoint and (served or "model"))
    captions = partial(caption_records, captioner=captioner, **asked)
    _write_captions(
        *(console, file, recordings, captions),
        signature=signature, evidence=evidence, output=output, countable="-" not in paths,
    )  # fmt: skip
    return SOME_FAILED if file.failed else 0


def _write_captions(
    console: Console,
    file: CaptionFile,
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
                    text = format_record(
                        record | kept,
                        form,
                        evidence=evidence,
                        colour=stream.isatty(),
                        columns=file.columns,
                    )
                    text = text if output or form == "text" else for_terminal(text)
                    print(text, file=stream, flush=True)
                bar.advance()
        except KeyboardInterrupt as stop:
            raise InterruptedRunError(f"stopped; {file.kept()}") from stop
    if file.failed and file.done > 1:
        console.log(f"{file.failed} of {file.done} files could not be captioned")


def _check_segments(
    asked: SegmentOptions, evidence: bool, per: str | None, *others: object
) -> None:
    """RecipeError where --segments is given with what it does not take: any of the `others`."""
    if any(others):
        raise RecipeError("--segments goes without --resume, --candidates, --style")
    if per not in (None, "file"):
        raise RecipeError(f"--per {per}: --segments knows --per file, or give a --baseline")
    if evidence and asked.form != "jsonl":
        raise RecipeError("--segments has evidence in records alone; give --format jsonl")


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


def caption_record(file: str, caption: "Caption") -> Record:
    """A caption as plain values, after the file's name."""
    return {"file": file, **caption.to_dict()}
