"""Where a torch tokenizer runs, and that it gives the same codes there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from aligncap.errors import RecipeError


def open_device(name: str) -> torch.device:
    """The device of that name, "cpu" or "cuda"; RecipeError if this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"device is {name!r}, which torch does not have on this machine; use 'cpu'"
        ) from error
    return device


@contextmanager
def exact_inference() -> Iterator[None]:
    """No gradients and no TF32, whose ten-bit mantissa would move codes between CPU and GPU."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
