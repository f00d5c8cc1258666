"""`aligncap reproduce`: the paper's tables and figures, with what has to be trained for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncap.cli.console import SOME_FAILED, Console

if TYPE_CHECKING:
    from aligncap.experiments.reproduce import Options

DATA = Path("../shared/data/speech")


def reproduce(
    context: typer.Context,
    what: Annotated[
        list[str],
        typer.Argument(metavar="WHAT…", help="table1 … table4, figure2, 3, 7, 8, 9, or all."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Keeps every run.")],
    scale: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="small, paper, or a file like theirs.")
    ] = "small",
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the corpora's manifests.")
    ] = DATA,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of everything; as the scale has it, else.")
    ] = None,
    system: Annotated[
        list[Path] | None,
        typer.Option(metavar="RECIPE", help="One more system of table 1; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, in what time and memory.")
    ] = False,
) -> int:
    """Make tables and figures of the paper: train, caption, score what is missing (needs the train
    extra).

    What is done is not done again. A run that was stopped goes on with the same command.
    """
    from aligncap.errors import InterruptedRunError
    from aligncap.experiments import comparison, forecast
    from aligncap.experiments.reproduce import Options, Reproduction

    console: Console = context.obj
    asked = comparison.read_scale(scale, system or ())
    items = tuple(asked.items) if "all" in what else tuple(dict.fromkeys(what))
    options = Options(scale=asked, items=items, data=data, out=out, seeds=seeds or asked.seeds)
    reproduction = Reproduction(options)
    tasks = reproduction.tasks()
    console.print(*forecast.describe(reproduction, tasks))
    if dry_run:
        return 0
    try:
        reproduction.work(tasks, console.log)
    except KeyboardInterrupt as stop:
        done = sum(task.finished for task in tasks)
        kept = (
            f"{done} of {len(tasks)} runs are finished in {out}, trainings have their checkpoints"
        )
        raise InterruptedRunError(f"stopped; {kept}; the same command goes on") from stop
    _write(console, options, f"aligncap reproduce {{}} --scale {scale} --seeds {options.seeds}")
    return SOME_FAILED if reproduction.failed else 0


def _write(console: Console, options: "Options", command: str) -> None:
    """Write what the runs that are there show, and say where."""
    from aligncap.experiments.runs import read_runs
    from aligncap.experiments.tables import write_tables

    runs = read_runs(options.out)
    for page in write_tables(options.scale, options.items, runs, options.out, command=command):
        console.print(page.read_text("utf-8"), f"written: {page}")
