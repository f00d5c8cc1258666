"""Where training runs."""

import torch
from accelerate import PartialState


def training_device() -> torch.device:
    """The device that `fit` trains on, so that what stands beside the model can be put there."""
    device: torch.device = PartialState().device
    return device
