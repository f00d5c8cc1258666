"""Runs of recipes: of a stage's settings here, and of recipe files one after another for torchrun.

`recipe_runs.py RUNS`, JSON: [{"recipe": file, "output": folder, "resume": bool, "set": [change]}]
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligncap.recipes import run_recipe

PROGRAM = Path(__file__)


def run(train: Callable[..., Any], settings: Any, output: Path, *, resume: bool = False) -> Any:
    """The summary of a stage's run in a folder."""
    output.mkdir(parents=True, exist_ok=True)
    return train(settings, output, resume=resume)


def assert_goes_on_alike(
    train: Callable[..., Any], settings: Any, folder: Path, *, lost: Iterable[str] = ()
) -> None:
    """Killed after its last step, before that step's checkpoint, and resumed, a run logs what an
    uninterrupted one does and ends with its weights; `lost` is gone from its folder, too."""
    whole, killed = folder / "whole", folder / "killed"
    run(train, settings, whole)
    shutil.copytree(whole, killed)
    for name in (f"checkpoint-{settings.training.steps}", "model", *lost):
        shutil.rmtree(killed / name)
    run(train, settings, killed, resume=True)
    assert_alike(whole, killed)


def assert_alike(one: Path, other: Path) -> None:
    """Two runs logged the same and ended with the same weights, bit for bit."""
    import torch
    from safetensors.torch import load_file

    from support.rows import trace

    assert trace(one) == trace(other)
    mine, theirs = (load_file(path / "model" / "model.safetensors") for path in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def use_no_compiler() -> None:
    """Have DeepSpeed not compile its collectives of inference, which takes minutes on a CPU."""
    if find_spec("deepspeed") is not None:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    use_no_compiler()
    for each in json.loads(sys.argv[1]):
        run_recipe(
            Path(each["recipe"]),
            overrides=each["set"],
            output=Path(each["output"]),
            resume=each["resume"],
        )
