"""Small models on disk and sound files for the tests of speech tokens."""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.speech_tokenizers import (
    CONFIG,
    official_model,
    official_state,
    save_checkpoint,
    save_whisper,
)


@pytest.fixture(scope="session")
def official_module() -> ModuleType:
    """The authors' own package, without its trainer: that imports what it does not declare."""
    for package in ("speechtokenizer", "einops"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install --no-deps speechtokenizer einops")
    trainer = ModuleType("speechtokenizer.trainer")
    trainer.SpeechTokenizerTrainer = None  # type: ignore[attr-defined]
    sys.modules["speechtokenizer.trainer"] = trainer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is an old way
        import speechtokenizer

    return speechtokenizer


@pytest.fixture(scope="session")
def official(official_module: ModuleType, state: dict[str, Any]) -> Any:
    """The official model of the small checkpoint."""
    return official_model(official_module, CONFIG, state)


@pytest.fixture(scope="session")
def state() -> dict[str, Any]:
    """The tensors of a small checkpoint of random weights, made without the official package."""
    return official_state(CONFIG)


@pytest.fixture(scope="session")
def checkpoint(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of those tensors."""
    return save_checkpoint(state, tmp_path_factory.mktemp("own") / "small", CONFIG)


@pytest.fixture(scope="session")
def mimi_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Mimi of random weights, saved as transformers saves it."""
    import torch
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_filters": 4, "upsample_groups": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 2}
    books = {"num_quantizers": 8, "codebook_size": 64, "codebook_dim": 16}
    model = MimiModel(
        MimiConfig(
            **sizes, **heads, **books, vector_quantization_hidden_dimension=16, sliding_window=50
        )
    )
    for name, tensor in model.state_dict().items():
        if name.endswith("embed_sum"):
            tensor.normal_()
        if "layer_scale" in name:
            tensor.fill_(0.5)  # at its start of 0.01 the transformer would hardly matter
    folder = tmp_path_factory.mktemp("mimi")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Whisper of random weights."""
    return save_whisper(tmp_path_factory.mktemp("whisper"), layers=2, seed=1)
