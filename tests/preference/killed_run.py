"""A run that a test can kill: `killed_run.py KIND PREFERENCES START OUTPUT`.

It stops before its end, for the kill."""

import sys
from dataclasses import replace
from pathlib import Path

from aligncap.alignment.trainer import ValidationSettings
from aligncap.preference import dpo, ppo
from aligncap.preference.ppo import PpoLossSettings
from preference import test_dpo, test_ppo
from support.killer import hold_at_step

STEPS, HELD_AT = 24, 20


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
        ppo.maximise(rlhf, output, reward=test_ppo.names_the_best, resume=resume)


if __name__ == "__main__":
    hold_at_step(HELD_AT)
    run(sys.argv[1], *map(Path, sys.argv[2:5]), resume=False)
