"""What a comparison would still train: of each stage its parameters, memory and time, and the files
that are missing."""

import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aligncap.errors import AlignCapError
from aligncap.experiments.reproduce import Reproduction, Task
from aligncap.experiments.runs import read_runs
from aligncap.experiments.stages import DONE_FILE, SHARED, Stage
from aligncap.recipes import run_recipe


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one stage; None where it is not known before other stages are made."""

    stage: Stage
    parameters: int | None
    memory_bytes: int | None
    steps: int
    seconds: float | None
    """Of earlier stages of the recipe in the same folder, else by arithmetic."""
    counted: bool
    """Whether it is by arithmetic."""
    missing: tuple[str, ...]
    """What is not on this machine, each with what to do."""


def forecast(stage: Stage, times: Mapping[str, float]) -> Forecast:
    """The dry run of a stage. `times` are seconds by recipe, as far as any are known.

    What begins with the model of a stage that is not made is taken to be as large as that.
    """
    known = times.get(str(stage.recipe))
    try:
        described: Any = run_recipe(
            stage.recipe, overrides=stage.overrides, output=stage.folder, dry_run=True
        )
    except AlignCapError as error:
        return Forecast(stage, None, None, 0, known, False, (str(error),))
    plan, settings = described["plan"], described["settings"]
    sizes = [(plan[key] or {}).get("total") for key in ("parameters", "memory_bytes")]
    if sizes[0] is None and stage.kind not in ("token-rows", "text-rows", "codebook"):
        starts = [forecast(one, times) for one in stage.needs if one.done is None]
        found = [(one.parameters, one.memory_bytes) for one in starts if one.parameters]
        sizes = list(found[-1]) if found else sizes
    own = [str(one.folder) for one in stage.in_order()]
    missing = tuple(
        f"{one['name']}: {one['cure']}"
        for one in plan["loads"]
        if not one["present"] and not any(one["name"].startswith(folder) for folder in own)
    )
    seconds = seconds_by_arithmetic(settings, sizes[0]) if known is None else known
    steps = settings.get("training", {}).get("steps", 0)
    return Forecast(stage, sizes[0], sizes[1], steps, seconds, known is None, missing)


SAMPLE_TOKENS = 100
"""Of a prompt of speech and a caption, about."""


def seconds_by_arithmetic(settings: Mapping[str, Any], parameters: int | None) -> float | None:
    """Six operations a parameter and token, at the speed of this processor; None for what takes no
    steps, or where the parameters are not known."""
    if parameters is None or "training" not in settings:
        return None
    training, batch = settings["training"], settings.get("batch", {})
    samples = batch.get("rows", 16) * batch.get("captions", 1) * training.get("accumulation", 1)
    operations = 6.0 * parameters * samples * SAMPLE_TOKENS * training["steps"]
    return float(operations / processor_speed())


@cache
def processor_speed() -> float:
    """Operations a second of a matrix product, as fast as this processor does it now."""
    size, best = 512, math.inf
    matrix = np.ones((size, size), np.float32)
    for _ in range(5):
        begun = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best


def known_times(out: Path) -> dict[str, float]:
    """Seconds that the stages of each recipe took in this folder, the median of all."""
    found: dict[str, list[float]] = {}
    for file in (out / SHARED).glob(f"*/{DONE_FILE}"):
        done = json.loads(file.read_text("utf-8"))
        found.setdefault(done["recipe"], []).append(done["seconds"])
    return {recipe: statistics.median(seconds) for recipe, seconds in found.items()}


def summary(reproduction: Reproduction, tasks: Sequence[Task]) -> Iterator[str]:
    """Lines: how many runs there are and how many are finished; which cannot be planned."""
    finished, stages = sum(task.finished for task in tasks), reproduction.missing_stages(tasks)
    yield f"{len(tasks)} runs, {finished} finished; {len(stages)} trainings and preparations left"
    for reason, names in reproduction.cannot().items():
        yield f"cannot be planned: {len(names)} runs, such as {names[0]}: {reason}"


def describe(reproduction: Reproduction, tasks: Sequence[Task]) -> Iterator[str]:
    """Lines: the stages that are left, a line for those of one recipe; what they take together;
    what is missing."""
    stages, times = reproduction.missing_stages(tasks), known_times(reproduction.options.out)
    by_recipe: dict[str, list[Stage]] = {}
    for stage in stages:
        by_recipe.setdefault(str(stage.recipe), []).append(stage)
    missing: dict[str, None] = {}
    seconds, unknown, most = 0.0, 0, 0
    for recipe, own in by_recipe.items():
        one = forecast(own[0], times)
        missing |= dict.fromkeys(one.missing)
        took = "time not known" if one.seconds is None else f"about {clock(one.seconds)} each"
        took += " by arithmetic" if one.counted and one.seconds is not None else ""
        size = "" if one.parameters is None else f"{one.parameters:,} parameters, "
        memory = "" if one.memory_bytes is None else f"{one.memory_bytes / 1e9:.2f} GB, "
        steps = f"{one.steps:,} steps, " if one.steps else ""
        yield f"  {len(own):3} x {recipe}: {size}{memory}{steps}{took}"
        most = max(most, one.memory_bytes or 0)
        seconds += len(own) * (one.seconds or 0.0)
        unknown += len(own) * (one.seconds is None)
    if stages:
        rest = f", and {unknown} of unknown time" if unknown else ""
        yield f"together about {clock(seconds)}{rest}; at most {most / 1e9:.2f} GB of weights"
    for line in missing:
        yield f"missing: {line}"


def left(tasks: Sequence[Task], out: Path) -> str:
    """How many runs are finished, and how long the others take by those that were made before."""
    waiting = [task for task in tasks if not task.finished]
    times, tests = known_times(out), list[float]()
    for run in read_runs(out):
        tests.append(run.test_seconds)
    stages = {stage.key: stage for task in waiting for stage in task.stage.in_order()}
    unmade = [times.get(str(one.recipe)) for one in stages.values() if one.done is None]
    seconds = sum(one or 0.0 for one in unmade)
    seconds += len(waiting) * (statistics.median(tests) if tests else 0.0)
    more = f", and {unmade.count(None)} stages of unknown time" if None in unmade else ""
    finished = len(tasks) - len(waiting)
    return f"{finished} of {len(tasks)} runs finished; about {clock(seconds)} left{more}"


def clock(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 20 min", "12 days"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes > 72 * 60:
        return f"{minutes / 60 / 24:,.0f} days"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
