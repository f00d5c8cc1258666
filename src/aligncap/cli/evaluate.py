"""`aligncap evaluate`: captions scored against their references, and the language model that judges
them, as the command line opens it; `aligncap measure`: what the signal of each recording shows;
`aligncap clues`: what a text says of the voice.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aligncap.cli.console import (
    RECORD_SUFFIXES,
    SOME_FAILED,
    Console,
    Language,
    Listing,
    Output,
    Overwrite,
    Progress,
    Record,
    RecordFormat,
    Recording,
    aligned,
    csv_line,
    error_record,
    expanded,
    files_of,
    find_recordings,
    format_of,
    other_columns,
)
from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.storage import atomic_file, write_atomic

if TYPE_CHECKING:
    from aligncap.metrics.evaluation import Hypotheses, MetricResult, References, Resampling
    from aligncap.metrics.judge import JudgeReport, JudgeSettings
    from aligncap.metrics.scores import MetricOptions, ScoredClip


JUDGED = frozenset({"aes-c", "aes-s"})
"""Metrics that need a judge."""

FROM_SIGNAL = "hallucination-signal"
"""Metrics whose name begins so need the recordings."""

SUFFIXES = {".json": "json", ".md": "markdown", ".html": "html", ".htm": "html"}
SUFFIXES |= {".txt": "table", "": "table"}
"""What an output's suffix says of the format."""

HypothesesFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help='JSON lines {"id", "caption"}, or what caption wrote as jsonl.'
    ),
]
ReferencesFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help='JSON lines {"id", "captions"}, with "file" and "emotion" if known.'
    ),
]
BaselineFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Another system's captions, to compare with.")
]
TextLanguage = Annotated[
    Language | None, typer.Option(help="Language of the captions; found out if not given.")
]
MetricNames = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,…",
        help="bleu4, cider, … (docs/evaluate.md); without it, all that need nothing more.",
    ),
]
ReportFormat = Annotated[
    Literal["table", "json", "markdown", "html"] | None,
    typer.Option(help="How scores are written; table, or what OUTPUT's suffix says."),
]
DrawCount = Annotated[int, typer.Option(min=1, help="Bootstrap draws of the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]
Paper25 = Annotated[
    bool, typer.Option("--paper25", help="Also as the paper scores: 25 clips at a time.")
]
Tokenisation = Annotated[
    Literal["coco-en", "zh-char", "zh-word"] | None,
    typer.Option(help="What n-grams are made of; coco-en or zh-char by the language."),
]
JarFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Java programs of meteor-1.5, spice and spider."),
]
EncoderFolder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Sentence encoder of similarity.")
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="OpenAI-compatible server of aes-c and aes-s; its key is read from "
        "ALIGNCAP_JUDGE_KEY in the environment.",
    ),
]
JudgeModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Its model; without URL, a model of this machine."),
]
JudgeCache = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Where its replies are kept; judge-replies.sqlite if not given."
    ),
]
JudgePrompts = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Prompts to ask in place of the built-in ones.")
]


def evaluate(
    context: typer.Context,
    hypotheses: HypothesesFile,
    references: ReferencesFile,
    baseline: BaselineFile = None,
    language: TextLanguage = None,
    metrics: MetricNames = None,
    format: ReportFormat = None,  # noqa: A002
    output: Output = None,
    overwrite: Overwrite = False,
    draws: DrawCount = 1000,
    seed: Seed = 0,
    paper25: Paper25 = False,
    tokenisation: Tokenisation = None,
    jars: JarFolder = None,
    encoder: EncoderFolder = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_cache: JudgeCache = None,
    judge_prompts: JudgePrompts = None,
) -> int:
    """Score captions against references, each number with its interval and signature."""
    from aligncap.metrics import evaluation
    from aligncap.metrics.judge import DEFAULT_CACHE
    from aligncap.metrics.scores import MetricOptions

    console: Console = context.obj
    systems = [hypotheses, *([baseline] if baseline else [])]
    inputs, cache = [*systems, references], judge_cache or DEFAULT_CACHE
    written = evaluation.read_references(references)
    heard = [clip.file for clip in written.clips.values() if clip.file]
    if judge_model is not None:
        console.check_output(cache, inputs, overwrite=True)
    console.check_output(output, [*inputs, cache, *heard], overwrite=overwrite)
    form = format_of(output, format, SUFFIXES)
    sets = [_read_hypotheses(console, path, written) for path in systems]
    joined = [evaluation.clips_of(captions, written) for captions in sets]
    wanted = language or evaluation.majority_language(joined[0])
    (clips, *compared), notes = evaluation.in_language(joined, wanted)
    options = MetricOptions(language=wanted, tokenisation=tokenisation, jars=jars, encoder=encoder)
    results, judged = _score(
        console,
        [clips, *compared],
        _metric_names(metrics, clips, encoder=encoder is not None, judge=judge_model is not None),
        options,
        evaluation.Resampling(draws=draws, seed=seed, paper25=paper25),
        judge_settings(console, judge_model, judge_url, judge_cache, judge_prompts),
        notes,
    )
    rival = f" (baseline {baseline})" if baseline else ""
    source = f"{hypotheses}{rival} against {references}"
    folder = output.parent if output else Path()
    _write(console, _report(form, source, results, clips, options, folder), output)
    whole = [one for one in results if "/" not in one.score.name]
    if form != "table" or output is not None:
        for note in evaluation.noted([one for one in whole if one.score.name not in JUDGED]):
            console.log(note)
    absent = metrics is not None and any(isnan(one.score.value) for one in whole)
    return SOME_FAILED if _tell_failures(console, judged) or absent else 0


def _tell_failures(console: Console, judged: "JudgeReport | None") -> bool:
    """Log what a judge was asked and could not rate; whether there is something of the latter."""
    if judged is None:
        return False
    for failure in judged.failures:
        console.log(f"{failure.id}: not rated: {failure.reason}")
    console.log(str(judged))
    return bool(judged.failures)


def _read_hypotheses(console: Console, path: Path, references: "References") -> "Hypotheses":
    from aligncap.metrics.evaluation import read_hypotheses

    found = read_hypotheses(path, references)
    if found.failed:
        console.log(
            f"{path}: {found.failed} of {len(found.captions)} clips have an error instead of a "
            "caption and count as nothing said"
        )
    return found


def _metric_names(
    metrics: str | None, clips: "list[ScoredClip]", *, encoder: bool, judge: bool
) -> list[str]:
    """The metrics named, or those that need nothing more than was given."""
    from aligncap.metrics.evaluation import default_metrics

    if metrics is None:
        similarity = ["similarity"] if encoder else []
        return [*default_metrics(clips), *similarity, *(sorted(JUDGED) if judge else [])]
    names = [name for part in metrics.split(",") if (name := part.strip())]
    if not names:
        raise DataError("--metrics names none; write bleu4,clue-f1 or leave it out")
    return names


def judge_settings(
    console: Console,
    model: str | None,
    url: str | None,
    cache: Path | None,
    prompts: Path | None,
) -> "JudgeSettings | None":
    """The judge of the options --judge-model, --judge-url, --judge-cache and --judge-prompts, if a
    model is named.

    Its key is ALIGNCAP_JUDGE_KEY of the environment. OPENAI_API_KEY is sent to OpenAI only: a key
    that lies in the environment for another purpose must not go to any server somebody names.
    """
    from aligncap.endpoints import host_of
    from aligncap.metrics.judge import DEFAULT_CACHE, JudgeSettings

    if model is None:
        if url is not None:
            raise RecipeError(f"--judge-url {url}: give --judge-model too, as the server names it")
        return None
    key = console.environment.get("ALIGNCAP_JUDGE_KEY", "").strip()
    if not key and url and host_of(url) == "api.openai.com":
        key = console.environment.get("OPENAI_API_KEY", "").strip()
    return JudgeSettings(
        model=model,
        url=url,
        key=key or None,
        proxy=console.proxy_for(url),
        prompts=prompts,
        cache=cache or DEFAULT_CACHE,
    )


def _score(
    console: Console,
    sets: "Sequence[list[ScoredClip]]",
    names: list[str],
    options: "MetricOptions",
    resampling: "Resampling",
    judge: "JudgeSettings | None",
    notes: tuple[str, ...],
) -> "tuple[list[MetricResult], JudgeReport | None]":
    """The scores of the first set, compared with the second if there is one, and what a judge was
    asked if a metric needs one."""
    from aligncap.metrics.evaluation import evaluate, with_splits

    clips, baseline = sets[0], sets[1] if len(sets) > 1 else None
    if any(name.startswith(FROM_SIGNAL) for name in names):
        with Progress(console, "measuring") as bar:  # now, where a bar shows how long it takes
            bar.add_total(len(clips))
            for clip in clips:
                with suppress(AlignCapError):  # it is left out where it is judged by
                    options.claims.facts(clip)
                bar.advance()
    asked: dict[str, Any] = {"resampling": resampling, "baseline": baseline, "notes": notes}
    names = with_splits(names)
    if judge is None or not JUDGED.intersection(names):
        return list(evaluate(clips, names, options, **asked)), None
    from aligncap.metrics.judge import open_judge_client

    with Progress(console, "asking the judge") as bar:

        def answered(done: int, of: int) -> None:
            """One more of a metric's `of` questions is answered."""
            if done == 1:
                bar.add_total(of)
            bar.advance()

        with open_judge_client(judge, progress=answered) as client:
            options = replace(options, judge=client)
            results = list(evaluate(clips, names, options, **asked))
        return results, client.report


def _report(
    form: str,
    source: str,
    results: "list[MetricResult]",
    clips: "list[ScoredClip]",
    options: "MetricOptions",
    folder: Path,
) -> str:
    """The scores as json, markdown, html or a table, headed by what was scored: "h.jsonl against
    r.jsonl: 48 clips, 1 to 3 references each, English"."""
    from aligncap.metrics import evaluation

    least, most = (pick(len(clip.references) for clip in clips) for pick in (min, max))
    each = f"{most}" if least == most else f"{least} to {most}"
    language = evaluation.LANGUAGE_NAMES[options.language]
    heading = (
        f"{source}: {len(clips)} clips, {each} reference{'' if most == 1 else 's'} each, {language}"
    )
    match form:
        case "json":
            return evaluation.as_json(results)
        case "markdown":
            return evaluation.markdown_table(results, heading)
        case "html":
            signal = any(one.score.name.startswith(FROM_SIGNAL) for one in results)
            analyses = [
                evaluation.analyse(clip, options.language, options.claims, signal=signal)
                for clip in clips
            ]
            return evaluation.report_page(
                results,
                evaluation.worst_first(analyses),
                heading=heading,
                language=options.language,
                folder=folder,
            )
    return evaluation.text_table(results, heading)


def _write(console: Console, text: str, output: Path | None) -> None:
    if output is None:
        console.print(text.removesuffix("\n"))
        return
    try:
        write_atomic(output, text)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror})") from error


def measure(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH…", help="As for caption: files, folders, globs, -."),
    ],
    format: Annotated[  # noqa: A002
        RecordFormat | None,
        typer.Option(help="How measurements are written; text, or what OUTPUT's suffix says."),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
) -> int:
    """Measure pitch, loudness, pace and voice quality; needs no model."""
    console: Console = context.obj
    form = format_of(output, format, RECORD_SUFFIXES)
    paths = expanded(paths)
    recordings: Iterable[Recording] = find_recordings(paths, console)
    facts = _fact_names() if form == "csv" else []
    if output is not None or form == "csv":
        recordings = [_beside_facts(one, facts) for one in recordings]
    heard = files_of(recordings) if output else []
    console.check_output(output, [*paths, *heard], overwrite=overwrite)
    columns = _measured_columns(recordings, facts) if form == "csv" else []
    failed = 0
    with (
        _written_to(console, output) as write,
        Progress(console, "measuring", results_on_stdout=output is None) as bar,
    ):
        if columns:
            write(csv_line(columns))
        if isinstance(recordings, list):
            bar.add_total(len(recordings))
        for recording in recordings:
            record = measured_record(recording)
            failed += "error" in record
            if "error" in record and form == "text":
                console.log(record["error"])
            else:
                write(*_measured_lines(record, form, columns))
            bar.advance()
    return SOME_FAILED if failed else 0


@contextmanager
def _written_to(console: Console, output: Path | None) -> Iterator[Callable[..., None]]:
    """Writes lines to a file, which is there when all are, or to standard output."""
    if output is None:
        yield console.print
        return
    try:
        with atomic_file(output) as file:
            yield partial(print, sep="\n", file=file)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror})") from error


def _fact_names() -> list[str]:
    """The facts that are columns of csv, named as in jsonl."""
    import numpy as np

    from aligncap.prosody import measure
    from aligncap.values import RATE_HZ, Waveform

    return [fact.name for fact in measure(Waveform(np.zeros(RATE_HZ, np.float32)))]


def _beside_facts(recording: Recording, facts: Collection[str]) -> Recording:
    """A recording whose manifest's columns are called `manifest_NAME` where facts have the name."""
    renamed = {
        f"manifest_{key}" if key in facts else key: value
        for key, value in recording.columns.items()
    }
    return replace(recording, columns=renamed)


def _measured_columns(recordings: Iterable[Recording], facts: Sequence[str]) -> list[str]:
    """The columns of csv: the manifest's, then a column for each fact."""
    return ["file", *other_columns(recordings, ()), "duration_s", "speech_s", *facts, "error"]


def _measured_lines(record: Record, form: str, columns: Sequence[str]) -> list[str]:
    """A record of `measure` as jsonl, csv (a fact that cannot be told is empty) or text."""
    if form == "jsonl":
        return [json.dumps(record, ensure_ascii=False)]
    if form == "csv":
        facts = {name: fact["value"] for name, fact in record.get("facts", {}).items()}
        return [csv_line({**record, **facts}.get(name) for name in columns)]
    return _measurement_lines(record)


def measured_record(recording: Recording) -> Record:
    """The facts of one recording as plain values, each with a value or a reason; or an error."""
    from aligncap import audio, prosody
    from aligncap.values import Waveform

    try:
        sound = recording.audio
        if isinstance(sound, AlignCapError):
            raise sound
        facts = prosody.measure(sound if isinstance(sound, Waveform) else audio.load(sound))
    except AlignCapError as error:
        return error_record(recording, error)
    measured = {
        "file": recording.file,
        "duration_s": round(facts.duration_s, 3),
        "speech_s": round(facts.speech_s, 3),
        "facts": {
            fact.name: {"value": round(float(fact.value), 4), "unit": fact.unit}
            | {"confidence": round(float(fact.confidence), 3)}
            if fact.value is not None
            else {"value": None, "unit": fact.unit, "confidence": 0.0, "reason": fact.reason}
            for fact in facts
        },
    }
    return recording.described(measured)


def _measurement_lines(record: Record) -> list[str]:
    facts = record["facts"]
    width = max(map(len, facts), default=0)
    length = f"{record['duration_s']:.1f} s, {record['speech_s']:.1f} s of speech"
    lines = [f"{record['file']}  ({length})"]
    for name, fact in facts.items():
        if fact["value"] is None:
            lines.append(f"  {name:<{width}}  cannot tell: {fact['reason']}")
        else:
            amount = f"{fact['value']:.4g} {fact['unit']}".rstrip()
            lines.append(f"  {name:<{width}}  {amount:<16}  confidence {fact['confidence']:.2f}")
    return lines


def clues(
    context: typer.Context,
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT…", help="Captions; - reads them from standard input."),
    ],
    language: Annotated[
        Language | None, typer.Option(help="Language of the texts; found out if not given.")
    ] = None,
    format: Annotated[Listing, typer.Option(help="How clues are written.")] = "text",  # noqa: A002
) -> int:
    """Find the emotional clues of a caption: what it says of the voice."""
    from aligncap.clues import detect_language

    console: Console = context.obj
    console.check_output(None, [text for text in texts if text == "-"])
    lines = (
        line for text in texts for line in (console.lines_of_stdin() if text == "-" else (text,))
    )
    for line in lines:
        record = clues_record(line, language or detect_language(line))
        if format == "jsonl":
            console.print_record(record)
        else:
            console.print(*_clue_lines(record))
    return 0


def clues_record(text: str, language: str) -> Record:
    """The clues of a text, and what they add up to, as plain values."""
    from aligncap.clues import acoustic_prompt, arousal_valence, emotion_of, find_clues

    found = find_clues(text, language)
    arousal, valence = arousal_valence(found)
    keys = ("word", "trait", "meaning", "degree", "negated")
    return {
        "text": text,
        "language": language,
        "clues": [{key: getattr(clue, key) for key in keys} for clue in found],
        "emotion": emotion_of(found),
        "arousal": arousal,
        "valence": valence,
        "acoustic_prompt": acoustic_prompt(found, language),
    }


def _clue_lines(record: Record) -> list[str]:
    """The text, a line for each clue (word, trait, meaning), and the acoustic prompt."""
    if not record["clues"]:
        return [record["text"], "  no clue of how it is spoken"]
    rows = []
    for clue in record["clues"]:
        denial = "not " if clue["negated"] else ""
        degree = {0.5: " (slightly)", 1.5: " (very)"}.get(clue["degree"], "")
        rows.append((clue["word"], clue["trait"], f"{denial}{clue['meaning']}{degree}"))
    prompt = record["acoustic_prompt"] or "none"
    return [record["text"], *(f"  {row}" for row in aligned(rows)), f"  prompt: {prompt}"]
