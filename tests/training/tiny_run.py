"""Tiny runs of `fit` in processes of their own.

`tiny_run.py killed OUTPUT STEP GATE` stops after STEP steps of its optimizer until GATE is there;
`tiny_run.py shared OUTPUT` is one of several processes."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from aligncap.training.loop import History, fit
from aligncap.training.settings import FitSettings
from support.killer import hold_at_step

PROGRAM = Path(__file__)
SETTINGS = FitSettings(precision="float32",
                       steps=40, learning_rate=1e-2, warmup_steps=5, weight_decay=0.1,
                       accumulation=2, save_every=6, log_every=4, ema_decay=0.9,
                       seed=3)  # fmt: skip


def tiny_model() -> nn.Module:
    """A network with dropout and running statistics: both must survive a resume."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1)
    )


def batch_at(number: int) -> torch.Tensor:
    """Batch `number`: 16 points of four coordinates."""
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(number))


def run(output: Path, *, resume: bool, settings: FitSettings = SETTINGS, **more: object) -> History:
    """Learn the product of two coordinates."""
    model = tiny_model()

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        error = (model(batch)[:, 0] - batch[:, 0] * batch[:, 1]).square().mean()
        return {"loss": error, "size": error.detach() * 2}

    return fit(model, step, batch_at, settings, output, resume=resume, **more)


def run_shared(output: Path, *, model_seed: int = 0) -> None:
    """Fit a plane, and leave a second weight that no batch ever uses."""
    torch.manual_seed(model_seed)
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(2, 2)})

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (model["used"](batch)[:, 0] - batch.sum(1)).square().mean()}

    settings = FitSettings(
        precision="float32", steps=6, learning_rate=0.05, accumulation=2, clip_norm=0.5, log_every=1
    )
    fit(model, step, batch_at, settings, output, resume=False)


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        hold_at_step(int(sys.argv[3]), Path(sys.argv[4]))
        run(Path(sys.argv[2]), resume=False)
    else:  # each process begins elsewhere: they must be brought together
        run_shared(Path(sys.argv[2]), model_seed=int(os.environ["RANK"]))
