"""Texts that share a cached prompt, against each text run whole by itself."""

import random

import pytest
import torch

from aligncap.captioner.decoding import Continuation
from captioner.tiny import tiny_lm

PROMPTS = ((1, 5, 6, 7, 8), (1, 9), (1, 4, 4, 11))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_any_texts_in_any_order_go_on_as_if_alone(kind: str, attention: str) -> None:
    model = tiny_lm(kind).eval()
    model.set_attn_implementation(attention)
    chance = random.Random(7)
    with torch.inference_mode():
        state = Continuation(model, PROMPTS)
        texts = [tuple(prompt) for prompt in PROMPTS]
        for _ in range(6):
            # Some are dropped, some doubled, whole prompts among them, all shuffled.
            rows = [chance.randrange(len(texts)) for _ in range(chance.randint(1, 6))]
            tokens = [chance.randrange(3, 200) for _ in rows]
            state.advance(rows, tokens)
            texts = [(*texts[row], token) for row, token in zip(rows, tokens, strict=True)]
            alone = [model(input_ids=torch.tensor([text])).logits[0, -1] for text in texts]
            torch.testing.assert_close(state.logits, torch.stack(alone), atol=1e-5, rtol=1e-4)
