"""The shared-prompt forward against plain separate rows, and what the model adds around it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aligncap.captioner.model import (
    CaptionModel,
    add_speech_tokens,
    set_speech_rows,
    small_llama,
    trainable_summary,
)
from aligncap.captioner.prompts import collate, to_torch
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.errors import RecipeError
from captioner.tiny import TEXTS, random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

VOCABULARY = tiny_vocabulary()

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


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_project_to_the_same_logits(kind):
    vocabulary = tiny_vocabulary()
    model = CaptionModel(tiny_lm(kind).eval(), vocabulary)
    rows = random_rows(vocabulary, seed=3, rows=3, responses=2)
    batch = to_torch(collate(rows, vocabulary.pad_id))
    expected = model.bare.get_output_embeddings()(model.predicting_states(batch))
    torch.testing.assert_close(model.response_logits(batch), expected, rtol=0, atol=1e-6)
    assert model.text_logits(batch).shape == (len(batch.target_ids), vocabulary.text_rows)


def test_probabilities_run_over_text_only():
    vocabulary = tiny_vocabulary()
    model = CaptionModel(tiny_lm("llama", tied=False).eval(), vocabulary)
    batch = to_torch(collate(random_rows(vocabulary, seed=4, rows=2, responses=2), 0))
    before = model.response_log_probs(batch)
    with torch.no_grad():  # speech rows may say what they like
        model.bare.get_output_embeddings().weight[vocabulary.text_rows :] += 100.0
    after = model.response_log_probs(batch)
    assert torch.equal(before.sum, after.sum)
    torch.testing.assert_close(before.mean * batch.response_lengths, before.sum)


def test_padding_and_neighbours_change_nothing():
    vocabulary = tiny_vocabulary()
    model = CaptionModel(tiny_lm("opt").eval(), vocabulary)
    rows = random_rows(vocabulary, seed=5, rows=4, responses=3)
    together = model.response_log_probs(to_torch(collate(rows, vocabulary.pad_id))).sum
    alone = [model.response_log_probs(to_torch(collate([row], 0))).sum for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_new_rows_are_like_the_old_ones(kind, tied):
    vocabulary = Vocabulary.of(train_text_tokenizer(TEXTS * 4, 320), codebook_size=4000)
    lm = tiny_lm(kind, tied=tied)
    with torch.no_grad():  # a mean and a direction that white noise has not
        table = lm.get_input_embeddings().weight
        table += 3.0
        table[:, 0] = table[:, 1]
    text = table[: vocabulary.shape.base_size].detach().clone()
    add_speech_tokens(lm, vocabulary, seed=1)
    assert lm.config.vocab_size == vocabulary.size
    assert lm.config.eos_token_id == lm.generation_config.eos_token_id == vocabulary.eos_id
    shared = lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    assert shared == tied
    rows = lm.get_input_embeddings().weight.detach()
    assert torch.equal(rows[: len(text)], text)
    new = rows[len(text) :]
    torch.testing.assert_close(new.mean(0), text.mean(0), rtol=0, atol=2e-3)
    torch.testing.assert_close(new[:, 0], new[:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(new.std(0), text.std(0, unbiased=False), rtol=0.1, atol=0)


def test_spare_rows_of_a_backbone_are_used_before_it_grows():
    vocabulary = tiny_vocabulary()
    config = LlamaConfig(
        vocab_size=vocabulary.size + 50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    lm = LlamaForCausalLM(config)
    last = lm.get_input_embeddings().weight.detach()[vocabulary.size :].clone()
    add_speech_tokens(lm, vocabulary)
    assert lm.config.vocab_size == vocabulary.size + 50
    assert torch.equal(lm.get_input_embeddings().weight.detach()[vocabulary.size :], last)


def test_a_small_llama_is_drawn_from_its_seed_alone():
    vocabulary = tiny_vocabulary()
    first = small_llama(vocabulary, hidden=16, layers=1, heads=2, seed=7)
    torch.rand(3)
    state = torch.random.get_rng_state()
    second = small_llama(vocabulary, hidden=16, layers=1, heads=2, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RecipeError, match="heads"):
        small_llama(vocabulary, hidden=30, heads=4)


def test_the_summary_counts_what_trains():
    model = CaptionModel(small_llama(tiny_vocabulary(), hidden=16, layers=1, heads=2), VOCABULARY)
    total = sum(p.numel() for p in model.parameters())
    assert (
        trainable_summary(model)
        == f"{total:,} of {total:,} parameters train: base weights {total:,}"
    )
    model.requires_grad_(False)
    assert trainable_summary(model) == f"0 of {total:,} parameters train"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_scores():
    model = CaptionModel(tiny_lm("llama").eval(), VOCABULARY)
    batch = collate(random_rows(VOCABULARY, seed=6, rows=3, responses=3), 0)
    expected = model.response_log_probs(to_torch(batch)).sum
    scores = model.cuda().response_log_probs(to_torch(batch, "cuda")).sum
    torch.testing.assert_close(scores.cpu(), expected, rtol=0, atol=1e-3)


def test_speech_rows_begin_as_near_each_other_as_codebook_entries():
    vocabulary = tiny_vocabulary()
    model = CaptionModel(tiny_lm("llama", tied=True), vocabulary)
    size = vocabulary.size - vocabulary.speech_base
    codebook = torch.randn(size, 12, generator=torch.Generator().manual_seed(1))
    codebook[3] = codebook[2] + 0.01  # two that sound alike
    table = model.bare.get_input_embeddings().weight
    text = table[: vocabulary.text_rows].detach().clone()
    set_speech_rows(model, codebook)

    rows = table[vocabulary.speech_base : vocabulary.size].detach()
    distances = torch.cdist(rows, rows)
    assert int(distances[2].topk(2, largest=False).indices[1]) == 3
    given, kept = torch.pdist(codebook), torch.pdist(rows)
    assert float(torch.corrcoef(torch.stack((given, kept)))[0, 1]) > 0.7
    assert torch.equal(table[: vocabulary.text_rows], text)
    assert float(rows.std()) == pytest.approx(float(text.std()), rel=0.2)


def test_a_codebook_of_another_size_is_refused():
    vocabulary = tiny_vocabulary()
    model = CaptionModel(tiny_lm("llama"), vocabulary)
    with pytest.raises(RecipeError, match=r"3 entries.*tokenizer's own"):
        set_speech_rows(model, torch.randn(3, 4))
