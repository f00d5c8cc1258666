"""How much noise on captions' vectors suits speech best: NoAudioCap's variance, swept.

    python -m aligncap.experiments.noise recipes/mini/alignment/prefix.toml \\
        --rows runs/mini/alignment/text/rows.jsonl --start runs/mini/alignment/lm/model

Every run is the same but for `student.noise`. The rows' validation part holds speech
(`validation = "speech"` of recipe kind "text-rows"): what is compared is the cross-entropy of the
captions of validation speakers after their speech. Runs that are there already are not repeated.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import aligncap
from aligncap.errors import DataError
from aligncap.experiments import command, write_page
from aligncap.recipes import apply_override, read_toml, run_recipe
from aligncap.storage import hash_of_file
from aligncap.training.loop import read_log

VARIANCES = (0.0, 1e-4, 1e-3, 0.015, 0.05, 0.1)
"""Values that NoAudioCap's successors have tried; 0.015 was best of one sweep."""


def validation_of(run: Path) -> float:
    """The cross-entropy of the last validation, nats a token; DataError where there was none."""
    losses = [line["validation_ce"] for line in read_log(run) if "validation_ce" in line]
    if not losses:
        raise DataError(f"{run}: its log has no validation_ce; the rows need validation rows")
    return losses[-1]


def steps_of(recipe: Path, changes: Sequence[str]) -> int:
    """How many optimiser steps a run takes: the learning rate falls over all of them, so another
    length is another run, and a finished one does not go on."""
    table = read_toml(recipe)
    for change in changes:
        apply_override(table, change)
    return int(table["training"]["steps"])


def sweep_table(found: Mapping[float, Sequence[float]]) -> list[str]:
    """Markdown lines: of each variance mean ± standard deviation over seeds."""
    lines = ["| variance | cross-entropy after speech |", "| --- | --- |"]
    for variance, losses in found.items():
        spread = np.std(losses, ddof=1) if len(losses) > 1 else 0.0
        lines.append(f"| {variance:g} | {np.mean(losses):.3f} ± {spread:.3f} |")
    return lines


def main(
    recipe: Annotated[Path, typer.Argument(help="A recipe of kind ce with a connector.")],
    rows: Annotated[Path, typer.Option(help="Text rows whose validation rows hold speech.")],
    start: Annotated[Path, typer.Option(help="Model folder of the frozen language model.")],
    runs: Annotated[Path, typer.Option(help="Keeps every run.")] = Path("runs/noise"),
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/noise.md"
    ),
    variance: Annotated[list[float] | None, typer.Option(help="May be repeated.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of every variance.")] = 3,
    change: Annotated[list[str] | None, typer.Option("--set", help="For every run.")] = None,
) -> None:
    """Train with every variance and seed, and write the table."""
    found: dict[float, list[float]] = {one: [] for one in variance or VARIANCES}
    for one, losses in found.items():
        for seed in range(seeds):
            changes = [
                f'data.rows=["{rows}"]',
                f'model.start="{start}"',
                f"student.noise={one}",
                f"training.seed={seed}",
                *(change or ()),
            ]
            run = runs / f"{steps_of(recipe, changes)}-steps" / f"{one:g}-{seed}"
            run_recipe(recipe, overrides=changes, output=run, resume=True)
            losses.append(validation_of(run))
    write_page(
        output,
        "Noise on captions' vectors",
        f"Made by `{command('noise', recipe, rows=rows, start=start)}`; do not edit. "
        "Signature: aligncap "
        f"{aligncap.__version__} · {recipe} · {seeds} seeds, mean ± sd · rows "
        f"{hash_of_file(rows)[:12]} · overrides {change or 'none'}.",
        sweep_table(found),
    )


if __name__ == "__main__":
    typer.run(main)
