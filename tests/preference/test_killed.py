"""SIGKILL at a random moment, and the run goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncap.training.checkpoints import latest_checkpoint
from preference.killed_run import STEPS, run
from preference.test_dpo import trace

PROGRAM = Path(__file__).with_name("killed_run.py")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "ppo"])
def test_a_killed_and_resumed_run_gives_the_trace_of_an_uninterrupted_one(
    tmp_path: Path, preferences: Path, start: Path, kind: str
) -> None:
    run(kind, preferences, start, tmp_path / "whole", resume=False)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), kind, str(preferences), str(start), str(killed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent.parent), *sys.path])},
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 200
    while latest_checkpoint(killed) is None:
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.4))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    run(kind, preferences, start, killed, resume=True)
    assert trace(killed) == trace(tmp_path / "whole")
    ends = [
        load_file(tmp_path / name / f"checkpoint-{STEPS}" / "weights.safetensors")
        for name in ("whole", "killed")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
