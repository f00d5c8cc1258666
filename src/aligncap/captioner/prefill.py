"""Prompts run first: the columns of a batch that are prompt in every row, and what remains to run.

They need no mask, so attention takes half the work, and of their last layer only keys and values
are needed, the rest of it is not run.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from aligncap.captioner.prompts import SharedPromptBatch, drop_columns, prompt_columns

TorchBatch = SharedPromptBatch[Tensor]

_RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])

CACHE = "cache" if _RELEASE >= (5, 24) else "past_key_values"
"""What models of transformers call the argument that holds earlier keys and values."""


@dataclass(frozen=True, slots=True)
class ResponseInputs:
    """The rest of a batch to run, and the keys and values of the prompts that have run."""

    batch: TorchBatch
    cache: Any | None

    def inputs(self, causal_lm: Any) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        return {
            **_fed(self.batch),
            "position_ids": self.batch.position_ids,
            "attention_mask": attention_mask_of(self.batch.attention, causal_lm),
            CACHE: self.cache,
            "use_cache": self.cache is not None,
        }

    def projected(self) -> tuple[Tensor, Tensor]:
        """The positions [B, T] to project, and of each target [N] its index among them.

        Each is projected once: responses share the position that predicts their first tokens.
        """
        index = self.batch.predict_index
        keep = torch.zeros(self.batch.input_ids.numel(), dtype=torch.bool, device=index.device)
        keep[index] = True
        return keep.view_as(self.batch.input_ids), (keep.cumsum(0) - 1)[index]

    def predicting(self, states: Tensor) -> Tensor:
        """The states [N, width] of [B, T, width] that predict a target."""
        return states.flatten(0, 1)[self.batch.predict_index]


def prefill_prompts(causal_lm: Any, batch: TorchBatch) -> ResponseInputs:
    """Run what is prompt in every row, with gradient where there is one; `causal_lm` is bare.

    Nothing is run yet of prompts of one token, nor by a model that could not attend to it again
    (with checkpointed layers no keys and values are kept, a sliding window may be shorter) or that
    must not be left early (its weights are sharded over processes).
    """
    columns = prompt_columns(batch)
    window = getattr(causal_lm.config, "sliding_window", None) or math.inf
    recomputes = causal_lm.training and any(
        getattr(module, "gradient_checkpointing", False) for module in causal_lm.modules()
    )
    # A tensor of torch's FSDP knows its mesh, a parameter of DeepSpeed's ZeRO-3 its number.
    sharded = any(
        hasattr(one, "device_mesh") or hasattr(one, "ds_id") for one in causal_lm.parameters()
    )
    if columns == 0 or recomputes or batch.input_ids.shape[1] > window or sharded:
        return ResponseInputs(batch, None)
    cache = _PromptCache(layers=causal_lm.config.num_hidden_layers)
    with suppress(_PromptCached):
        causal_lm.base_model(
            **{name: given[:, :columns] for name, given in _fed(batch).items()},
            position_ids=batch.position_ids[:, :columns],
            use_cache=True,
            **{CACHE: cache},
        )
    return ResponseInputs(drop_columns(batch, columns), cache)


def _fed(batch: TorchBatch) -> Mapping[str, Tensor]:
    """A batch's ids, or them embedded where there are vectors among them, as a model takes them."""
    if batch.embeds is None:
        return {"input_ids": batch.input_ids}
    return {"inputs_embeds": batch.embeds}


class _PromptCached(Exception):  # noqa: N818 (no error: it leaves the model early)
    """The last layer's keys and values are cached."""


class _PromptCache(DynamicCache):
    """Keys and values of all layers; its first filling ends with the last layer's."""

    def __init__(self, *, layers: int) -> None:
        super().__init__()
        self._layers = layers
        self._filling = True

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer; `_PromptCached` where that was the last one's prompt."""
        keys, values = super().update(key_states, value_states, layer_idx, *rest, **named)
        if self._filling and layer_idx == self._layers - 1:
            self._filling = False
            raise _PromptCached
        return keys, values


def attention_mask_of(mask: Tensor, causal_lm: Any) -> Tensor:
    """A boolean mask [B, 1, T, keys] in the form that the model's attention takes."""
    if causal_lm.config._attn_implementation != "eager":
        return mask
    # Eager attention adds its mask; the least number, not -inf, keeps gradients finite.
    dtype = causal_lm.dtype
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
