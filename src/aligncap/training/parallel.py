"""How the processes of one run share its work: a table of ways, and the way of whole weights.

    none     every process holds the whole model; gradients are averaged (DDP)
    fsdp     weights, gradients and moments are shared out (torch's fully_shard)
    zero1    AdamW's moments are shared out (DeepSpeed)
    zero2    gradients and moments
    zero3    weights, gradients and moments

One process alone has nothing to share: every name is "none" then. A run may go on another way than
it began, since checkpoints are the same.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aligncap.training.checkpoints import load_moments, moments_of, trained
from aligncap.training.devices import has_company, training_device
from aligncap.training.optimizer import make_optimizer
from aligncap.training.settings import FitSettings
from aligncap.training.whole import whole

Losses = Callable[[Any], Mapping[str, Tensor]]


class Parallel(Protocol):
    """One way of sharing a run's work; every process does the same things in the same order."""

    def learn(self, losses: Losses, batch: Any, *, last: bool) -> Mapping[str, Tensor]:
        """The losses of a batch, and its gradient added to those of this step's other batches.

        `last` says that it is the step's last.
        """

    def follow(self, rate: float) -> float:
        """Take the step at this learning rate, the gradient clipped; returns its norm before."""

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """What a function returns that reads the model and learns nothing."""

    def moments(self) -> Mapping[str, Tensor]:
        """AdamW's state by "<what>/<weight>", each to be made `whole`."""

    def load_moments(self, checkpoint: Path) -> None:
        """Put a checkpoint's AdamW state back."""

    def held(self) -> int:
        """How many numbers of weights and moments this process keeps between steps."""

    def finish(self) -> None:
        """Leave the model whole and plain."""


WAYS = {
    "fsdp": ("aligncap.training.fsdp", "Fsdp"),
    "zero1": ("aligncap.training.zero", "Zero"),
    "zero2": ("aligncap.training.zero", "Zero"),
    "zero3": ("aligncap.training.zero", "Zero"),
}
"""Setting → module and class; imported on use. What is not here keeps whole weights."""


def open_parallel(model: nn.Module, settings: FitSettings, *, share: int) -> Parallel:
    """The way that the settings name; `share` is how many batches of a step each process takes.

    The model must be the same in every process. MissingModelError where DeepSpeed is asked for
    and not installed.
    """
    if not has_company() or settings.sharding not in WAYS:
        return Together(model, settings, share=share)
    module, name = WAYS[settings.sharding]
    way: Parallel = getattr(import_module(module), name)(model, settings, share=share)
    return way


class Trunk(nn.Module):
    """What a wrapper wraps: whatever is called through it finds the model's weights there.

    A wrapper acts when its module's forward is called, but losses call other methods of a model,
    several, or a part of it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *given: Any) -> Any:
        """What the function returns."""
        return function(*given)


class Together:
    """Whole weights in every process, torch's AdamW, and DDP where there are several."""

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        self._model, self._settings, self._share = model, settings, share
        self._trunk: nn.Module = self._wrapped(Trunk(model))
        self._optimizer = make_optimizer(model, settings)

    def _wrapped(self, trunk: Trunk) -> nn.Module:
        if not has_company():
            return trunk
        device = training_device()
        return DistributedDataParallel(
            trunk,
            device_ids=None if device.type == "cpu" else [device],
            forward_sync_buffers=False,
            # A batch may leave a weight out; what the others found of it still counts.
            find_unused_parameters=True,
            init_sync=False,
        )

    def learn(self, losses: Losses, batch: Any, *, last: bool) -> Mapping[str, Tensor]:
        """As `Parallel` says; processes talk at the step's last batch only."""
        alone = isinstance(self._trunk, DistributedDataParallel) and not last
        with self._trunk.no_sync() if alone else nullcontext():  # type: ignore[operator]
            values: Mapping[str, Tensor] = self._trunk(losses, batch)
            (values["loss"] / self._share).backward()  # type: ignore[no-untyped-call]
        return values

    def follow(self, rate: float) -> float:
        """As `Parallel` says."""
        limit = self._settings.clip_norm
        parameters = list(trained(self._model).values())
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(whole(norm))

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """As `Parallel` says; the weights are there anyway."""
        return function(*given)

    def moments(self) -> Mapping[str, Tensor]:
        """As `Parallel` says."""
        return moments_of(self._model, self._optimizer)

    def load_moments(self, checkpoint: Path) -> None:
        """As `Parallel` says."""
        load_moments(self._model, self._optimizer, checkpoint)

    def held(self) -> int:
        """As `Parallel` says: two moments of what is trained, and all weights."""
        weights = sum(p.numel() for p in self._model.parameters())
        return weights + 2 * sum(p.numel() for p in trained(self._model).values())

    def finish(self) -> None:
        """Nothing was taken apart."""
