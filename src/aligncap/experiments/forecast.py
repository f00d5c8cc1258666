"""What a comparison would still train: of each stage its parameters, memory and time, and the files
that are missing."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncap.errors import AlignCapError
from aligncap.experiments.reproduce import Reproduction, Task
from aligncap.experiments.stages import DONE_FILE, SHARED, Stage
from aligncap.recipes import run_recipe


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one stage; None where it is not known before other stages are made."""

    stage: Stage
    parameters: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    steps: int
    seconds: float | None
    missing: tuple[str, ...]
    """What is not on this machine, each with what to do."""


def forecast(stage: Stage, times: Mapping[str, float]) -> Forecast:
    """The dry run of a stage. `times` are seconds by recipe, as far as any are known."""
    try:
        described: Any = run_recipe(
            stage.recipe, overrides=stage.overrides, output=stage.folder, dry_run=True
        )
    except AlignCapError as error:
        return Forecast(stage, None, None, None, 0, times.get(str(stage.recipe)), (str(error),))
    plan, settings = described["plan"], described["settings"]
    own = [str(one.folder) for one in stage.in_order()]
    missing = tuple(
        f"{one['name']}: {one['cure']}"
        for one in plan["loads"]
        if not one["present"] and not any(one["name"].startswith(folder) for folder in own)
    )
    total = {key: (plan[key] or {}).get("total") for key in ("parameters", "memory_bytes")}
    return Forecast(
        stage,
        total["parameters"],
        total["memory_bytes"],
        (plan["disk_bytes"] or {}).get("total"),
        settings.get("training", {}).get("steps", 0),
        times.get(str(stage.recipe)),
        missing,
    )


def known_times(out: Path) -> dict[str, float]:
    """Seconds that the stages of each recipe took in this folder, the median of all."""
    found: dict[str, list[float]] = {}
    for file in (out / SHARED).glob(f"*/{DONE_FILE}"):
        done = json.loads(file.read_text("utf-8"))
        found.setdefault(done["recipe"], []).append(done["seconds"])
    return {recipe: statistics.median(seconds) for recipe, seconds in found.items()}


def describe(reproduction: Reproduction, tasks: Sequence[Task]) -> Iterator[str]:
    """Lines: how many runs there are and how many are finished; the stages that are left, a line
    for those of one recipe; what they take together; what is missing."""
    out = reproduction.options.out
    finished = sum(task.finished for task in tasks)
    stages, times = reproduction.missing_stages(tasks), known_times(out)
    yield f"{len(tasks)} runs, {finished} finished; {len(stages)} trainings and preparations left"
    by_recipe: dict[str, list[Stage]] = {}
    for stage in stages:
        by_recipe.setdefault(str(stage.recipe), []).append(stage)
    missing: dict[str, None] = {}
    seconds, unknown, most = 0.0, 0, 0
    for recipe, own in by_recipe.items():
        one = forecast(own[0], times)
        missing |= dict.fromkeys(one.missing)
        took = "time not known" if one.seconds is None else f"about {clock(one.seconds)} each"
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
    for reason, names in reproduction.cannot().items():
        yield f"cannot be planned: {len(names)} runs, such as {names[0]}: {reason}"


def clock(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
