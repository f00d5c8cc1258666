"""A run of `fit` in one or several processes: `parallel_run.py OUTPUT ACCUMULATION`."""

import sys
from pathlib import Path

import torch
from torch import nn

from aligncap.training.loop import fit
from aligncap.training.settings import FitSettings
from training.tiny_run import batch_at


def run(output: Path, *, accumulation: int, model_seed: int = 0) -> None:
    """Fit a plane, and leave a second weight that no batch ever uses."""
    torch.manual_seed(model_seed)
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(2, 2)})

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (model["used"](batch)[:, 0] - batch.sum(1)).square().mean()}

    settings = FitSettings(
        steps=6, learning_rate=0.05, accumulation=accumulation, clip_norm=0.5, log_every=1
    )
    fit(model, step, batch_at, settings, output, resume=False)


if __name__ == "__main__":
    import os

    # Each process begins elsewhere: they must be brought together.
    run(
        Path(sys.argv[1]),
        accumulation=int(sys.argv[2]),
        model_seed=int(os.environ.get("RANK", "0")),
    )
