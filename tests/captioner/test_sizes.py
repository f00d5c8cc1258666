"""Sizes told from a configuration, against models that are really built and published counts."""

from typing import Any

import pytest
from transformers import AutoConfig

from aligncap.captioner.adapters import AdapterSettings, add_adapter
from aligncap.captioner.known_backbones import KNOWN_BACKBONES
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.sizes import VocabularySize, model_size
from captioner.tiny import tiny_lm, tiny_vocabulary


def vocabulary_size() -> VocabularySize:
    vocabulary = tiny_vocabulary()
    return VocabularySize(
        base=vocabulary.shape.base_size, text=vocabulary.text_rows, codebooks=1, codebook_size=16
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2"])
def test_parameters_are_those_of_the_model_that_is_built(kind: str, tied: bool) -> None:
    causal_lm: Any = tiny_lm(kind, tied=tied)
    whole = model_size(causal_lm.config, vocabulary_size())
    adapted = model_size(causal_lm.config, vocabulary_size(), AdapterSettings(rank=3))
    count = sum(parameter.numel() for parameter in causal_lm.parameters())
    assert whole.total == count
    assert whole.trained == {"base weights": count}

    model = add_adapter(CaptionModel(causal_lm, tiny_vocabulary()), AdapterSettings(rank=3))
    named = [(n, p.numel()) for n, p in model.named_parameters() if p.requires_grad]
    assert adapted.total == sum(parameter.numel() for parameter in model.parameters())
    assert adapted.trained == {
        "LoRA": sum(n for name, n in named if "lora_" in name),
        "new token rows": sum(n for name, n in named if "trainable_tokens" in name),
    }


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("huggyllama/llama-7b", 6_738_415_616),
        ("openai-community/gpt2", 124_439_808),
        ("openai-community/gpt2-large", 774_030_080),
        ("facebook/opt-1.3b", 1_315_758_080),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
    ],
)
def test_known_backbones_have_their_published_sizes(name: str, published: int) -> None:
    known = KNOWN_BACKBONES[name]
    config = AutoConfig.for_model(known.kind, **known.config)
    # Without a word or a code more: as the model is published.
    bare = VocabularySize(base=0, text=0, codebooks=1, codebook_size=1)
    assert model_size(config, bare).total == published


def test_a_configuration_is_left_as_it_is() -> None:
    config = tiny_lm("llama").config
    rows = config.vocab_size
    larger = VocabularySize(base=rows, text=rows, codebooks=2, codebook_size=100)
    assert model_size(config, larger).rows == rows + 2 + 200
    assert config.vocab_size == rows
