"""What differs between language models: one small table, and how a model is found.

Any causal LM of transformers that takes `position_ids` and a 4-D attention mask is a backbone.
OPT counts positions from a 2-D mask unless it is given `position_ids`, which we always give;
its two-row offset is its own affair. Attention is sdpa or eager: flash attention has no 4-D mask.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import MissingModelError, RecipeError

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
    name: str, *, codebook_size: int, codebooks: int = 1, dtype: str = "auto"
) -> tuple[Any, Vocabulary]:
    """A pretrained causal LM and a vocabulary of its text plus speech.

    `name` is a folder or a Hugging Face name; nothing is downloaded: MissingModelError says what
    to fetch. The embedding still has the backbone's rows, see `model.add_speech_tokens`.
    """
    from transformers import AutoTokenizer

    causal_lm = load_causal_lm(name, dtype=dtype)
    try:
        fast = AutoTokenizer.from_pretrained(_folder_of(name), local_files_only=True)
    except (OSError, ValueError) as error:
        raise _missing(name, "tokenizer", error) from error
    vocabulary = Vocabulary.of(
        fast.backend_tokenizer,
        codebook_size=codebook_size,
        codebooks=codebooks,
        bos=fast.bos_token,
        eos=fast.eos_token,
        pad=fast.pad_token,
    )
    return causal_lm, vocabulary


def load_causal_lm(name: str, *, dtype: str = "auto") -> Any:
    """A causal LM from a folder or the local Hugging Face cache, safetensors only."""
    from transformers import AutoModelForCausalLM

    try:
        causal_lm = AutoModelForCausalLM.from_pretrained(
            _folder_of(name),
            local_files_only=True,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation="sdpa",
        )
    except (OSError, ValueError) as error:
        raise _missing(name, "weights", error) from error
    # An adapter remembers its base by this: a name, not a place in this machine's cache.
    causal_lm.config.name_or_path = name
    return causal_lm


def _folder_of(name: str) -> str:
    """Where a model lies on this machine.

    Looked up by us: transformers asks the network for an adapter even of local files, and waits.
    """
    from huggingface_hub import snapshot_download

    return name if Path(name).is_dir() else str(snapshot_download(name, local_files_only=True))


def _missing(name: str, what: str, error: Exception) -> MissingModelError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    cure = (
        "the folder needs config.json, model.safetensors and tokenizer.json"
        if Path(name).is_dir()
        else f"fetch it once with `hf download {name}`"
    )
    return MissingModelError(f"language model {name!r}: no usable {what} here ({reason}); {cure}")
