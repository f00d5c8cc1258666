"""What differs between language models: one small table, and how a backbone is opened.

Any causal LM of transformers that takes `position_ids` and a 4-D attention mask is a backbone.
OPT counts positions from a 2-D mask unless it is given `position_ids`, which we always give;
its two-row offset is its own affair. Attention is sdpa or eager: flash attention has no 4-D mask.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import RecipeError
from aligncap.training.pretrained import load_causal_lm, load_tokenizer

MASKED_ATTENTION = ("sdpa", "eager")
"""Attention implementations that accept a mask of shape [B, 1, T, T]."""


@dataclass(frozen=True, slots=True)
class Family:
    """What is particular to one kind of language model."""

    lora_targets: tuple[str, ...]
    """Names of the linear layers that LoRA is put beside."""
    fan_in_fan_out: bool = False
    """GPT-2 keeps its weights transposed (Conv1D)."""
    learned_positions: bool = False
    """Positions are rows of a table: longer sequences cannot be read at all."""


QUERY_VALUE = ("q_proj", "v_proj")

FAMILIES = {
    "gpt2": Family(("c_attn",), fan_in_fan_out=True, learned_positions=True),
    "llama": Family(QUERY_VALUE),
    "mistral": Family(QUERY_VALUE),
    "opt": Family(QUERY_VALUE, learned_positions=True),
    "qwen2": Family(QUERY_VALUE),
    "qwen3": Family(QUERY_VALUE),
}


def family_of(causal_lm: Any) -> Family:
    """The table's entry for a model; RecipeError names the kinds that are known."""
    kind = causal_lm.config.model_type
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise RecipeError(f"no LoRA targets known for {kind!r}; name them, or use one of: {known}")
    return FAMILIES[kind]


def check_backbone(causal_lm: Any) -> None:
    """Make sure that a model can read shared-prompt batches.

    Switches flash attention to sdpa; RecipeError where positions cannot be given.
    """
    takes = inspect.signature(causal_lm.base_model.forward).parameters
    if "position_ids" not in takes:
        raise RecipeError(
            f"{type(causal_lm).__name__} takes no position_ids, so responses cannot share a "
            "prompt; use a LLaMA, GPT-2, OPT or Qwen model"
        )
    if causal_lm.config._attn_implementation not in MASKED_ATTENTION:
        causal_lm.set_attn_implementation("sdpa")


def longest_sequence(causal_lm: Any) -> int | None:
    """How many positions a model can number at all; None where there is no such limit."""
    family = FAMILIES.get(causal_lm.config.model_type)
    if family is None or not family.learned_positions:
        return None
    return int(causal_lm.config.max_position_embeddings)


def open_backbone(
    name: str,
    *,
    codebook_size: int,
    codebooks: int = 1,
    dtype: str = "auto",
    quantization: str | None = None,
) -> tuple[Any, Vocabulary]:
    """A pretrained causal LM and a vocabulary of its text plus speech.

    `name` is a folder or a Hugging Face name; nothing is downloaded: MissingModelError says what
    to fetch. The embedding still has the backbone's rows, see `model.add_speech_tokens`.
    """
    causal_lm = load_causal_lm(name, dtype=dtype, quantization=quantization)
    return causal_lm, pretrained_vocabulary(name, codebook_size=codebook_size, codebooks=codebooks)


def pretrained_vocabulary(name: str, *, codebook_size: int, codebooks: int = 1) -> Vocabulary:
    """The text of a pretrained model's tokenizer plus speech; MissingModelError as above."""
    fast = load_tokenizer(name)
    return Vocabulary.of(
        fast.backend_tokenizer,
        codebook_size=codebook_size,
        codebooks=codebooks,
        bos=fast.bos_token,
        eos=fast.eos_token,
        pad=fast.pad_token,
    )


def small_config(
    rows: int,
    *,
    hidden: int,
    layers: int,
    heads: int,
    intermediate: int | None = None,
    max_positions: int,
    tied: bool = True,
    dropout: float,
) -> Any:
    """The configuration of `small_llama` over an embedding of `rows` ids."""
    from transformers import LlamaConfig

    if hidden % heads or (hidden // heads) % 2:
        raise RecipeError(f"hidden {hidden} over {heads} heads: each head needs an even width")
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=hidden,
        intermediate_size=intermediate or -(-hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
    )
