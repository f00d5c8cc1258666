"""Where training runs, and which of its processes writes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState


def training_device() -> torch.device:
    """The device that `fit` trains on, so that what stands beside the model can be put there."""
    device: torch.device = PartialState().device
    return device


def is_first_process() -> bool:
    """Whether this process is the one that writes files; true where there is only one."""
    first: bool = PartialState().is_main_process
    return first


@contextmanager
def first_process_first() -> Iterator[None]:
    """Within it the first process works alone; the others follow, and find what it has done."""
    with PartialState().main_process_first():
        yield
