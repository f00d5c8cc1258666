"""Configurations of well-known language models, for reckoning where the hub's cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class KnownBackbone:
    """What config.json and tokenizer.json of a published model say of its size."""

    kind: str
    """transformers' `model_type`."""
    text_ids: int
    """Ids of its tokenizer; the embedding may have more rows."""
    config: Mapping[str, int | bool]


_GPT2 = {"vocab_size": 50257, "n_positions": 1024}
_QWEN = {"vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True}

KNOWN_BACKBONES: Mapping[str, KnownBackbone] = MappingProxyType(
    {
        "huggyllama/llama-7b": KnownBackbone(
            "llama",
            32000,
            {
                "vocab_size": 32000,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "tie_word_embeddings": False,
            },
        ),
        "openai-community/gpt2": KnownBackbone(
            "gpt2", 50257, {**_GPT2, "n_embd": 768, "n_layer": 12, "n_head": 12}
        ),
        "openai-community/gpt2-large": KnownBackbone(
            "gpt2", 50257, {**_GPT2, "n_embd": 1280, "n_layer": 36, "n_head": 20}
        ),
        "facebook/opt-1.3b": KnownBackbone(
            "opt",
            50265,
            {
                "vocab_size": 50272,
                "hidden_size": 2048,
                "word_embed_proj_dim": 2048,
                "ffn_dim": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
            },
        ),
        "Qwen/Qwen2.5-0.5B": KnownBackbone(
            "qwen2",
            151665,
            {
                **_QWEN,
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
            },
        ),
        "Qwen/Qwen2.5-1.5B": KnownBackbone(
            "qwen2",
            151665,
            {
                **_QWEN,
                "hidden_size": 1536,
                "intermediate_size": 8960,
                "num_hidden_layers": 28,
                "num_attention_heads": 12,
                "num_key_value_heads": 2,
            },
        ),
    }
)
"""By name on the hub: the paper's (§3.1, Table 4), and a current family."""
