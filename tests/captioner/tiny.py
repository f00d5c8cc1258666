"""Tiny random backbones over one small vocabulary, and oracles of their log-probabilities."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from aligncap.captioner.prompts import SharedPromptRow
from aligncap.captioner.runtimes import ResponseRules
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.values import SpeechTokens

if TYPE_CHECKING:
    import torch

KINDS = ["llama", "gpt2", "opt", "qwen2"]

TEXTS = (
    "She sounds calm and speaks slowly in a low voice.",
    "他说话很快，声音低沉。",
    "Is he angry? Yes!",
)


@cache
def tiny_vocabulary(codebooks: int = 1) -> Vocabulary:
    tokenizer = train_text_tokenizer(TEXTS * 4, 320)
    return Vocabulary.of(tokenizer, codebook_size=16, codebooks=codebooks)


def tiny_lm(kind: str, *, tied: bool = True, seed: int = 0) -> Any:
    """A random LLaMA, GPT-2, OPT or Qwen2 whose embedding holds tiny_vocabulary()."""
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        OPTConfig,
        OPTForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    from aligncap.captioner.model import add_speech_tokens, small_llama

    vocabulary = tiny_vocabulary()
    if kind == "llama":
        return small_llama(vocabulary, hidden=32, layers=2, heads=2, tied=tied, seed=seed)
    torch.manual_seed(seed)
    rows, shared = vocabulary.shape.base_size, {"tie_word_embeddings": tied}
    if kind == "gpt2":
        lm = GPT2LMHeadModel(GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=2, **shared))
    elif kind == "opt":
        # As in OPT-350m: embeddings narrower than the layers, so that both projections are there.
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
        narrow = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
        lm = OPTForCausalLM(OPTConfig(vocab_size=rows, **sizes, **narrow, **shared))
    else:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
        lm = Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, **sizes, **heads, **shared))
    add_speech_tokens(lm, vocabulary)
    return lm


def sharpened(kind: str) -> Any:
    """A random model whose logits are far enough apart for float to see: deviation 2."""
    import torch

    vocabulary, model = tiny_vocabulary(), tiny_lm(kind, tied=False).eval()
    prompt = random_rows(vocabulary, seed=5, rows=1, responses=1)[0].prompt_ids
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[..., : vocabulary.text_vocab_size]
        model.get_output_embeddings().weight.mul_(2.0 / logits.std())
    return model


def random_rows(
    vocabulary: Vocabulary, *, seed: int, rows: int, responses: int
) -> list[SharedPromptRow]:
    """Ragged prompts that hold speech, with ragged responses of text; some of one token."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        codes = draw.integers(0, vocabulary.shape.codebook_size, (1, int(draw.integers(3, 14))))
        prompt = [vocabulary.bos_id, *vocabulary.speech_ids(SpeechTokens(codes))]
        texts = [
            [
                *draw.integers(3, vocabulary.text_vocab_size, int(draw.integers(0, 8))),
                vocabulary.eos_id,
            ]
            for _ in range(responses)
        ]
        found.append(SharedPromptRow(tuple(prompt), tuple(tuple(map(int, t)) for t in texts)))
    return found


def separate_log_probs(
    causal_lm: Any, rows: list[SharedPromptRow], text_rows: int
) -> "torch.Tensor":
    """The oracle: each response behind its own copy of the prompt, one plain forward each."""
    import torch

    scores = []
    for row in rows:
        for response in row.responses:
            ids = torch.tensor([[*row.prompt_ids, *response]])
            logits = causal_lm(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1, :text_rows]
            chosen = logits.log_softmax(-1)[torch.arange(len(response)), list(response)]
            scores.append(chosen.sum())
    return torch.stack(scores)


def log_probability(
    causal_lm: Any,
    prompt: Sequence[int],
    response: Sequence[int],
    rules: ResponseRules,
    *,
    min_length: int = 0,
) -> float:
    """The oracle of one response's log-probability: text only, no stop before `min_length`."""
    import torch

    with torch.no_grad():
        logits = causal_lm(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
    logits = logits[len(prompt) - 1 : -1, : rules.text_vocab_size]
    logits[:min_length, list(rules.stop_ids)] = -torch.inf
    return float(logits.log_softmax(-1)[range(len(response)), list(response)].sum())
