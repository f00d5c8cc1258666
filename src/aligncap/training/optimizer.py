"""AdamW with weight decay where it belongs."""

import torch
from torch import nn

from aligncap.errors import RecipeError
from aligncap.training.checkpoints import trained
from aligncap.training.settings import FitSettings


def make_optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW over what is trained; norms, biases and embeddings do not decay unless asked."""
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in trained(model).values():
        matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if matrix or settings.decay_all else spared).append(parameter)
    if not decayed and not spared:
        raise RecipeError("the model has nothing to train: every weight is frozen")
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
