"""Language models to start from: pretrained backbones, and a small LLaMA of our own.

Any causal LM of transformers that takes `position_ids` and a 4-D attention mask is a backbone.
OPT counts positions from a 2-D mask unless it is given `position_ids`, which we always give;
its offset of two is internal to it. Attention is sdpa or eager: flash attention has no 4-D mask.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import RecipeError
from aligncap.training.pretrained import load_causal_lm, load_tokenizer

MASKED_ATTENTION = ("sdpa", "eager")
"""Attention implementations that accept a mask of shape [B, 1, T, T]."""


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between kinds of language models."""

    lora_targets: tuple[str, ...]
    """Names of the linear layers that get LoRA."""
    learned_positions: bool = False
    """Positions are rows of a table: longer sequences cannot be read at all."""


QUERY_VALUE = ("q_proj", "v_proj")

FAMILIES = {
    "gpt2": Family(("c_attn",), learned_positions=True),
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


def max_positions(causal_lm: Any) -> int | None:
    """The number of positions that a model has; None where there is no such limit."""
    family = FAMILIES.get(causal_lm.config.model_type)
    limited = family is not None and family.learned_positions
    return int(causal_lm.config.max_position_embeddings) if limited else None


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
    to fetch. The embedding still has the backbone's rows, see `add_speech_tokens`.
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


def add_speech_tokens(causal_lm: Any, vocabulary: Vocabulary, *, seed: int = 0) -> None:
    """Give a pretrained model rows for the new ids, in place.

    New rows are sampled from the normal distribution with the mean and covariance of the text rows
    (so they are neither outliers nor all alike), in the embedding and, where it is not tied, in
    the output projection. Rows that the model had for no token are used before it grows. Its config
    gets the ids of bos, eos and pad.
    """
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    if rows < vocabulary.size:
        causal_lm.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables = [causal_lm.get_input_embeddings().weight, causal_lm.get_output_embeddings().weight]
    new = vocabulary.new_ids
    for table in tables[:1] if tables[0] is tables[1] else tables:
        text = table.detach()[: new.start]
        text = text[torch.randperm(len(text), generator=generator)[:8192]].float().cpu()
        mean = text.mean(0)
        # Random mixtures of centred rows have the rows' covariance: nothing to factorise.
        weights = torch.randn(len(new), len(text), generator=generator) / len(text) ** 0.5
        with torch.no_grad():
            table[new.start : new.stop] = (mean + weights @ (text - mean)).to(table)
    for config in (causal_lm.config, causal_lm.generation_config):
        config.bos_token_id = vocabulary.bos_id
        config.eos_token_id = vocabulary.eos_id
        config.pad_token_id = vocabulary.pad_id


def small_llama(vocabulary: Vocabulary, *, seed: int = 0, **sizes: Any) -> Any:
    """A LLaMA of `small_config` sizes with random weights, to be trained from scratch."""
    from transformers import LlamaForCausalLM

    config = small_config(vocabulary.size, **sizes)
    for role in ("bos", "eos", "pad"):
        setattr(config, f"{role}_token_id", getattr(vocabulary, f"{role}_id"))
    with seeded(seed):
        return LlamaForCausalLM(config)


def small_config(
    rows: int,
    *,
    hidden: int = 256,
    layers: int = 6,
    heads: int = 4,
    intermediate: int | None = None,
    max_positions: int = 2048,
    tied: bool = True,
    dropout: float = 0.0,
) -> Any:
    """The configuration of a LLaMA over an embedding of `rows` ids.

    `intermediate` is 8/3 of `hidden` where not given; `dropout` is that of the attention weights.
    """
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator at a seed, and afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
