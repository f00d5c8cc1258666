"""The shared-prompt forward against plain separate rows, and what the model adds around it."""

import pytest
import torch

from aligncap.captioner.batches import collate, to_torch
from aligncap.captioner.model import CaptionModel
from captioner.tiny import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

KINDS = ["llama", "gpt2", "opt", "qwen2"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("responses", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompt_equals_separate_rows(kind, responses, attention):
    vocabulary = tiny_vocabulary()
    causal_lm = tiny_lm(kind).eval()
    causal_lm.set_attn_implementation(attention)
    model = CaptionModel(causal_lm, vocabulary)
    rows = random_rows(vocabulary, seed=responses, rows=4, responses=responses)

    scores = model.response_log_probs(to_torch(collate(rows, vocabulary.pad_id))).sum
    scores.mean().backward()
    shared = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    alone = separate_log_probs(causal_lm, rows, vocabulary.text_rows)
    alone.mean().backward()

    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(shared[name], p.grad, rtol=0, atol=1e-5, msg=name)
