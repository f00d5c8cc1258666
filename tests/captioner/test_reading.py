"""Prompts that run by themselves: what a model makes of them, and where they must not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from aligncap.captioner.model import CaptionModel, add_adapter
from aligncap.captioner.prompts import SharedPromptRow, behind, collate, prompt_columns, to_torch
from captioner.tiny import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


@contextmanager
def passes(causal_lm: Any) -> Iterator[list[int]]:
    """Columns of each pass through the layers."""
    seen: list[int] = []

    def note(module: Any, given: Any, named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].shape[1])

    hook = causal_lm.base_model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def test_every_token_is_run_once_and_prompts_first():
    model = CaptionModel(tiny_lm("llama"), VOCABULARY)
    rows = random_rows(VOCABULARY, seed=1, rows=4, responses=3)
    batch = to_torch(collate(rows, VOCABULARY.pad_id))
    shortest = min(len(row.prompt_ids) for row in rows)
    with passes(model.bare) as columns:
        model.response_logits(batch)
    assert columns == [shortest - 1, batch.input_ids.shape[1] - shortest + 1]


def test_what_is_left_of_a_batch_is_its_last_columns():
    batch = collate([SharedPromptRow([7, 8, 9], [[1, 2, 3], [4, 5]])], pad_id=0)
    assert prompt_columns(batch) == 2
    rest = behind(batch, 2)
    assert rest.input_ids.tolist() == [[9, 1, 2, 4]]
    assert rest.position_ids.tolist() == [[2, 3, 4, 3]]
    assert rest.predict_index.tolist() == [0, 1, 2, 0, 3]
    assert rest.attention.astype(int).tolist() == [
        [[[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]]]
    ]
    np.testing.assert_array_equal(rest.target_ids, batch.target_ids)


def test_prompts_of_one_token_are_read_with_what_is_said_to_them():
    model = CaptionModel(tiny_lm("llama").eval(), VOCABULARY)
    row = SharedPromptRow([VOCABULARY.bos_id], [[5, 6, VOCABULARY.eos_id], [7, VOCABULARY.eos_id]])
    scores = model.response_log_probs(to_torch(collate([row], 0))).sum
    alone = separate_log_probs(model.causal_lm, [row], VOCABULARY.text_rows)
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)


def test_layers_that_keep_nothing_are_run_once_with_the_same_gradients():
    rows = random_rows(VOCABULARY, seed=2, rows=3, responses=2)
    batch = to_torch(collate(rows, VOCABULARY.pad_id))
    plain, checkpointed = (CaptionModel(tiny_lm("llama").train(), VOCABULARY) for _ in range(2))
    checkpointed.bare.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model.response_log_probs(batch).sum.sum().backward()
    for (name, p), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, p.grad, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(("window", "at_once"), [(8, True), (4096, False)])
def test_responses_see_the_whole_prompt_whatever_the_window(window, at_once):
    config = MistralConfig(
        vocab_size=VOCABULARY.size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=window,
    )
    torch.manual_seed(0)
    causal_lm = MistralForCausalLM(config).eval()
    model = CaptionModel(causal_lm, VOCABULARY)
    draw = np.random.default_rng(3)
    ids = [int(i) for i in draw.integers(3, VOCABULARY.text_rows, 20)]
    rows = [SharedPromptRow(ids, [[5, 6, VOCABULARY.eos_id]])]
    batch = to_torch(collate(rows, 0))
    with passes(model.bare) as columns:
        scores = model.response_log_probs(batch).sum
    assert len(columns) == (1 if at_once else 2)
    causal_lm.config.sliding_window = None
    alone = separate_log_probs(causal_lm, rows, VOCABULARY.text_rows)
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)


def test_an_adapter_learns_from_both_passes():
    model = add_adapter(CaptionModel(tiny_lm("llama"), VOCABULARY))
    with torch.no_grad():  # LoRA's B begins at 0, which would hide A's gradient
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    rows = random_rows(VOCABULARY, seed=4, rows=3, responses=2)
    model.response_log_probs(to_torch(collate(rows, 0))).sum.sum().backward()
    shared = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    separate_log_probs(model.causal_lm, rows, VOCABULARY.text_rows).sum().backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(shared[name], p.grad, rtol=0, atol=1e-5, msg=name)
