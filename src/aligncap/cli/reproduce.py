"""`aligncap reproduce`: the paper's tables and figures, with what has to be trained for them."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligncap.cli.console import SOME_FAILED, Console
from aligncap.cli.evaluate import (
    JarFolder,
    JudgeCache,
    JudgeModel,
    JudgePrompts,
    JudgeUrl,
    judge_settings,
)

if TYPE_CHECKING:
    from aligncap.experiments.reproduce import Options, Reproduction, Task
    from aligncap.metrics.judge import JudgeSettings

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
        int | None,
        typer.Option(min=1, help="How many seeds; without it, as many as the scale has."),
    ] = None,
    system: Annotated[
        list[Path] | None,
        typer.Option(metavar="RECIPE", help="One more system of table 1; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, in what time and memory.")
    ] = False,
    jars: JarFolder = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_cache: JudgeCache = None,
    judge_prompts: JudgePrompts = None,
) -> int:
    """Make tables and figures of the paper: train, caption, score what is missing (needs the train
    extra).

    What is done is not done again, and a run that was stopped goes on with the same command. Given
    several times at once, with one --out, the work is shared.
    """
    from aligncap.experiments import comparison
    from aligncap.experiments.reproduce import Options
    from aligncap.metrics.scores import MetricOptions

    asked = comparison.read_scale(scale, system or ())
    options = Options(
        scale=asked,
        items=tuple(asked.items) if "all" in what else tuple(dict.fromkeys(what)),
        data=data,
        out=out,
        seeds=seeds or asked.seeds,
        metrics=MetricOptions(jars=jars),
    )
    command = f"aligncap reproduce {{}} --scale {scale} --seeds {options.seeds}"
    given = (judge_model, judge_url, judge_cache, judge_prompts)
    return _run(context.obj, options, command, given, dry_run=dry_run)


def _run(
    console: Console,
    options: "Options",
    command: str,
    judge: tuple[str | None, str | None, Path | None, Path | None],
    *,
    dry_run: bool,
) -> int:
    """Plan, and make or describe what is missing."""
    from aligncap.experiments import forecast
    from aligncap.experiments.reproduce import Reproduction

    reproduction = Reproduction(options)
    tasks = reproduction.tasks()
    console.print(*forecast.summary(reproduction, tasks))
    if dry_run:
        for line in forecast.describe(reproduction, tasks):
            console.print(line)
    else:
        _work(console, reproduction, tasks, judge_settings(console, *judge))
        _write(console, options, command)
        if reproduction.faults:
            raise reproduction.faults[0]
    return SOME_FAILED if reproduction.failed else 0


def _work(
    console: Console,
    reproduction: "Reproduction",
    tasks: "list[Task]",
    judge: "JudgeSettings | None",
) -> None:
    """Make what is missing, and say after each run what is left."""
    from aligncap.errors import InterruptedRunError
    from aligncap.experiments import forecast
    from aligncap.experiments.runs import read_runs
    from aligncap.metrics.judge import open_judge_client

    options, out = reproduction.options, reproduction.options.out
    with ExitStack() as stack:
        if judge is not None:
            client = stack.enter_context(open_judge_client(judge))
            metrics = replace(options.metrics, judge=client)
            reproduction.options = replace(options, metrics=metrics)
        try:
            reproduction.work(tasks, console.log, lambda _: console.log(forecast.left(tasks, out)))
            reproduction.score_again(read_runs(out), console.log)
        except (KeyboardInterrupt, InterruptedRunError) as stop:
            kept = f"{forecast.left(tasks, out)}, and trainings have their checkpoints"
            raise InterruptedRunError(f"stopped; {kept}; the same command goes on") from stop


def _write(console: Console, options: "Options", command: str) -> None:
    """Write what the runs that are there show, and say where."""
    from aligncap.errors import DataError
    from aligncap.experiments.plots import draw
    from aligncap.experiments.report import write_report
    from aligncap.experiments.runs import read_runs
    from aligncap.experiments.tables import write_tables

    runs = read_runs(options.out)
    for page in write_tables(options.scale, options.items, runs, options.out, command=command):
        console.print(page.read_text("utf-8"), f"written: {page}")
    for item in options.items:
        if item.startswith("figure"):
            wanted = options.scale.items[item]
            shown = [run for run in runs if run.test_name in wanted.tests]
            try:
                pictures = draw(item, shown, options.out, options.data, note=wanted.note)
            except DataError as error:  # its runs are not made yet
                console.log(str(error))
            else:
                console.print(*(f"written: {path}" for path in pictures))
    if runs:
        told = command.format("all")
        console.print(f"written: {write_report(runs, options.out, options.data, command=told)}")
