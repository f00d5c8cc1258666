"""How large a model is, told from its configuration alone: no weight is read or made."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aligncap.captioner.adapters import AdapterSettings
from aligncap.captioner.backbones import family_of

_TENSORS_OF = {"silu": 4, "relu": 2}
"""Tensors that a feed-forward layer keeps by its activation: silu is that of gated layers; GPT-2's
GELU, made of simple operations, keeps six, and so might one that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySize:
    """Ids of a vocabulary, as `Vocabulary` lays them out."""

    base: int
    """Ids the backbone's own tokenizer has."""
    text: int
    """Those, and bos, eos or pad where they were added."""
    codebooks: int
    codebook_size: int

    @property
    def size(self) -> int:
        """All ids, <speech>, </speech> and the speech tokens with them."""
        return self.text + 2 + self.codebooks * self.codebook_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Parameters by what they are, and the widths that a step's memory depends on."""

    base: int
    """Parameters of the language model, rows of the new ids included."""
    matrices: int
    """Those of them in the layers' matrices, which 4-bit weights are of."""
    lora: int
    """Parameters of the LoRA matrices; 0 without an adapter."""
    new_rows: int
    """Parameters of the new ids' rows that train beside an adapter; 0 without one."""
    layers: int
    hidden: int
    query: int
    """Width of all queries of a layer together."""
    key_value: int
    """Width of its keys, and of its values."""
    heads: int
    feed_forward: int
    feed_forward_tensors: int
    """Tensors of that width that a layer keeps for the backward pass."""
    dropout: bool
    """Whether what layers give is dropped at random."""
    attention_dropout: bool
    lora_inputs: int
    """Widths of what a layer's adapted matrices read, together; 0 without an adapter."""
    rows: int
    """Rows of the embedding."""
    text_rows: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.base + self.lora + self.new_rows

    @property
    def trained(self) -> dict[str, int]:
        """What trains by group, as `model.trainable_summary` names them."""
        if not self.lora:
            return {"base weights": self.base}
        return {"LoRA": self.lora, "new token rows": self.new_rows}


def model_size(
    config: Any, vocabulary: VocabularySize, adapter: AdapterSettings | None = None
) -> ModelSize:
    """The size of the model that training makes of a backbone's config.

    The backbone is laid out on torch's meta device, which has shapes and no numbers. RecipeError
    where the kind of model has no known LoRA targets and `adapter` names none.
    """
    from transformers import AutoModelForCausalLM

    # Rows that the model had for no token are used before it grows, as add_speech_tokens does.
    rows = max(config.vocab_size, vocabulary.size)
    config = copy.deepcopy(config)
    config.vocab_size = rows
    with torch.device("meta"):
        causal_lm = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    shapes = _adapted_shapes(causal_lm, adapter)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelSize(
        base=sum(parameter.numel() for parameter in causal_lm.parameters()),
        matrices=_matrix_parameters(causal_lm),
        # Beside a matrix [a, b] stand one of [rank, a] and one of [b, rank].
        lora=adapter.rank * sum(a + b for a, b in shapes) if adapter else 0,
        new_rows=_new_row_parameters(causal_lm, vocabulary) if adapter else 0,
        layers=layers,
        hidden=config.hidden_size,
        query=heads * head_width,
        key_value=(getattr(config, "num_key_value_heads", None) or heads) * head_width,
        heads=heads,
        feed_forward=_feed_forward(config),
        feed_forward_tensors=_TENSORS_OF.get(_activation(config), 6),
        dropout=_any_of(config, "resid_pdrop", "dropout"),
        attention_dropout=_any_of(config, "attn_pdrop", "attention_dropout"),
        lora_inputs=sum(a for a, _ in shapes) // layers,
        rows=rows,
        text_rows=vocabulary.text,
    )


def _matrix_parameters(causal_lm: Any) -> int:
    """Of linear layers, GPT-2's transposed ones too; not of the projection onto the vocabulary."""
    head = causal_lm.get_output_embeddings()
    return sum(
        module.weight.numel()
        for module in causal_lm.modules()
        if module is not head and type(module).__name__ in ("Linear", "Conv1D")
    )


def _adapted_shapes(causal_lm: Any, adapter: AdapterSettings | None) -> Sequence[tuple[int, int]]:
    """[inputs, outputs] of every matrix that LoRA is put beside."""
    if adapter is None:
        return []
    targets = adapter.targets or family_of(causal_lm).lora_targets
    found = []
    for name, module in causal_lm.named_modules():
        if name.rpartition(".")[2] in targets:
            first, second = module.weight.shape
            transposed = type(module).__name__ == "Conv1D"
            found.append((first, second) if transposed else (second, first))
    return found


def _new_row_parameters(causal_lm: Any, vocabulary: VocabularySize) -> int:
    """As `adapters.add_adapter` trains them: a head of its own needs the new text rows only."""
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    trained: int = (vocabulary.size - vocabulary.base) * embedding.weight.shape[1]
    if head.weight is not embedding.weight:
        trained += (vocabulary.text - vocabulary.base) * head.weight.shape[1]
    return trained


def _feed_forward(config: Any) -> int:
    """Every family names the width of its feed-forward layer its own way."""
    names = ("intermediate_size", "ffn_dim", "n_inner")
    width = next((found for name in names if (found := getattr(config, name, None))), None)
    return int(width or 4 * config.hidden_size)


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation_function", ""))


def _any_of(config: Any, *names: str) -> bool:
    return any(getattr(config, name, 0.0) > 0.0 for name in names)
