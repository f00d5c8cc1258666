"""The arguments that verbs which run a recipe share.

The verbs and their options; each imports what it needs when called, so `--help` is quick.

The verbs that prepare training and what come of it: `tokens`, `merge` and `export`.

The verbs that score captions; `main` adds them to those of `verbs`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap import __version__
from aligncap.cli.console import Console

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]

RunFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run; runs/RECIPE if not given."),
]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the recipe and say what would be done.")
]


class Language(StrEnum):
    """The language a caption is written in."""

    EN = "en"
    ZH = "zh"


Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A completions server (…/v1) that has the merged model."),
]
Served = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The model's name there; its own if not given."),
]
TokenizerWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Weights of the model's speech tokenizer, where they are not in its folder.",
    ),
]


class Format(StrEnum):
    """How captions are written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


class Listing(StrEnum):
    """How measurements and clues are written."""

    TEXT = "text"
    JSONL = "jsonl"


app = typer.Typer(
    name="aligncap",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: twice as quick, and it reads the same in a pipe
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"aligncap {__version__}")
        raise typer.Exit


@app.callback()
def aligncap(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and stop."
        ),
    ] = False,
) -> None:
    """Say in a sentence how somebody speaks: emotion, pitch, loudness, pace, voice."""


@app.command()
def caption(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Sound files, folders (searched for sound files), quoted globs, manifests "
            "(.jsonl), or - for standard input: paths, one a line, or the bytes of one sound file.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR", help="A built-in model, a model folder, or ORG/NAME of the hub."
        ),
    ] = "mini",
    language: Annotated[Language, typer.Option(help="Language of the captions.")] = Language.EN,
    format: Annotated[  # noqa: A002
        Format | None,
        typer.Option(help="How captions are written; text, or what OUTPUT's suffix says."),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=64, help="How many captions of each file.")
    ] = 1,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Show each clue beside the measurement that bears on it."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here, not to standard output.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with OUTPUT: skip the files it already has.")
    ] = False,
    endpoint: Endpoint = None,
    served: Served = None,
    tokenizer_weights: TokenizerWeights = None,
) -> None:
    """Caption recordings: one sentence for each file."""
    from aligncap.cli.caption import CaptionOptions, caption_paths

    options = CaptionOptions(
        model=model,
        language=language.value,
        format=format.value if format else None,
        candidates=candidates,
        evidence=evidence,
        output=output,
        resume=resume,
        endpoint=endpoint,
        served=served,
        tokenizer_weights=tokenizer_weights,
    )
    raise typer.Exit(caption_paths(paths, options, world=context.ensure_object(Console)))


@app.command()
def measure(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="WAV", help="As for caption: files, folders, globs, -."),
    ],
    format: Annotated[  # noqa: A002
        Listing, typer.Option(help="How measurements are written.")
    ] = Listing.TEXT,
) -> None:
    """Measure pitch, loudness, pace and voice quality; needs no model."""
    from aligncap.cli.measure import measure_paths

    raise typer.Exit(
        measure_paths(paths, format=format.value, world=context.ensure_object(Console))
    )


@app.command()
def clues(
    context: typer.Context,
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="Captions; - reads them from standard input."),
    ],
    language: Annotated[
        Language | None, typer.Option(help="Language of the texts; found out if not given.")
    ] = None,
    format: Annotated[  # noqa: A002
        Listing, typer.Option(help="How clues are written.")
    ] = Listing.TEXT,
) -> None:
    """Find the emotional clues of a caption: what it says of the voice."""
    from aligncap.cli.measure import list_clues

    raise typer.Exit(
        list_clues(
            texts,
            language=language.value if language else None,
            format=format.value,
            world=context.ensure_object(Console),
        )
    )


@app.command()
def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (.toml).")],
    set: Changes = None,  # noqa: A002
    output: RunFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Train what a recipe describes (needs the train extra)."""
    from aligncap.cli.measure import train_recipe

    raise typer.Exit(
        train_recipe(
            recipe,
            overrides=set or [],
            output=output,
            resume=resume,
            dry_run=dry_run,
            world=context.ensure_object(Console),
        )
    )


class Quantization(StrEnum):
    """The weights of an exported model."""

    INT8 = "int8"
    FLOAT32 = "float32"


def tokens(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (.jsonl).")],
    tokenizer: Annotated[
        str, typer.Option(metavar="NAME", help="speechtokenizer, mimi or builtin.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the token cache.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The tokenizer's weights, where it needs any."),
    ] = None,
    codebooks: Annotated[
        int, typer.Option(min=1, help="speechtokenizer, mimi: RVQ layers; 1 is the paper's.")
    ] = 1,
) -> None:
    """Turn the speech of a manifest into tokens, once, for training."""
    from aligncap.cli.measure import cache_tokens

    raise typer.Exit(
        cache_tokens(
            manifest,
            tokenizer=tokenizer,
            weights=weights,
            codebooks=codebooks,
            output=output,
            world=context.ensure_object(Console),
        )
    )


def merge(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
) -> None:
    """Merge a trained model for transformers and vLLM (needs the train extra).

    OUT is a plain checkpoint in which speech tokens are ordinary tokens; its README says what
    prompt to send.
    """
    from aligncap.cli.measure import merge_model

    raise typer.Exit(merge_model(model, out, world=context.ensure_object(Console)))


def export(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    quantization: Annotated[
        Quantization, typer.Option(help="Weights of the language model.")
    ] = Quantization.INT8,
) -> None:
    """Make a model that captions without torch from a trained one (needs the train extra)."""
    from aligncap.cli.measure import export_model

    raise typer.Exit(
        export_model(
            model, out, quantization=quantization.value, world=context.ensure_object(Console)
        )
    )


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
    from aligncap.cli.console import LlmOptions
    from aligncap.cli.evaluate import EvaluateOptions, evaluate_files

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
        judge=LlmOptions(
            url=judge_url, model=judge_model, cache=judge_cache, prompts=judge_prompts
        ),
    )
    raise typer.Exit(evaluate_files(options, world=context.ensure_object(Console)))
