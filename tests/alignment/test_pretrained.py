"""Distillation over a pretrained language model: LoRA, new ids, and no second copy (decision 2)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from aligncap.alignment import kd
from aligncap.alignment.examples import BatchSettings, DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.kd import KdSettings, TeacherSettings
from aligncap.alignment.trainer import ValidationSettings
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.model import AdapterSettings
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.errors import MissingModelError
from aligncap.training.loop import read_log
from aligncap.training.pretrained import load_causal_lm
from aligncap.training.settings import FitSettings
from support.rows import FEELINGS, write_tiny

TEXTS = [text for texts in FEELINGS.values() for text in texts] * 4


def pretrained(kind: str, folder: Path) -> Path:
    """A folder as one would fetch it: a model and its tokenizer, which know nothing of speech."""
    tokenizer = train_text_tokenizer(TEXTS, 300)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.save_pretrained(folder)
    rows = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    model: Any
    if kind == "llama":
        sizes = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=rows, hidden_size=32, tie_word_embeddings=False, **sizes)
        model = LlamaForCausalLM(config)
    elif kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=2))
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = OPTForCausalLM(
            OPTConfig(vocab_size=rows, word_embed_proj_dim=32, ffn_dim=64, **sizes)
        )
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_a_pretrained_model_is_distilled_through_an_adapter(kind: str, tmp_path: Path) -> None:
    base = pretrained(kind, tmp_path / "base")
    settings = KdSettings(
        data=DataSettings(rows=(write_tiny(tmp_path, count=30),)),
        training=FitSettings(steps=30, learning_rate=2e-2, save_every=30, log_every=5),
        model=ModelSettings(base=str(base), lora=AdapterSettings(rank=4)),
        batch=BatchSettings(rows=4, captions=2),
        teacher=TeacherSettings(prompt="act+sem"),
        validation=ValidationSettings(every=10, rows=12),
    )
    output = tmp_path / "run"
    output.mkdir()
    summary = kd.train_kd(settings, output, resume=False)
    assert "LoRA" in str(summary["trained"])
    assert "new token rows" in str(summary["trained"])
    divergences = [line["validation_kl"] for line in read_log(output) if "validation_kl" in line]
    assert divergences[-1] < divergences[0]
    folder = output / "model"
    assert (read_meta(folder).weights, read_meta(folder).base) == ("adapter", str(base))
    # The folder alone brings back what was validated last: base, adapter and new rows.
    student = load_torch(folder)
    assert student.vocabulary.size == student.vocabulary.speech_base + 12
    again = kd.StageTrainer(
        settings,
        tmp_path / "again",
        kind="kd",
        data=kd.read_training_rows(settings.data.rows, needs_speech=True),
    )
    task = kd.kd_task(settings, again, output / kd.CACHE_FOLDER)
    means = again.validator(task, student)()
    assert means["validation_kl"] == pytest.approx(divergences[-1], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("openai-community/gpt2", "`hf download openai-community/gpt2`"),
        ("gpt2", "`hf download gpt2`"),
        ("/nowhere/runs/warmed", "no such folder; put it back"),
        ("runs/warmup/model", "no such folder; put it back"),
    ],
)
def test_a_missing_backbone_says_what_to_do(name: str, cure: str) -> None:
    with pytest.raises(MissingModelError) as told:
        load_causal_lm(name)
    assert cure in str(told.value)
    assert "local_files_only" not in str(told.value)
    assert ("hf download" in str(told.value)) == ("hf download" in cure)


def test_pickled_weights_are_not_read_but_explained(tmp_path: Path) -> None:
    folder = pretrained("opt", tmp_path / "base")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(MissingModelError, match=r"save_pretrained of .*model and tokenizer"):
        load_causal_lm(str(folder))
