"""The verbs that prepare training and what come of it: `tokens`, `merge` and `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap.cli.world import World


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
    from aligncap.cli.making import cache_tokens

    raise typer.Exit(
        cache_tokens(
            manifest,
            tokenizer=tokenizer,
            weights=weights,
            codebooks=codebooks,
            output=output,
            world=context.ensure_object(World),
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
    from aligncap.cli.making import merge_model

    raise typer.Exit(merge_model(model, out, world=context.ensure_object(World)))


def export(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    quantization: Annotated[
        Quantization, typer.Option(help="Weights of the language model.")
    ] = Quantization.INT8,
) -> None:
    """Make a model that captions without torch from a trained one (needs the train extra)."""
    from aligncap.cli.making import export_model

    raise typer.Exit(
        export_model(
            model, out, quantization=quantization.value, world=context.ensure_object(World)
        )
    )
