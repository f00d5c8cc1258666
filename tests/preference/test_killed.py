"""SIGKILL at a random moment, and the run goes on as if nothing had happened."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncap.training.checkpoints import latest_checkpoint
from preference.killed_run import STEPS, run
from support import killer
from support.rows import trace

PROGRAM = Path(__file__).with_name("killed_run.py")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "ppo"])
def test_a_killed_and_resumed_run_gives_the_trace_of_an_uninterrupted_one(
    tmp_path: Path, preferences: Path, start: Path, kind: str
) -> None:
    run(kind, preferences, start, tmp_path / "whole", resume=False)
    killed = tmp_path / "killed"
    process = killer.start(PROGRAM, kind, preferences, start, killed)
    killer.wait_until(lambda: latest_checkpoint(killed) is not None, process)
    killer.kill(process, after_s=random.uniform(0.0, 0.4))
    run(kind, preferences, start, killed, resume=True)
    assert trace(killed) == trace(tmp_path / "whole")
    ends = [
        load_file(tmp_path / name / f"checkpoint-{STEPS}" / "weights.safetensors")
        for name in ("whole", "killed")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
