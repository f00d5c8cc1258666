"""Checkpoints as plain folders: safetensors and JSON, written beside and renamed, no pickle.

    output/checkpoint-<step>/weights.safetensors    trained weights and buffers
                             optimizer.safetensors  AdamW's moments, by weight
                             average.safetensors    where `ema_decay` is set
                             state.json             step, settings, sums since the last log line

Frozen weights are not stored: whoever resumes builds the model again from what it came from.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.errors import DataError
from aligncap.storage import atomic_folder
from aligncap.training.whole import laid_as

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
            state[number] = {k: laid_as(parameter, t) for k, t in own.items() if "/" not in k}
            number += 1
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
