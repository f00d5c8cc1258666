"""How a causal LM reads a shared-prompt batch: first the prompts, then what is said to them.

The columns that are prompt in every row run by themselves. They need no mask, so attention takes
half the work, and of their last layer only keys and values are needed: the rest of it is never run.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from aligncap.captioner.batches import SharedPromptBatch, behind, prompt_columns

TorchBatch = SharedPromptBatch[Tensor]

_RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])

CACHE = "cache" if _RELEASE >= (5, 24) else "past_key_values"
"""What models of transformers call the argument that holds earlier keys and values."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to run of a batch, and the keys and values of what has run."""

    batch: TorchBatch
    cache: Any | None

    def inputs(self, causal_lm: Any) -> dict[str, Any]:
        """What the model takes."""
        return {
            "input_ids": self.batch.input_ids,
            "position_ids": self.batch.position_ids,
            "attention_mask": as_model_takes(self.batch.attention, causal_lm),
            CACHE: self.cache,
            "use_cache": self.cache is not None,
        }

    def projected(self) -> tuple[Tensor, Tensor]:
        """The positions [B, T] to project, and of each target [N] its place among them.

        Positions are projected once each: responses share the one that predicts their first.
        """
        index = self.batch.predict_index
        keep = torch.zeros(self.batch.input_ids.numel(), dtype=torch.bool, device=index.device)
        keep[index] = True
        return keep.view_as(self.batch.input_ids), (keep.cumsum(0) - 1)[index]

    def predicting(self, states: Tensor) -> Tensor:
        """Of states [B, T, width] those that predict a target, [N, width]."""
        return states.flatten(0, 1)[self.batch.predict_index]


def read_prompts(causal_lm: Any, batch: TorchBatch) -> Rest:
    """Run what is prompt in every row, with gradient where there is one; `causal_lm` is bare.

    Nothing is run yet of prompts of one token, nor by a model that could not see it again (one
    that checkpoints its layers keeps no keys and values, one with a sliding window looks back no
    further) or must not be left early (one whose weights several processes share out).
    """
    columns = prompt_columns(batch)
    length = batch.input_ids.shape[1]
    if columns == 0 or _forgets(causal_lm, length=length) or _is_shared_out(causal_lm):
        return Rest(batch, None)
    cache = _PromptCache(layers=causal_lm.config.num_hidden_layers)
    with suppress(_AllKept):
        causal_lm.base_model(
            input_ids=batch.input_ids[:, :columns],
            position_ids=batch.position_ids[:, :columns],
            use_cache=True,
            **{CACHE: cache},
        )
    return Rest(behind(batch, columns), cache)


class _AllKept(Exception):  # noqa: N818 (no error: it leaves the model early)
    """The last layer's keys and values are there."""


class _PromptCache(DynamicCache):
    """Keys and values of all layers; its first filling ends with the last layer's."""

    def __init__(self, *, layers: int) -> None:
        super().__init__()
        self._layers = layers
        self._filling = True

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer; `_AllKept` where that was the last one's prompt."""
        keys, values = super().update(key_states, value_states, layer_idx, *rest, **named)
        if self._filling and layer_idx == self._layers - 1:
            self._filling = False
            raise _AllKept
        return keys, values


def _forgets(causal_lm: Any, *, length: int) -> bool:
    window = getattr(causal_lm.config, "sliding_window", None) or math.inf
    recomputes = causal_lm.training and any(
        getattr(module, "gradient_checkpointing", False) for module in causal_lm.modules()
    )
    return recomputes or length > window


def _is_shared_out(causal_lm: Any) -> bool:
    # A tensor of torch's FSDP knows its mesh, a parameter of DeepSpeed's ZeRO-3 its number.
    return any(
        hasattr(one, "device_mesh") or hasattr(one, "ds_id") for one in causal_lm.parameters()
    )


def as_model_takes(mask: Tensor, causal_lm: Any) -> Tensor:
    """A mask [B, 1, T, seen] of who sees whom as the model's attention has it."""
    if causal_lm.config._attn_implementation != "eager":
        return mask
    # Eager attention adds its mask; the least number, not -inf, keeps gradients finite.
    dtype = causal_lm.dtype
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
