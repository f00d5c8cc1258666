"""Weights, gradients and moments shared out by torch's own `fully_shard` (FSDP2)."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from aligncap.training.checkpoints import trained
from aligncap.training.devices import processes
from aligncap.training.parallel import Losses, Together, Trunk
from aligncap.training.settings import FitSettings
from aligncap.training.whole import Layout


class Fsdp(Together):
    """Each process keeps its part of every weight; a layer is gathered while it is used.

    Layers are what the language model says must not be split; everything beside them is gathered
    for the whole of a step. Gradients are shared out after each batch, so that no process ever
    keeps them whole.
    """

    def __init__(self, model: nn.Module, settings: FitSettings, *, share: int) -> None:
        self._layout = Layout(model)
        super().__init__(model, settings, share=share)

    def _wrapped(self, trunk: Trunk) -> nn.Module:
        state = processes()
        mesh = init_device_mesh(state.device.type, (state.num_processes,))
        for layer in layers_of(trunk.model):
            fully_shard(layer, mesh=mesh)
        fully_shard(trunk, mesh=mesh)
        return trunk

    def learn(self, losses: Losses, batch: Any, *, last: bool) -> Mapping[str, Tensor]:
        """As `Parallel` says."""
        del last
        values: Mapping[str, Tensor] = self._trunk(losses, batch)
        (values["loss"] / self._share).backward()  # type: ignore[no-untyped-call]
        return values

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """As `Parallel` says; layers are gathered as they are used, so processes must do alike."""
        found = self._trunk(function, *given)
        self._trunk.reshard()  # type: ignore[operator]
        return found

    def held(self) -> int:
        """As `Parallel` says."""
        weights = sum(_part(p) for p in self._model.parameters())
        return weights + 2 * sum(_part(p) for p in trained(self._model).values())

    def finish(self) -> None:
        """As `Parallel` says."""
        self._layout.restore()


def _part(parameter: Tensor) -> int:
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.numel()


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of a language model of transformers, by the names of classes it must not be split
    within; none of another model."""
    kinds: set[str] = set()
    for module in model.modules():
        kinds.update(getattr(module, "_no_split_modules", None) or ())
    for module in model.modules():
        if type(module).__name__ in kinds:
            yield module
