"""Checkpoints of a run, and what is in them: weights, AdamW's moments, a running average (§4.2).

    output/checkpoint-<step>/weights.safetensors    trained weights and buffers
                             optimizer.safetensors  AdamW's moments, by weight
                             average.safetensors    where `ema_decay` is set
                             state.json             step, settings, sums since the last log line

Folders appear complete or not at all, and nothing is pickled. Tensors are full however a run
shards them: FSDP keeps a weight as a DTensor, ZeRO-3 as an empty parameter that knows its parts,
and every process must take part where one is gathered. Frozen weights are not stored: whoever
resumes builds the model again from what it came from.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from aligncap.errors import DataError, RecipeError
from aligncap.foreign import check_tensors, read_table, reading
from aligncap.storage import atomic_folder
from aligncap.training.settings import FitSettings

KEPT = 2
"""Checkpoints that stay; older ones are removed."""

WEIGHTS_FILE = "weights.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "average.safetensors"
STATE_FILE = "state.json"


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor, detached, of one that may be sharded; every process must call."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full.detach()
    if hasattr(tensor, "ds_id"):
        from deepspeed import zero

        with zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.detach()


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Each full tensor on the CPU; empty where this process does not `keep` them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor)
        if keep:
            # safetensors refuses two names of one storage, so each gets its own.
            found[name] = full.cpu().contiguous().clone()
    return found


def like_layout(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of a full tensor, sharded and laid out in memory as a parameter is.

    AdamW's fused step pairs weights and moments by address, and stored tensors are contiguous
    where a parameter may be channels-last.
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


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are trained, by name; a tied weight once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    # Not by state_dict: FSDP shards the weights anew then, also those that a forward pass is using.
    return {
        f"{prefix}.{name}" if prefix else name: tensor
        for prefix, module in model.named_modules(remove_duplicate=False)
        for name, tensor in module.named_buffers(recurse=False, remove_duplicate=False)
        if name not in module._non_persistent_buffers_set
    }


def checkpoints(output: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in output.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint is of."""
    return int(checkpoint.name.rpartition("-")[2])


def latest_checkpoint(output: Path) -> Path | None:
    """The last complete checkpoint of a run, or None."""
    return next(reversed(checkpoints(output)), None)


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model, by name: trained weights and buffers."""
    return {**trained(model), **_buffers(model)}


def save_checkpoint(
    output: Path,
    step: int,
    *,
    files: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, object],
) -> Path:
    """Write `checkpoint-<step>` and remove all but the last two; one process calls.

    `files` holds tensors on the CPU by file name, `state` what state.json says besides the step.
    """
    target = output / f"checkpoint-{step}"
    if target.exists():
        return target
    with atomic_folder(target) as partial:
        for name, tensors in files.items():
            save_file(dict(tensors), partial / name)
        counts = {name: len(tensors) for name, tensors in files.items()}
        text = json.dumps({"step": step, "tensors": counts, **state}, indent=1)
        (partial / STATE_FILE).write_text(text, encoding="utf-8")
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


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The content of state.json: the step and the `state` of `save_checkpoint`."""
    path, hint = checkpoint / STATE_FILE, _hint(checkpoint)
    state = read_table(path, hint=hint)
    with reading(path, hint=hint):
        if state["step"] != step_of(checkpoint):
            raise ValueError(f"it is of step {state['step']}")
        return {
            **state,
            "sums": {name: float(value) for name, value in state["sums"].items()},
            "settings": dict(state["settings"]),
            "inputs": dict(state.get("inputs", {})),
            "average_updates": int(state["average_updates"]),
        }


def _hint(checkpoint: Path) -> str:
    """What to do about a damaged checkpoint."""
    others = [one.name for one in checkpoints(checkpoint.parent) if one != checkpoint]
    on = f"and go on from {others[-1]} with --resume" if others else "and begin anew"
    return f"remove the folder {checkpoint}, {on}"


def load_tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """A file of tensors of a checkpoint; DataError where it is damaged or holds a number that is
    not finite."""
    path, hint = checkpoint / name, _hint(checkpoint)
    check_tensors(path, hint=hint)
    with reading(path, hint=hint):
        stored: dict[str, Tensor] = load_file(path)
        for key, tensor in stored.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise ValueError(f"{key} holds a number that is not finite")
    kept = load_state(checkpoint).get("tensors", {})
    if isinstance(kept, dict) and kept.get(name, len(stored)) != len(stored):
        raise DataError(f"{path}: holds {len(stored)} tensors of {kept[name]}; {hint}")
    return stored


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's trained weights and buffers into `model`.

    Raises DataError naming the first weight that is missing or of another shape.
    """
    stored = load_tensors(checkpoint, WEIGHTS_FILE)
    for name, tensor in kept_weights(model).items():
        _check_fits(stored, name, tensor, checkpoint)
        tensor.copy_(stored[name])


def load_average(model: nn.Module, checkpoint: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; DataError where they do not fit `model`."""
    stored = load_tensors(checkpoint, AVERAGE_FILE)
    for name, parameter in trained(model).items():
        _check_fits(stored, name, parameter, checkpoint)
    return stored


def _check_fits(stored: Mapping[str, Tensor], name: str, tensor: Tensor, checkpoint: Path) -> None:
    if name not in stored or stored[name].shape != tensor.shape:
        raise DataError(f"{checkpoint}: does not fit this model at {name}; check the recipe")


def load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Put a checkpoint's optimiser state back, weight by weight."""
    stored = load_tensors(checkpoint, OPTIMIZER_FILE)
    weights = trained(model)
    for key, tensor in stored.items():
        what, _, name = key.partition("/")
        if name not in weights or (what != "step" and tensor.shape != weights[name].shape):
            raise DataError(f"{checkpoint}: moments of {name} do not fit; check the recipe")
    names = {parameter: name for name, parameter in trained(model).items()}
    number, state = 0, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            ending = "/" + names[parameter]
            own = {k.removesuffix(ending): t for k, t in stored.items() if k.endswith(ending)}
            state[number] = {k: like_layout(parameter, t) for k, t in own.items() if "/" not in k}
            number += 1
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


class WeightAverage:
    """An exponential moving average of the trained weights, a ← d·a + (1-d)·w after each step.

    The decay d is at most (1+n)/(10+n) after n updates, so that early weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Start again from the model's present weights."""
        self.weights = {name: p.detach().clone() for name, p in trained(self._model).items()}
        self.updates = 0

    @torch.no_grad()
    def match_layout(self) -> None:
        """Shard the average, and put it where the model's weights are; every process must call."""
        full = {name: full_tensor(weight) for name, weight in self.weights.items()}
        self.weights = {n: like_layout(p, full[n]) for n, p in trained(self._model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Average the model's present weights in."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        present = [p.detach() for p in trained(self._model).values()]
        torch._foreach_lerp_(list(self.weights.values()), present, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the averaged weights for good."""
        for name, weight in trained(self._model).items():
            weight.copy_(self.weights[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in trained(self._model).items():
            own = weight.detach().clone()
            weight.copy_(self.weights[name])
            self.weights[name].copy_(own)


def make_optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW over the trained weights; matrices decay, and with `decay_all` norms, biases and
    embeddings too. RecipeError where nothing is trained, or a share is of nothing that is."""
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained(model).items():
        decays = settings.decay_all or (parameter.ndim >= 2 and id(parameter) not in embeddings)
        fitting = [key for key in settings.rate_shares if name.startswith(key)]
        share = settings.rate_shares[max(fitting, key=len)] if fitting else 1.0
        groups.setdefault((decays, share), []).append(parameter)
    for key in settings.rate_shares:
        if groups and not any(name.startswith(key) for name in trained(model)):
            raise RecipeError(f"rate_shares: no weight that trains has a name that begins {key!r}")
    if not groups:
        raise RecipeError("the model has nothing to train: every weight is frozen")
    return torch.optim.AdamW(
        [
            {
                "params": groups[decays, share],
                "weight_decay": settings.weight_decay if decays else 0.0,
                "rate_share": share,
            }
            for decays, share in sorted(groups, reverse=True)
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )
