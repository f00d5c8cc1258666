"""The arguments that verbs which run a recipe share."""

from pathlib import Path
from typing import Annotated

import typer

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
