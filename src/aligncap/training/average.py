"""An exponential moving average of the weights that are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from aligncap.errors import DataError
from aligncap.training.checkpoints import latest_checkpoint, load_buffers, trained
from aligncap.training.whole import laid_as, whole

AVERAGE_FILE = "average.safetensors"


class WeightAverage:
    """The average a ← d·a + (1-d)·w of every trained weight w, updated after each step.

    The decay starts lower, (1+n)/(10+n) after n updates, so that the first random weights are
    soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Start again from the model's present weights."""
        self.weights = {name: p.detach().clone() for name, p in trained(self._model).items()}
        self.updates = 0

    @torch.no_grad()
    def follow(self) -> None:
        """Be shared out, and be where, the model's weights are; every process must call."""
        entire = {name: whole(weight) for name, weight in self.weights.items()}
        self.weights = {n: laid_as(p, entire[n]) for n, p in trained(self._model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights in."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        present = [p.detach() for p in trained(self._model).values()]
        torch._foreach_lerp_(list(self.weights.values()), present, 1 - decay)

    @torch.no_grad()
    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Go on from an average that was saved."""
        self.weights = dict(weights)
        self.updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def keep(self) -> None:
        """Give the model the averaged weights for good."""
        for name, weight in trained(self._model).items():
            weight.copy_(self.weights[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in trained(self._model).items():
            own = weight.detach().clone()
            weight.copy_(self.weights[name])
            self.weights[name].copy_(own)


@torch.no_grad()
def load_average(model: nn.Module, output: Path) -> int:
    """Put the averaged weights of a run's last checkpoint into `model`; returns its step.

    Raises DataError where the run keeps no average (`ema_decay` unset) or has no checkpoint.
    """
    found = latest_checkpoint(output)
    if found is None:
        raise DataError(f"{output}: holds no checkpoint; train first")
    if not (found / AVERAGE_FILE).exists():
        raise DataError(f"{found}: holds no averaged weights; train with ema_decay set")
    weights = load_file(found / AVERAGE_FILE)
    for name, parameter in trained(model).items():
        parameter.copy_(weights[name])
    load_buffers(model, found)
    return int(found.name.rpartition("-")[2])
