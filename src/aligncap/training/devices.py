"""Where training runs, with how many processes, and which of them writes.

How the processes of one run share its work: a table of ways, and the way of whole weights.

    none     every process holds the whole model; gradients are averaged (DDP)
    fsdp     weights, gradients and moments are shared out (torch's fully_shard)
    zero1    AdamW's moments are shared out (DeepSpeed)
    zero2    gradients and moments
    zero3    weights, gradients and moments

One process alone has nothing to share: every name is "none" then. A run may go on another way than
it began, since checkpoints are the same.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aligncap.errors import LostProcessError, RecipeError
from aligncap.training.checkpoints import (
    full_tensor,
    latest_checkpoint,
    load_moments,
    make_optimizer,
    moments_of,
    trained,
)
from aligncap.training.settings import FitSettings

PATIENCE = timedelta(hours=2)
"""How long a process waits for another: the first may be filling a teacher's cache meanwhile."""

LAUNCHER_CHOICES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
"""Where `accelerate launch` leaves word of a choice that a recipe makes here."""


def processes() -> PartialState:
    """The processes of this run, joined when first asked for.

    RecipeError where the launcher was told to shard: the recipe says how (`training.sharding`).
    """
    for name in LAUNCHER_CHOICES:
        if os.environ.get(name, "").lower() == "true":
            raise RecipeError(
                f"{name} is set, but the recipe says how a run is sharded: launch with torchrun "
                "and set training.sharding"
            )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # Without being told, accelerate leaves processes on a machine without a GPU alone.
    alone_on_cpu = launched > 1 and not torch.accelerator.is_available()
    state = PartialState(cpu=alone_on_cpu, timeout=PATIENCE)
    if state.num_processes != launched:
        raise RecipeError(
            f"{launched} processes were launched, {state.num_processes} joined; launch with "
            "torchrun --nproc_per_node N -m aligncap train …"
        )
    return state


def training_device() -> torch.device:
    """The device that `fit` trains on, so that what stands beside the model can be put there."""
    device: torch.device = processes().device
    return device


def is_first_process() -> bool:
    """Whether this process is the one that writes files; true where there is only one."""
    first: bool = processes().is_main_process
    return first


def is_distributed() -> bool:
    """Whether several processes train together."""
    return bool(processes().num_processes > 1)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Within it the first process works alone; the others follow, and find what it has done."""
    with processes().main_process_first():
        yield


def local_share(batches: int, count: int) -> int:
    """How many of a step's batches each of `count` processes takes; RecipeError where that is no
    whole number."""
    share, left = divmod(batches, count)
    if left:
        nearest = count * (share + 1)
        raise RecipeError(
            f"a step of {batches} batches (training.accumulation) cannot be shared evenly by "
            f"{count} processes; set training.accumulation to {nearest}, with batch.rows as much "
            "smaller as it is greater, or launch another number of processes"
        )
    return share


def all_gather_objects(number: int) -> list[int]:
    """The number that each process knows, first process first."""
    if not is_distributed():
        return [number]
    found: list[int] = gather_object([number])
    return found


@contextmanager
def reporting_lost_processes(output: Path) -> Iterator[None]:
    """Within it a broken connection becomes LostProcessError, which says how to go on."""
    try:
        yield
    except RuntimeError as error:
        if not is_distributed() or not _of_connection(error):
            raise
        kept = latest_checkpoint(output)
        cure = (
            f"{kept} keeps all up to its step: run the same command with --resume to go on"
            if kept
            else "there is no checkpoint yet: start again, with a smaller save_every"
        )
        rank = processes().process_index
        raise LostProcessError(
            f"{output}: process {rank} lost another process of this run; {cure}"
        ) from error


def _of_connection(error: RuntimeError) -> bool:
    """Gloo's errors are plain RuntimeErrors that say so; NCCL's have a type of their own."""
    text = str(error).lower()
    marks = ("gloo", "connection closed by peer", "connection reset", "nccl", "broken pipe")
    return isinstance(error, torch.distributed.DistError) or any(mark in text for mark in marks)


Losses = Callable[[Any], Mapping[str, Tensor]]


class ParallelStrategy(Protocol):
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
    "fsdp": ("aligncap.training.sharding", "Fsdp"),
    "zero1": ("aligncap.training.sharding", "Zero"),
    "zero2": ("aligncap.training.sharding", "Zero"),
    "zero3": ("aligncap.training.sharding", "Zero"),
}
"""Setting → module and class; imported on use. What is not here keeps whole weights."""


def open_strategy(model: nn.Module, settings: FitSettings, *, share: int) -> ParallelStrategy:
    """The way that the settings name; `share` is how many batches of a step each process takes.

    The model must be the same in every process. MissingModelError where DeepSpeed is asked for
    and not installed.
    """
    if not is_distributed() or settings.sharding not in WAYS:
        return DataParallel(model, settings, share=share)
    module, name = WAYS[settings.sharding]
    way: ParallelStrategy = getattr(import_module(module), name)(model, settings, share=share)
    return way


class WrappedModel(nn.Module):
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


class DataParallel:
    """Whole weights in every process, torch's AdamW, and DDP where there are several."""

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        self._model, self._settings, self._share = model, settings, share
        self._trunk: nn.Module = self._wrapped(WrappedModel(model))
        self._optimizer = make_optimizer(model, settings)

    def _wrapped(self, trunk: WrappedModel) -> nn.Module:
        if not is_distributed():
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
        return float(full_tensor(norm))

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
