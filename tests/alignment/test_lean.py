"""Gradient checkpointing and 4-bit weights: what takes less memory must change nothing else."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings, SizeSettings, checkpoint_layers
from aligncap.alignment.trainer import StageSettings, check_layout
from aligncap.captioner.model import AdapterSettings, CaptionModel, adapter_disabled, add_adapter
from aligncap.captioner.prompts import collate, to_torch
from aligncap.errors import MissingModelError, RecipeError, UnknownNameError
from aligncap.training.pretrained import four_bits, load_causal_lm
from aligncap.training.settings import FitSettings
from support.captioner import random_rows, tiny_lm, tiny_vocabulary


def tiny_model(kind: str, *, lora: bool) -> CaptionModel:
    vocabulary = tiny_vocabulary()
    torch.manual_seed(0)
    model = CaptionModel(tiny_lm(kind), vocabulary)
    if lora:
        model = add_adapter(model, AdapterSettings(rank=2, dropout=0.2))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_()
    return model.train()


def gradients(
    model: CaptionModel, *, turning: Callable[[], None] = lambda: None
) -> dict[str, torch.Tensor]:
    """Of a loss like KD's: before the way back, when `turning` is called, the student is asked as
    its own teacher too."""
    rows = random_rows(model.vocabulary, seed=1, rows=3, responses=2)
    batch = to_torch(collate(rows, pad_id=0), model.device)
    torch.manual_seed(3)
    logits = model.text_logits(batch)
    taught = torch.zeros_like(logits)
    if hasattr(model.causal_lm, "peft_config"):
        with adapter_disabled(model):
            taught = model.text_logits(batch)
    loss = (logits - taught).square().mean() + logits.logsumexp(1).mean()
    turning()
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointed_layers_have_the_same_gradients(kind: str, lora: bool) -> None:
    model = tiny_model(kind, lora=lora)
    # Prompts and responses in one pass, as checkpointed layers are run: dropout draws the same.
    model.causal_lm.config.sliding_window = 1
    plain = gradients(model)
    runs: list[int] = []
    (layers,) = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    inside = next(layers[0].children())
    inside.register_forward_pre_hook(lambda *_: runs.append(1))
    gradients(model, turning=runs.clear)
    assert not runs
    checkpoint_layers(model)
    again = gradients(model, turning=runs.clear)
    assert len(runs) == 1, "the student's layer should run again on the way back"
    assert again.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient)


def test_four_bits_are_those_of_qlora() -> None:
    settings = four_bits("bfloat16")
    assert settings["load_in_4bit"]
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert settings["bnb_4bit_use_double_quant"]
    assert four_bits("float32")["bnb_4bit_compute_dtype"] == "float32"
    assert four_bits("auto")["bnb_4bit_compute_dtype"] == "bfloat16"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_transformers_understands_them() -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**four_bits("bfloat16"))
    assert config.quantization_method() == "nf4"
    assert config.bnb_4bit_compute_dtype is torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_four_bits_without_a_gpu_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="a CUDA GPU") as caught:
        load_causal_lm(str(tmp_path), quantization="nf4")
    assert "set model.quantization to none" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_four_bit_weights_are_neither_trained_nor_shared_out() -> None:
    with pytest.raises(RecipeError, match="LoRA"):
        ModelSettings(base="some-model", quantization="nf4")
    with pytest.raises(UnknownNameError, match="'nf4'"):
        ModelSettings(base="some-model", lora=AdapterSettings(), quantization="nf5")
    packed = ModelSettings(base="some-model", lora=AdapterSettings(), quantization="nf4")
    for way, allowed in {"zero2": True, "fsdp": False, "zero3": False}.items():
        settings = StageSettings(
            data=DataSettings(rows=(Path("rows.jsonl"),)),
            training=FitSettings(steps=1, learning_rate=1e-3, sharding=way),
            model=packed,
        )
        if allowed:
            check_layout(settings)
        else:
            with pytest.raises(RecipeError, match=way):
                check_layout(settings)
    check_layout(
        StageSettings(
            data=DataSettings(rows=(Path("rows.jsonl"),)),
            training=FitSettings(steps=1, learning_rate=1e-3, sharding="fsdp"),
            model=ModelSettings(new=SizeSettings()),
        )
    )
