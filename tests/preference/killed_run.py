"""A run that a test can kill: `killed_run.py KIND PREFERENCES START OUTPUT [--resume]`."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aligncap.alignment.settings import ValidationSettings
from aligncap.preference import dpo, ppo
from aligncap.preference.examples import PreferenceRow
from aligncap.preference.ppo import PpoLossSettings
from preference import test_dpo, test_ppo

STEPS = 24


def slow_reward(row: PreferenceRow, texts: Sequence[str]) -> list[float]:
    """Gives a test the time to kill between two rounds."""
    time.sleep(0.01)
    return test_ppo.names_the_best(row, texts)


def run(kind: str, preferences: Path, start: Path, output: Path, *, resume: bool) -> None:
    """A short run of one kind, with many checkpoints."""
    output.mkdir(parents=True, exist_ok=True)
    changes = {"validation": ValidationSettings(every=7, rows=6)}
    brief = {"steps": STEPS, "save_every": 3, "log_every": 1}
    if kind == "dpo":
        settings = test_dpo.settings_of(
            preferences, start, training=replace(test_dpo.FIT, **brief), **changes
        )
        dpo.train_dpo(settings, output, resume=resume)
    else:
        rlhf = test_ppo.settings_of(
            preferences,
            start,
            training=replace(test_ppo.FIT, **brief),
            ppo=PpoLossSettings(epochs=2, minibatches=2, kl_coefficient=0.05),
            **changes,
        )
        ppo.follow(rlhf, output, reward=slow_reward, resume=resume)


if __name__ == "__main__":
    run(
        sys.argv[1],
        *map(Path, sys.argv[2:5]),
        resume="--resume" in sys.argv,
    )
