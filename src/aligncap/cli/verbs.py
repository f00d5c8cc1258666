"""The verbs and their options; each imports what it needs when called, so `--help` is quick."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap import __version__
from aligncap.cli.recipe_options import Changes, DryRun, RunFolder
from aligncap.cli.world import World


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
    from aligncap.cli.captioning import CaptionOptions, caption_paths

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
    raise typer.Exit(caption_paths(paths, options, world=context.ensure_object(World)))


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
    from aligncap.cli.measuring import measure_paths

    raise typer.Exit(measure_paths(paths, format=format.value, world=context.ensure_object(World)))


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
    from aligncap.cli.clueing import list_clues

    raise typer.Exit(
        list_clues(
            texts,
            language=language.value if language else None,
            format=format.value,
            world=context.ensure_object(World),
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
    from aligncap.cli.making import train_recipe

    raise typer.Exit(
        train_recipe(
            recipe,
            overrides=set or [],
            output=output,
            resume=resume,
            dry_run=dry_run,
            world=context.ensure_object(World),
        )
    )
