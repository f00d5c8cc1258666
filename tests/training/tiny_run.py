"""A tiny run of `fit` that a test can kill: `tiny_run.py OUTPUT STEP GATE`.

It stops after STEP steps of its optimizer until GATE is there."""

import sys
from pathlib import Path

import torch
from torch import nn

from aligncap.training.loop import History, fit
from aligncap.training.settings import FitSettings
from support.killer import hold_at_step

SETTINGS = FitSettings(
    steps=40,
    learning_rate=1e-2,
    warmup_steps=5,
    weight_decay=0.1,
    accumulation=2,
    save_every=6,
    log_every=4,
    ema_decay=0.9,
    seed=3,
)


def tiny_model() -> nn.Module:
    """A network with dropout and running statistics: both must survive a resume."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1)
    )


def batch_at(number: int) -> torch.Tensor:
    """Batch `number`: 16 points of four coordinates."""
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(number))


def run(output: Path, *, resume: bool) -> History:
    """Learn the product of two coordinates."""
    model = tiny_model()

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = (model(batch)[:, 0] - batch[:, 0] * batch[:, 1]).square().mean()
        return {"loss": error, "size": error.detach() * 2}

    return fit(model, step, batch_at, SETTINGS, output, resume=resume)


if __name__ == "__main__":
    hold_at_step(int(sys.argv[2]), Path(sys.argv[3]))
    run(Path(sys.argv[1]), resume=False)
