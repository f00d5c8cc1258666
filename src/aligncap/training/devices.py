"""Where training runs, with how many processes, and which of them writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from aligncap.errors import LostProcessError, RecipeError
from aligncap.training.checkpoints import latest_checkpoint

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


def has_company() -> bool:
    """Whether several processes train together."""
    return bool(processes().num_processes > 1)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Within it the first process works alone; the others follow, and find what it has done."""
    with processes().main_process_first():
        yield


def share_of(batches: int, count: int) -> int:
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


def told_by_each(number: int) -> list[int]:
    """The number that each process knows, first process first."""
    if not has_company():
        return [number]
    found: list[int] = gather_object([number])
    return found


@contextmanager
def telling_of_lost_processes(output: Path) -> Iterator[None]:
    """Within it a broken connection becomes LostProcessError, which says how to go on."""
    try:
        yield
    except RuntimeError as error:
        if not has_company() or not _of_connection(error):
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
