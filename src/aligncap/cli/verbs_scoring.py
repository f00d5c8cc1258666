"""The verbs that score captions; `main` adds them to those of `verbs`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap.cli.verbs import Language
from aligncap.cli.world import World


class Report(StrEnum):
    """How scores are written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    HTML = "html"


class Tokenisation(StrEnum):
    """What n-grams are made of."""

    COCO_EN = "coco-en"
    ZH_CHAR = "zh-char"
    ZH_WORD = "zh-word"


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
CaptionLanguage = Annotated[
    Language | None, typer.Option(help="Language of the captions; found out if not given.")
]
MetricNames = Annotated[
    str | None,
    typer.Option(metavar="A,B,…", help="Which; if not given, all that need nothing more."),
]
ReportFormat = Annotated[
    Report | None,
    typer.Option(help="How scores are written; table, or what OUTPUT's suffix says."),
]
OutputFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write here, not to standard output.")
]
Draws = Annotated[int, typer.Option(min=1, help="Bootstrap draws of the intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]
Paper25 = Annotated[
    bool, typer.Option("--paper25", help="Also as the paper scores: 25 clips at a time.")
]
Tokens = Annotated[
    Tokenisation | None,
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
    language: CaptionLanguage = None,
    metrics: MetricNames = None,
    format: ReportFormat = None,  # noqa: A002
    output: OutputFile = None,
    draws: Draws = 1000,
    seed: Seed = 0,
    paper25: Paper25 = False,
    tokenisation: Tokens = None,
    jars: JarFolder = None,
    encoder: EncoderFolder = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_cache: JudgeCache = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Score captions against references, each number with its interval and signature."""
    from aligncap.cli.evaluating import EvaluateOptions, JudgeOptions, evaluate_files

    options = EvaluateOptions(
        hypotheses=hypotheses,
        references=references,
        baseline=baseline,
        language=language.value if language else None,
        metrics=metrics,
        format=format.value if format else None,
        output=output,
        draws=draws,
        seed=seed,
        paper25=paper25,
        tokenisation=tokenisation.value if tokenisation else None,
        jars=jars,
        encoder=encoder,
        judge=JudgeOptions(
            url=judge_url, model=judge_model, cache=judge_cache, prompts=judge_prompts
        ),
    )
    raise typer.Exit(evaluate_files(options, world=context.ensure_object(World)))
