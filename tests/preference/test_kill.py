"""SIGKILL at a random moment: of a store at work, and of a training run."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncap.training.checkpoints import latest_checkpoint
from preference.killed_run import STEPS, run
from preference.killing import CLIPS, EACH
from support import killer
from support.killer import finish, start
from support.rows import trace

ROUNDS = 50


@pytest.mark.slow
def test_killed_fifty_times_the_store_opens_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path,
) -> None:
    script = Path(__file__).with_name("killing.py")
    found = json.loads(finish(start(script, tmp_path / "s.sqlite", ROUNDS, 3))[0])
    versions = 1 + (ROUNDS - 1) // 9
    assert found["cut_short"] >= ROUNDS * 4 // 5  # most were killed at their work
    assert found["told"] > ROUNDS  # and had got some of it done
    assert found["judgements"] == CLIPS * EACH * (1 + versions)
    assert found["annotations"] == 60 * (versions + 1)
    assert found["pairs_now"] == CLIPS * (EACH - 1)
    assert found["candidates"] == CLIPS * EACH


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
