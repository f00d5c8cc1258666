"""Weights that several processes share out: the whole of each, and a model made whole again.

FSDP keeps a weight as a DTensor, ZeRO-3 as a placeholder that knows its parts. Whoever wants the
whole of one asks here, in every process at once, since each must give its part.

Checkpoints as plain folders: safetensors and JSON, written beside and renamed, no pickle.

    output/checkpoint-<step>/weights.safetensors    trained weights and buffers
                             optimizer.safetensors  AdamW's moments, by weight
                             average.safetensors    where `ema_decay` is set
                             state.json             step, settings, sums since the last log line

Frozen weights are not stored: whoever resumes builds the model again from what it came from.

An exponential moving average of the weights that are trained.

AdamW with weight decay where it belongs.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from aligncap.errors import DataError, RecipeError
from aligncap.storage import atomic_folder
from aligncap.training.settings import FitSettings


def full_tensor(tensor: Tensor) -> Tensor:
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
        entire = full_tensor(tensor)
        if keep:
            # Two names of one storage are refused by safetensors, so each gets its own.
            found[name] = entire.cpu().contiguous().clone()
    return found


def like_layout(parameter: Tensor, value: Tensor) -> Tensor:
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
                entire = full_tensor(parameter)
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


KEPT = 2
"""Checkpoints that stay; older ones are removed."""

WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE = (
    "weights.safetensors",
    "optimizer.safetensors",
    "state.json",
)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are trained, by name; a tied weight once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {n: t for n, t in model.state_dict().items() if n not in parameters}


def checkpoints(output: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in output.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def latest_checkpoint(output: Path) -> Path | None:
    """The last complete checkpoint of a run, or None."""
    return next(reversed(checkpoints(output)), None)


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model, by name: what is trained, and buffers."""
    return {**trained(model), **_buffers(model)}


def save_checkpoint(
    output: Path,
    step: int,
    *,
    files: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
) -> Path:
    """Write `checkpoint-<step>` whole or not at all, and remove all but the last two.

    `files` holds tensors on the CPU, each of a storage of its own, by file name; `state` goes into
    state.json. One process writes.
    """
    target = output / f"checkpoint-{step}"
    if target.exists():
        return target
    described = {"step": step, **state}
    with atomic_folder(target) as partial:
        for name, tensors in files.items():
            save_file(dict(tensors), partial / name)
        (partial / STATE_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
    for old in checkpoints(output)[:-KEPT]:
        shutil.rmtree(old)
    return target


def moments_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, by "<what>/<weight>"."""
    return {
        f"{key}/{name}": value
        for name, parameter in trained(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_state(checkpoint: Path) -> dict[str, object]:
    """What state.json says: step, settings and whatever `save_checkpoint` was given."""
    try:
        state: dict[str, object] = json.loads((checkpoint / STATE_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{checkpoint}: cannot be read ({error}); remove this folder") from error
    return state


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's trained weights and buffers into `model`.

    Raises DataError naming the first weight that is missing or of another shape.
    """
    stored = load_file(checkpoint / WEIGHTS_FILE)
    for name, parameter in trained(model).items():
        if name not in stored or stored[name].shape != parameter.shape:
            raise DataError(f"{checkpoint}: does not fit this model at {name}; check the recipe")
        parameter.copy_(stored[name])
    load_buffers(model, checkpoint)


@torch.no_grad()
def load_buffers(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's buffers (running statistics, codebooks) into `model`."""
    stored = load_file(checkpoint / WEIGHTS_FILE)
    for name, tensor in _buffers(model).items():
        tensor.copy_(stored[name])


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Put a checkpoint's optimiser state back, weight by weight."""
    stored = load_file(checkpoint / OPTIMIZER_FILE)
    names = {parameter: name for name, parameter in trained(model).items()}
    number, state = 0, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            ending = "/" + names[parameter]
            own = {k.removesuffix(ending): t for k, t in stored.items() if k.endswith(ending)}
            state[number] = {k: like_layout(parameter, t) for k, t in own.items() if "/" not in k}
            number += 1
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


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
        entire = {name: full_tensor(weight) for name, weight in self.weights.items()}
        self.weights = {n: like_layout(p, entire[n]) for n, p in trained(self._model).items()}

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
