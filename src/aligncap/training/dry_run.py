"""The plan that a dry run prints: the inputs of a run, its parameters, and the bytes they take.

    {"loads": [{"what", "name", "present", "cure"}],
     "parameters": {"total", "trained", "groups": {group: count}},
     "memory_bytes": {"weights", "gradients", "optimizer", "average", "frozen", "total"},
     "disk_bytes": {"checkpoints", …, "total"},
     "assumed": {…},                   values that the counts assume
     "notes": […]}

The model is built on torch's meta device, which has shapes and no values, and counted.
`parameters`, `memory_bytes` and `disk_bytes` are null where it cannot be built.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from aligncap.training.checkpoints import KEPT, kept_weights

MANIFEST_HINT = "make it with aligncap corpus (docs/corpora.md)"

COUNTED = (
    "bytes are those of one process that shares nothing out; not counted are activations and "
    "logits, which grow with the batch, and caches on disk"
)

NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Of one number in 4 bits: its half byte, a byte of scale for each 64 numbers, and for each 256
scales a float32 (QLoRA's double quantisation)."""


@dataclass(frozen=True, slots=True)
class Needed:
    """An input of a run."""

    what: str
    name: str
    hint: str = ""
    """How to get it; empty where it is present."""


def needed_path(what: str, path: Path, *, hint: str) -> Needed:
    """A file or folder that a run reads."""
    return Needed(what, str(path), "" if path.exists() else hint)


def plan_table(
    needed: Iterable[Needed],
    *,
    parameters: Mapping[str, object] | None = None,
    memory: Mapping[str, int] | None = None,
    disk: Mapping[str, int | None] | None = None,
    assumed: Mapping[str, object] | None = None,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """A plan as plain JSON values, with the totals of memory and disk."""
    return {
        "loads": [
            {"what": n.what, "name": n.name, "present": not n.hint, "cure": n.hint or None}
            for n in needed
        ],
        "parameters": parameters,
        "memory_bytes": memory and {**memory, "total": sum(memory.values())},
        "disk_bytes": disk and {**disk, "total": sum(value or 0 for value in disk.values())},
        "assumed": dict(assumed or {}),
        "notes": [*notes, *([COUNTED] if memory else [])],
    }


def count_parameters(groups: Mapping[str, int], model: nn.Module) -> dict[str, object]:
    """All parameters of a model, and those that train by `groups`."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"total": total, "trained": sum(groups.values()), "groups": dict(groups)}


def weight_bytes(model: nn.Module, *, quantized: bool = False) -> int:
    """Bytes of parameters and buffers; with `quantized`, frozen matrices take 4 bits a number.

    Matrices are those of linear layers, GPT-2's transposed ones included, without the projection
    to the vocabulary.
    """
    full = _bytes(model.parameters()) + _bytes(model.buffers())
    if not quantized:
        return full
    matrices: set[Tensor] = {  # a set: peft's layers hand on the weight of the layer they wrap
        module.weight
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D")
        and "lm_head" not in name
        and not module.weight.requires_grad
    }
    packed = sum(round(NF4_BYTES * matrix.numel()) for matrix in matrices)
    return full - _bytes(matrices) + packed


def training_memory(
    model: nn.Module, *, average: bool, frozen: int = 0, quantized: bool = False
) -> dict[str, int]:
    """Bytes in use throughout training, with AdamW's two moments; `frozen` are the weights of
    further models, such as a teacher."""
    trained = trained_bytes(model)
    return {
        "weights": weight_bytes(model, quantized=quantized),
        "gradients": trained,
        "optimizer": 2 * trained,
        "average": trained if average else 0,
        "frozen": frozen,
    }


def checkpoints_bytes(model: nn.Module, *, average: bool) -> int:
    """Bytes of the checkpoints that are kept, and of the one written before the oldest is removed:
    trained weights and buffers, two moments, and the average."""
    kept = _bytes(kept_weights(model).values()) + (3 if average else 2) * trained_bytes(model)
    return (KEPT + 1) * kept


def best_bytes(model: nn.Module) -> int:
    """Bytes of the best weights: those of each kept checkpoint and of now, and new ones that are
    written before older ones are removed."""
    return (KEPT + 2) * _bytes(kept_weights(model).values())


def trained_bytes(model: nn.Module) -> int:
    """Bytes of the parameters that train."""
    return _bytes(parameter for parameter in model.parameters() if parameter.requires_grad)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
