"""The group `aligncap corpus` and its options; each verb imports what it needs when called."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap.cli.console import Console

VERBS = {
    "emosec": "EMOSEC: captions over the sound of ESD and IEMOCAP.",
    "mer2023": "MER2023: films with labels, and EMER's captions.",
    "nnime": "NNIME: Mandarin dialogues, no captions.",
    "secap": "SECap's test set: Mandarin with Chinese captions.",
    "esd": "ESD: 350 sentences, five emotions, twenty speakers.",
    "iemocap": "IEMOCAP: English dialogues.",
    "ravdess": "RAVDESS: two English sentences by 24 actors.",
    "emodb": "EmoDB: ten German sentences by ten actors.",
    "folder": "Any folder of sound files, captions beside them in .txt.",
}
"""The corpora, by the names of `corpora.captioned`, which would take numpy to import."""


class SplitBy(StrEnum):
    """What a split goes by."""

    RANDOM = "random"
    SPEAKER = "speaker"


app = typer.Typer(
    no_args_is_help=True,
    help="Corpora as shipped, to manifests: prepare, split, and look for faults.",
)

Source = Annotated[
    Path, typer.Argument(metavar="SRC", help="The folder of the corpus, as it was shipped.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the manifest.")
]
SplitWish = Annotated[
    SplitBy | None,
    typer.Option(
        help="Also write train, validation and test, 8:1:1: at random as the paper does, or with "
        "each speaker in one of them only."
    ),
]
Salt = Annotated[str, typer.Option(metavar="TEXT", help="Another text gives another split.")]
Subset = Annotated[
    bool,
    typer.Option("--subset", help="It is part of the corpus: do not check how many clips it has."),
]


def _verb(name: str) -> Callable[..., None]:
    def verb(
        context: typer.Context,
        source: Source,
        out: Out,
        split: SplitWish = None,
        salt: Salt = "",
        subset: Subset = False,
    ) -> None:
        from aligncap.cli.measure import prepare_corpus

        raise typer.Exit(
            prepare_corpus(
                name,
                source,
                out,
                by=split.value if split else None,
                salt=salt,
                subset=subset,
                world=context.ensure_object(Console),
            )
        )

    return verb


for _name, _help in VERBS.items():
    app.command(_name, help=_help)(_verb(_name))


@app.command()
def split(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (.jsonl).")],
    out: Out,
    by: Annotated[SplitBy, typer.Option(help="As for the corpora.")] = SplitBy.RANDOM,
    salt: Salt = "",
) -> None:
    """Split a manifest into train, validation and test."""
    from aligncap.cli.measure import split_corpus

    raise typer.Exit(
        split_corpus(manifest, out, by=by.value, salt=salt, world=context.ensure_object(Console))
    )


@app.command()
def doctor(
    context: typer.Context,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|DIR",
            help="A manifest, a prepared folder, or with --corpus a corpus as it was shipped.",
        ),
    ],
    corpus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it is; if not given, what its report says."),
    ] = None,
    subset: Subset = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read the heads of the sound files only.")
    ] = False,
) -> None:
    """Look for faults; each is a line with what to do."""
    from aligncap.cli.measure import examine_corpus

    raise typer.Exit(
        examine_corpus(
            target,
            corpus=corpus,
            subset=subset,
            quick=quick,
            world=context.ensure_object(Console),
        )
    )
