"""LoRA: the teacher inside the student, new rows that train, merging, saving."""

import json

import pytest
import torch

from aligncap.captioner.model import (
    AdapterSettings,
    CaptionModel,
    adapter_disabled,
    add_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
    trainable_summary,
)
from aligncap.captioner.prompts import collate, to_torch
from aligncap.errors import MissingModelError, RecipeError
from captioner.tiny import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

KINDS = ["llama", "gpt2", "opt", "qwen2"]


def tiny_batch(responses: int = 2, seed: int = 0):
    vocabulary = tiny_vocabulary()
    rows = random_rows(vocabulary, seed=seed, rows=3, responses=responses)
    return to_torch(collate(rows, vocabulary.pad_id))


def trained(kind: str, *, tied: bool = True) -> CaptionModel:
    """An adapter that does something: three steps of likelihood."""
    vocabulary = tiny_vocabulary()
    model = add_adapter(CaptionModel(tiny_lm(kind, tied=tied), vocabulary), AdapterSettings(rank=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for seed in range(3):
        loss = -model.response_log_probs(tiny_batch(seed=seed)).mean.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("responses", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompt_equals_separate_rows_with_an_adapter(kind, responses):
    vocabulary = tiny_vocabulary()
    model = trained(kind)
    rows = random_rows(vocabulary, seed=9, rows=3, responses=responses)

    scores = model.response_log_probs(to_torch(collate(rows, vocabulary.pad_id))).sum
    scores.mean().backward()
    shared = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    alone = separate_log_probs(model.causal_lm, rows, vocabulary.text_rows)
    alone.mean().backward()

    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(shared[name], p.grad, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(kind):
    vocabulary = tiny_vocabulary()
    bare = CaptionModel(tiny_lm(kind), vocabulary).eval()
    before = bare.response_logits(tiny_batch()).detach()
    model = add_adapter(bare).eval()
    torch.testing.assert_close(model.response_logits(tiny_batch()), before)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_is_the_base_even_after_training(kind, tied):
    vocabulary = tiny_vocabulary()
    base = CaptionModel(tiny_lm(kind, tied=tied), vocabulary).eval()
    expected = base.response_logits(tiny_batch())
    student = trained(kind, tied=tied).train()
    with adapter_disabled(student):
        seen = student.response_logits(tiny_batch())
        assert not student.training
    assert not seen.requires_grad
    assert student.training
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)
    assert (student.response_logits(tiny_batch()) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_gives_the_same_logits(kind, tied):
    model = trained(kind, tied=tied)
    before = model.response_logits(tiny_batch()).detach()
    merged = merge_adapter(model)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged.response_logits(tiny_batch()), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_is_the_same_to_the_bit(kind, tied, tmp_path):
    vocabulary = tiny_vocabulary()
    model = trained(kind, tied=tied)
    save_adapter(model, tmp_path, base="some/base")
    again = load_adapter(tiny_lm(kind, tied=tied), vocabulary, tmp_path).eval()
    assert torch.equal(again.response_logits(tiny_batch()), model.response_logits(tiny_batch()))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("kind", KINDS)
def test_speech_rows_train_and_text_rows_do_not(kind):
    vocabulary = tiny_vocabulary()
    before = tiny_lm(kind).get_input_embeddings().weight.detach()
    after = merge_adapter(trained(kind)).bare.get_input_embeddings().weight.detach()
    assert torch.equal(after[: vocabulary.shape.base_size], before[: vocabulary.shape.base_size])
    used = vocabulary.speech_base + torch.arange(vocabulary.shape.codebook_size)
    assert ((after - before)[used].abs().max(1).values > 1e-4).float().mean() > 0.8


def test_what_trains_is_said():
    line = trainable_summary(trained("llama"))
    assert "LoRA" in line
    assert "new token rows" in line
    assert "base weights" not in line


def test_there_is_no_teacher_without_an_adapter():
    model = CaptionModel(tiny_lm("llama"), tiny_vocabulary())
    with pytest.raises(RecipeError, match="add_adapter"), adapter_disabled(model):
        pass
    with pytest.raises(RecipeError, match="add_adapter"):
        merge_adapter(model)


def test_a_second_adapter_is_refused():
    with pytest.raises(RecipeError, match="merge"):
        add_adapter(trained("llama"))


def test_an_adapter_that_is_not_safetensors_is_not_opened(tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(MissingModelError, match="safetensors"):
        load_adapter(tiny_lm("llama"), tiny_vocabulary(), tmp_path)
