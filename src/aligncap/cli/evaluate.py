"""`aligncap evaluate`: captions beside their references, scored and reported."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aligncap.cli.console import Console, JudgeProgress, LlmOptions, Progress
from aligncap.errors import DataError
from aligncap.metrics.evaluation import (
    Draws,
    Hypotheses,
    Line,
    clips_of,
    evaluate,
    language_of,
    mark,
    read_hypotheses,
    read_references,
    usual_metrics,
    with_splits,
    worst_first,
)
from aligncap.metrics.report import as_json, markdown_table, report_page, text_table
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions

if TYPE_CHECKING:
    from aligncap.metrics.judge import JudgeClient

SOME_FAILED = 1

JUDGED = frozenset({"aes-c", "aes-s"})
"""Metrics that need a judge."""

HEARD = "hallucination-signal"
"""Metrics whose name begins so need the recordings."""

SUFFIXES = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html"}
"""What an output's suffix says of the format; any other is a table."""

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What was asked for; None is what the verb's help says."""

    hypotheses: Path
    references: Path
    baseline: Path | None
    language: str | None
    metrics: str | None
    format: str | None
    output: Path | None
    draws: int
    seed: int
    paper25: bool
    tokenisation: str | None
    jars: Path | None
    encoder: Path | None
    judge: LlmOptions

    def __post_init__(self) -> None:
        inputs = (self.hypotheses, self.references, self.baseline)
        if self.output is not None and any(_same(self.output, one) for one in inputs):
            raise DataError(f"{self.output}: would be written over; choose another --output")

    @property
    def chosen_format(self) -> str:
        """table, json, markdown or html."""
        suffix = self.output.suffix.lower() if self.output else ""
        return self.format or SUFFIXES.get(suffix, "table")


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def evaluate_files(options: EvaluateOptions, *, world: Console) -> int:
    """Score and report; returns 0, or 1 where a judge could not rate every clip.

    Raises AlignCapError where the files or the metrics do not do.
    """
    hypotheses = _read(options.hypotheses, world)
    references = read_references(options.references)
    clips = clips_of(hypotheses, references)
    rival = clips_of(_read(options.baseline, world), references) if options.baseline else None
    settings = MetricOptions(
        language=options.language or language_of(clips),
        tokenisation=options.tokenisation,
        jars=options.jars,
        encoder=options.encoder,
    )
    names = _names(options, clips)
    if any(name.startswith(HEARD) for name in names):
        _measure(clips, settings, world)
    draws = Draws(number=options.draws, seed=options.seed, paper25=options.paper25)
    with _judge(options.judge, names, world) as judge:
        settings = replace(settings, judge=judge)
        lines = list(evaluate(clips, with_splits(names), settings, draws=draws, baseline=rival))
    _write(_report(lines, clips, options, settings), options.output, world)
    return _account(judge, world) if judge else 0


@contextmanager
def _judge(options: LlmOptions, names: list[str], world: Console) -> Iterator["JudgeClient | None"]:
    """The judge, where one is named and a metric needs it."""
    settings = options.settings(world.environment)
    if settings is None or not JUDGED.intersection(names):
        yield None
        return
    from aligncap.metrics.judge_clients import open_judge

    with (
        Progress(world, "asking the judge", results_on_stdout=False) as bar,
        open_judge(settings, progress=JudgeProgress(bar)) as judge,
    ):
        yield judge


def _account(judge: "JudgeClient", world: Console) -> int:
    """Say what the judge was asked, and 1 where it left a clip without a rating."""
    for failure in judge.report.failures:
        world.say(f"{failure.id}: not rated: {failure.reason}")
    world.say(str(judge.report))
    return SOME_FAILED if judge.report.failures else 0


def _read(path: Path, world: Console) -> Hypotheses:
    found = read_hypotheses(path)
    if found.failed:
        world.say(
            f"{path}: {found.failed} of {len(found.captions)} clips have an error instead of a "
            "caption and count as nothing said"
        )
    return found


def _names(options: EvaluateOptions, clips: list[ScoredClip]) -> list[str]:
    """The metrics named, or those that need nothing more than was given."""
    if options.metrics is not None:
        names = [name for part in options.metrics.split(",") if (name := part.strip())]
        if not names:
            raise DataError("--metrics names none; write bleu4,clue-f1 or leave it out")
        return names
    similarity = ["similarity"] if options.encoder else []
    judged = sorted(JUDGED) if options.judge.model else []
    return [*usual_metrics(clips), *similarity, *judged]


def _measure(clips: list[ScoredClip], settings: MetricOptions, world: Console) -> None:
    """Measure every recording now, where somebody can see how long it takes."""
    with Progress(world, "measuring", results_on_stdout=False) as bar:
        for clip in bar.expect(clips):
            settings.findings.facts(clip)
            bar.advance()


def _report(
    lines: list[Line], clips: list[ScoredClip], options: EvaluateOptions, settings: MetricOptions
) -> str:
    heading = _heading(clips, options, settings.language)
    match options.chosen_format:
        case "json":
            return as_json(lines)
        case "markdown":
            return markdown_table(lines, heading)
        case "html":
            folder = options.output.parent if options.output else Path()
            listen = any(line.score.name.startswith(HEARD) for line in lines)
            marked = [
                mark(clip, settings.language, settings.findings, listen=listen) for clip in clips
            ]
            return report_page(
                lines,
                worst_first(marked),
                heading=heading,
                language=settings.language,
                folder=folder,
            )
    return text_table(lines, heading)


def _heading(clips: list[ScoredClip], options: EvaluateOptions, language: str) -> str:
    """What was scored: "h.jsonl against r.jsonl: 48 clips, 1 to 3 references each, English"."""
    least, most = (pick(len(clip.references) for clip in clips) for pick in (min, max))
    each = f"{most}" if least == most else f"{least} to {most}"
    plural = "" if most == 1 else "s"
    rival = f" (baseline {options.baseline})" if options.baseline else ""
    return (
        f"{options.hypotheses}{rival} against {options.references}: {len(clips)} clips, "
        f"{each} reference{plural} each, {LANGUAGE_NAMES[language]}"
    )


def _write(text: str, output: Path | None, world: Console) -> None:
    if output is None:
        print(text, end="", file=world.stdout, flush=True)
        return
    try:
        output.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror})") from error
