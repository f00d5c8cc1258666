"""`aligncap caption --segments`: the utterances of long recordings, as records or subtitles."""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from aligncap.cli.console import (
    SOME_FAILED,
    Console,
    Record,
    Recording,
    csv_line,
    find_recordings,
    for_terminal,
    other_columns,
)
from aligncap.errors import AlignCapError, RecipeError
from aligncap.storage import atomic_file

if TYPE_CHECKING:
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
    """Write the segments of the recordings; the exit code."""
    from aligncap.captioner.transcripts import FORMATS, read_transcript

    form = asked.form
    recordings = list(find_recordings(list(paths), console))
    if (form in FORMATS or asked.transcript or asked.plot) and len(recordings) != 1:
        raise RecipeError(
            f"{len(recordings)} recordings: subtitles, transcripts and pictures are of one"
        )
    console.check_output(asked.output, paths, overwrite=asked.overwrite)
    if asked.plot is not None:
        from aligncap.captioner.pictures import check_picture

        check_picture(asked.plot)
        console.check_output(asked.plot, paths, overwrite=asked.overwrite)
    lines = read_transcript(asked.transcript) if asked.transcript else ()
    captioner, failed = load(), 0
    with ExitStack() as stack:
        stream: IO[Any] = console.stdout
        if asked.output is not None:
            stream = stack.enter_context(atomic_file(asked.output))
        columns = [*COLUMNS, *other_columns(recordings, COLUMNS)]
        if form == "csv":
            print(csv_line(columns), file=stream)
        for one in recordings:
            try:
                if isinstance(one.audio, AlignCapError):
                    raise one.audio
                if not isinstance(one.audio, Path):
                    raise RecipeError(f"{one.file}: segments are of files; give a path")
                found = segments_of(captioner, one.audio, asked, lines)
                with drawn(found, one.audio, asked) as watched:
                    for text in written(watched, one, form, columns):
                        print(text if asked.output else for_terminal(text), file=stream, flush=True)
            except AlignCapError as error:
                console.log(str(error))
                failed += 1
    return SOME_FAILED if failed else 0


def segments_of(
    captioner: Any, path: Path, asked: SegmentOptions, lines: "Sequence[Line]"
) -> "Iterator[Segment]":
    """The segments of a file in order of their start, of each channel if asked for."""
    from aligncap.audio.streams import channel_count

    channels: Iterable[int | None] = range(channel_count(path)) if asked.split else [None]
    found = [
        captioner.segments(path, channel=one, transcript=lines, language=asked.language)
        for one in channels
    ]
    return heapq.merge(*found, key=lambda segment: segment.start_s)


@contextmanager
def drawn(
    found: "Iterable[Segment]", path: Path, asked: SegmentOptions
) -> "Iterator[Iterable[Segment]]":
    """The segments to go through; their picture is written thereafter, if asked for."""
    if asked.plot is None:
        yield found
        return
    from aligncap.captioner.pictures import Picture

    picture = Picture(path)
    yield picture.watched(found)
    with atomic_file(asked.plot, "wb") as file:
        picture.save(file, asked.plot.suffix)


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
