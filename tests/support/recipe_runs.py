"""Runs of recipes one after another, for torchrun: `recipe_runs.py RUNS`.

RUNS is JSON: [{"recipe": file, "output": folder, "resume": bool, "set": [override, …]}, …]
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

from aligncap.recipes import run_recipe

PROGRAM = Path(__file__)


def use_no_compiler() -> None:
    """Have DeepSpeed not compile its collectives of inference, which takes minutes on a CPU."""
    if find_spec("deepspeed") is not None:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    use_no_compiler()
    for run in json.loads(sys.argv[1]):
        run_recipe(
            Path(run["recipe"]),
            overrides=run["set"],
            output=Path(run["output"]),
            resume=run["resume"],
        )
