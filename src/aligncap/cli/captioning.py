"""`aligncap caption`: recordings in, captions out, in order and as they are ready."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from aligncap.cli.inputs import Source, find_sources
from aligncap.cli.messages import warnings_said
from aligncap.cli.progress import Progress
from aligncap.cli.records import Earlier, Record, caption_record, error_record, read_earlier
from aligncap.cli.world import CaptionModel, World, open_served
from aligncap.cli.writers import CsvWriter, JsonlWriter, TextWriter, Writer
from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.values import Caption, Waveform

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


def caption_paths(paths: Sequence[str], options: CaptionOptions, *, world: World) -> int:
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


def _open(options: CaptionOptions, world: World) -> CaptionModel:
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
    sources: Iterable[Source], *, model: CaptionModel, options: CaptionOptions
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


def _open_writer(options: CaptionOptions, *, stack: ExitStack, world: World) -> Writer:
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


def _finish(tally: Tally, *, earlier: Earlier, world: World) -> int:
    total = tally.captioned + tally.failed + len(earlier.done) - earlier.failed
    if tally.failed == 0:
        return 0
    if total > 1:
        world.say(f"{tally.failed} of {total} files could not be captioned")
    return SOME_FAILED
