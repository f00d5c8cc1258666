"""The verbs of `aligncap prefer` that lead to a trained model: `rows` and `run`."""

from pathlib import Path
from typing import Annotated

import typer

from aligncap.cli.recipe_options import Changes, DryRun, RunFolder
from aligncap.cli.world import World


def write_rows(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A preference store (.sqlite).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.jsonl).")],
    rows: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", help="Training rows of the clips, for their tokens; may be repeated."
        ),
    ],
) -> None:
    """Write the latest pairs as rows that `aligncap train` learns from (dpo, reward, ppo)."""
    from aligncap.cli.prefer_steps import write_training_rows

    raise typer.Exit(write_training_rows(store, out, rows, world=context.ensure_object(World)))


def run_whole(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe of kind prefer (.toml).")
    ],
    set: Changes = None,  # noqa: A002
    output: RunFolder = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds; each asks the policy of the one before for candidates."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Candidates, judge, pairs and training in one; what is done already is not done again."""
    from aligncap.cli.making import train_recipe

    changes = [*(set or []), *([f"rounds={rounds}"] if rounds is not None else [])]
    raise typer.Exit(
        train_recipe(
            recipe,
            overrides=changes,
            output=output,
            resume=True,
            dry_run=dry_run,
            world=context.ensure_object(World),
        )
    )
