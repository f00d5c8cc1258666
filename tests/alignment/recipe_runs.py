"""Runs of recipes one after another, for torchrun: `recipe_runs.py RUNS`.

RUNS is JSON: [{"recipe": file, "output": folder, "resume": bool, "set": [override, …]}, …]
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from aligncap.recipes import run_recipe

PROGRAM = Path(__file__)


def torchrun(*command: str) -> "subprocess.Popen[str]":
    """Two processes on this machine that talk by gloo."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    path = os.pathsep.join([str(PROGRAM.parent.parent), *sys.path])
    return subprocess.Popen(
        [*launcher, "--master_port", str(port), *command],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    for run in json.loads(sys.argv[1]):
        run_recipe(
            Path(run["recipe"]),
            overrides=run["set"],
            output=Path(run["output"]),
            resume=run["resume"],
        )
