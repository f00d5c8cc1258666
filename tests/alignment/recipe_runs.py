"""Runs of one recipe one after another, for torchrun: `recipe_runs.py RECIPE RUNS`.

RUNS is JSON: [{"output": folder, "resume": bool, "set": [override, …]}, …]
"""

import json
import sys
from pathlib import Path

from aligncap.recipes import run_recipe

if __name__ == "__main__":
    recipe = Path(sys.argv[1])
    for run in json.loads(sys.argv[2]):
        output = Path(run["output"])
        run_recipe(recipe, overrides=run["set"], output=output, resume=run["resume"])
