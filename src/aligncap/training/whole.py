"""Weights that several processes share out: the whole of each, and a model made whole again.

FSDP keeps a weight as a DTensor, ZeRO-3 as a placeholder that knows its parts. Whoever wants the
whole of one asks here, in every process at once, since each must give its part.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, detached, however it is kept; every process must ask."""
    if isinstance(tensor, DTensor):
        entire: Tensor = tensor.full_tensor()
        return entire.detach()
    if hasattr(tensor, "ds_id"):
        from deepspeed import zero

        with zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.detach()


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The whole of each tensor on the CPU, one after another; nothing where this process does not
    `keep` them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        entire = whole(tensor)
        if keep:
            # Two names of one storage are refused by safetensors, so each gets its own.
            found[name] = entire.cpu().contiguous().clone()
    return found


def laid_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of a whole tensor, shared out and laid in memory as a parameter is.

    Files hold rows in order, and AdamW's fused step goes through both by address, which would
    pair wrong weights where they are channels-last.
    """
    if isinstance(parameter, DTensor):
        own = value.to(parameter.device)
        if own.shape != parameter.shape:
            return own
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(own, mesh, placements, src_data_rank=None)
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


class Layout:
    """How a model's modules were before their weights were shared out, to put them back."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [_Before(module) for module in model.modules()]

    def restore(self) -> None:
        """Give the model its whole weights and plain modules again; every process must ask."""
        named = self._model.named_parameters(remove_duplicate=False)
        made: dict[int, nn.Parameter] = {}
        for _, parameter in named:
            if id(parameter) not in made:
                # ZeRO-3 fills a parameter in place and empties it again, so this is a copy.
                entire = whole(parameter)
                made[id(parameter)] = nn.Parameter(entire, requires_grad=parameter.requires_grad)
        for before in self._modules:
            before.restore(made)


class _Before:
    """One module's class and attributes, its weights apart."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._class = module, type(module)
        self._attributes = {
            name: copy(value) if "hooks" in name else None for name, value in vars(module).items()
        }

    def restore(self, made: Mapping[int, nn.Parameter]) -> None:
        module, present = self._module, vars(self._module)
        parameters = {
            name: None if p is None else made[id(p)] for name, p in module._parameters.items()
        }
        module.__class__ = self._class
        for name in _added(present, self._attributes):
            del present[name]
        for name, value in self._attributes.items():
            if value is not None:
                present[name] = value
        present["_parameters"] = parameters


def _added(present: Mapping[str, Any], before: Iterable[str]) -> list[str]:
    return [name for name in present if name not in set(before)]
