"""`aligncap caption --segments`: the utterances of long recordings, as records or subtitles."""

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from aligncap.cli.console import (
    SOME_FAILED,
    Console,
    Progress,
    Record,
    Recording,
    csv_line,
    error_record,
    files_of,
    find_recordings,
    for_terminal,
    other_columns,
    with_baselines,
)
from aligncap.errors import AlignCapError, InterruptedRunError, RecipeError
from aligncap.storage import atomic_file

if TYPE_CHECKING:
    from aligncap.captioner.pictures import Picture
    from aligncap.captioner.segments import Segment
    from aligncap.captioner.transcripts import Line

Segments = Annotated[
    bool,
    typer.Option(
        "--segments",
        help="Recordings of any length: a caption of each utterance, and what lies between.",
    ),
]
SegmentsAs = Annotated[
    Literal["srt", "vtt", "textgrid", "labels"] | None,
    typer.Option(
        help="Segments as SubRip, WebVTT, a TextGrid of Praat or labels of Audacity, in place of "
        "--format; OUTPUT's suffix says so, too (.srt, .vtt, .TextGrid)."
    ),
]
Channels = Annotated[
    Literal["mix", "split"],
    typer.Option(help="Segments of all channels together, or of each by itself."),
]
Transcript = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Segments as the lines of a transcript (.srt, .vtt, .json of whisper); their words "
        "are kept.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw the recording with its segments: waveform, pitch, loudness, emotion over time, "
        "captions; .png, .svg, or .html with the sound.",
    ),
]

SUFFIXES = {
    ".srt": "srt", ".vtt": "vtt", ".textgrid": "textgrid", ".labels": "labels",
    ".jsonl": "jsonl", ".csv": "csv", ".txt": "text",
}  # fmt: skip
COLUMNS = (
    *("file", "start_s", "end_s", "kind", "channel", "words", "caption", "emotion", "certainty"),
    *("arousal", "valence", "gender", "pitch", "loudness", "pace", "confidence", "error"),
    *("pitch_hz", "loudness_lufs", "syllables_per_s"),
)
"""The columns of csv; `emotion` is the likeliest."""


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """What was asked for."""

    language: str
    format: str | None
    subtitles: str | None
    output: Path | None
    overwrite: bool
    split: bool
    transcript: Path | None
    plot: Path | None
    baseline: tuple[str, ...] = ()
    """Recordings of how the speaker usually sounds."""
    own: bool = False
    """Whether an utterance is relative to the others of its recording, or of its channel."""

    @property
    def form(self) -> str:
        """The format to write."""
        suffix = self.output.suffix.lower() if self.output else ".txt"
        form = self.subtitles or self.format or SUFFIXES.get(suffix)
        if form is None:
            raise RecipeError(
                f"{self.output}: no format has that suffix; known: {' '.join(SUFFIXES)}"
            )
        return form


def caption_segments(
    console: Console, paths: Sequence[str], load: Callable[[], Any], asked: SegmentOptions
) -> int:
    """Write the segments of the recordings, and then their picture; the exit code."""
    from aligncap.captioner.transcripts import read_transcript

    form = asked.form
    recordings = list(find_recordings(list(paths), console))
    usual = list(find_recordings(asked.baseline, console))
    inputs: list[str | Path] = [*paths, *asked.baseline, *files_of([*recordings, *usual])]
    _check(console, inputs, recordings, asked)
    lines = read_transcript(asked.transcript) if asked.transcript else ()
    captioner, failed, done, picture, stopped = load(), 0, 0, None, False
    relative, _ = with_baselines(
        *(recordings, captioner, console),
        files=asked.baseline, usual=usual, per="file" if asked.own else None,
    )  # fmt: skip
    columns = [*COLUMNS, *other_columns(recordings, COLUMNS)]
    with _output(console, asked.output) as write:
        if form == "csv":
            write([csv_line(columns)])
        for one in relative:
            try:
                with Progress(console, "measuring") if asked.own else nullcontext():
                    found = segments_of(captioner, one, asked, lines)
                found = _told(console, found)
                if asked.plot is not None:
                    picture, found = _watched(one, found)
                write(written(found, one, form, columns))
                done += 1
            except AlignCapError as error:
                console.log(str(error))
                failed += 1
                write(_error_lines(one, error, form, columns), whole=False)
            except KeyboardInterrupt:
                stopped = True  # what is written is kept
                break
    if stopped:
        where = f"; {asked.output} holds what was captioned" if asked.output and done else ""
        raise InterruptedRunError(f"stopped{where}")
    if asked.plot is not None and picture is not None and not failed:
        with atomic_file(asked.plot, "wb") as file:
            picture.save(file, asked.plot.suffix)
    return SOME_FAILED if failed else 0


def _check(
    console: Console,
    inputs: Sequence[str | Path],
    recordings: Sequence[Recording],
    asked: SegmentOptions,
) -> None:
    """An error where what is asked for cannot be written, or would replace what is read."""
    from aligncap.captioner.transcripts import FORMATS

    if (asked.form in FORMATS or asked.transcript or asked.plot) and len(recordings) != 1:
        raise RecipeError(
            f"{len(recordings)} recordings: subtitles, transcripts and pictures are of one"
        )
    inputs = [*inputs, *([asked.transcript] if asked.transcript else [])]
    console.check_output(asked.output, inputs, overwrite=asked.overwrite)
    if asked.plot is not None:
        from aligncap.captioner.pictures import check_picture

        check_picture(asked.plot)
        if asked.output and os.path.realpath(asked.output) == os.path.realpath(asked.plot):
            raise RecipeError(f"{asked.plot}: is OUTPUT and picture at once; name two files")
        console.check_output(asked.plot, inputs, overwrite=asked.overwrite)


@contextmanager
def _output(console: Console, path: Path | None) -> Iterator[Callable[..., None]]:
    """What writes lines, to standard output or a file; what is in the file stays until there is
    something to write, or all of a recording is done (`whole`)."""
    with ExitStack() as stack:
        stream: IO[Any] | None = None if path else console.stdout

        def opened() -> IO[Any]:
            nonlocal stream
            if stream is None and path is not None:
                stream = stack.enter_context(atomic_file(path))
            assert stream is not None
            return stream

        def write(lines: Iterable[str], *, whole: bool = True) -> None:
            for line in lines:
                print(line if path else for_terminal(line), file=opened(), flush=True)
            if whole:
                opened()

        yield write


def segments_of(
    captioner: Any, recording: Recording, asked: SegmentOptions, lines: "Sequence[Line]"
) -> "Iterator[Segment]":
    """The segments of a recording in order of their start, of each channel if asked for.

    The first is there when this returns: what cannot be read is an error before anything of it is
    written.
    """
    from aligncap.audio.streams import channel_count

    path = recording.audio
    if isinstance(path, AlignCapError):
        raise path
    if not isinstance(path, Path):
        raise RecipeError(f"{recording.file}: segments are of files; give a path")
    channels: Iterable[int | None] = range(channel_count(path)) if asked.split else [None]
    each = [
        captioner.segments(
            path,
            channel=one,
            transcript=lines,
            baseline="own" if asked.own else recording.baseline,
            language=asked.language,
        )
        for one in channels
    ]
    found = heapq.merge(*each, key=lambda segment: segment.start_s)
    first = list(islice(found, 1))
    return chain(first, found)


def _told(console: Console, found: "Iterable[Segment]") -> "Iterator[Segment]":
    """The segments; that utterances have no baseline is told once of each recording or channel."""
    told = set()
    for one in found:
        baseline = getattr(one.caption, "baseline", None)
        if baseline and baseline.reason and baseline.source not in told:
            told.add(baseline.source)
            console.log(f"no baseline of {baseline.source}: {baseline.reason}")
        yield one


def _watched(
    recording: Recording, found: "Iterator[Segment]"
) -> "tuple[Picture, Iterator[Segment]]":
    """The picture of a recording, complete once its segments were gone through."""
    from aligncap.captioner.pictures import Picture

    assert isinstance(recording.audio, Path)
    picture = Picture(recording.audio)
    return picture, picture.watched(found)


def _error_lines(
    recording: Recording, error: AlignCapError, form: str, columns: Sequence[str]
) -> list[str]:
    """The record of a recording that could not be used; none in formats that have no place for
    it."""
    record = {**error_record(recording, error), "kind": "error"}
    if form == "jsonl":
        return [json.dumps(record, ensure_ascii=False)]
    return [csv_line(_cells(record, columns))] if form == "csv" else []


def written(
    found: "Iterable[Segment]", recording: Recording, form: str, columns: Sequence[str] = COLUMNS
) -> Iterator[str]:
    """The lines of a recording's segments, and of its summary in text and jsonl; `columns` are
    those of csv."""
    from aligncap.captioner.summary import Summarizer
    from aligncap.captioner.transcripts import FORMATS

    if form in FORMATS:
        yield from FORMATS[form](found)
        return
    summarizer = Summarizer()
    for one in found:
        summarizer.add(one)
        record = recording.described(one.to_dict())
        if form == "jsonl":
            yield json.dumps(record, ensure_ascii=False)
        elif form == "csv":
            yield csv_line(_cells(record, columns))
        else:
            yield one.line
    for summary in summarizer.summaries():
        if form == "jsonl":
            yield json.dumps(recording.described(summary.to_dict()), ensure_ascii=False)
        elif form == "text":
            yield from ("", *summary.lines())


def _cells(record: Record, columns: Sequence[str]) -> list[object]:
    emotion = record.get("emotion") or {}
    cells = {**record, "emotion": max(emotion, key=emotion.__getitem__, default="")}
    return [cells.get(name) for name in columns]
