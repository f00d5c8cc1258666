"""Runs of recipes one after another, for torchrun: `recipe_runs.py RUNS`.

RUNS is JSON: [{"recipe": file, "output": folder, "resume": bool, "set": [override, …]}, …]
"""

import json
import sys
from pathlib import Path

from aligncap.recipes import run_recipe

PROGRAM = Path(__file__)


if __name__ == "__main__":
    for run in json.loads(sys.argv[1]):
        run_recipe(
            Path(run["recipe"]),
            overrides=run["set"],
            output=Path(run["output"]),
            resume=run["resume"],
        )
