"""The table of backbones, and what happens to a model that is not in it."""

import socket

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedTokenizerFast,
)

from aligncap.captioner.backbones import family_of, open_backbone
from aligncap.captioner.model import CaptionModel, add_speech_tokens
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.training.pretrained import load_causal_lm
from captioner.tiny import TEXTS, random_rows, tiny_lm, tiny_vocabulary


def tiny_gemma():
    """A kind that is in no table of ours and bends its logits (softcap)."""
    torch.manual_seed(0)
    vocabulary = tiny_vocabulary()
    config = Gemma2Config(
        vocab_size=vocabulary.size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
    )
    return Gemma2ForCausalLM(config).eval()


def test_a_kind_that_is_in_no_table_keeps_its_own_logits():
    vocabulary, causal_lm = tiny_vocabulary(), tiny_gemma()
    model = CaptionModel(causal_lm, vocabulary)
    row = random_rows(vocabulary, seed=0, rows=1, responses=1)[0]
    logits = model.response_logits(to_torch(collate([row], vocabulary.pad_id)))
    ids = torch.tensor([[*row.prompt_ids, *row.responses[0]]])
    expected = causal_lm(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert logits.abs().max() < 0.5
    with pytest.raises(RecipeError, match="no LoRA targets known for 'gemma2'"):
        family_of(causal_lm)


def test_a_model_that_takes_no_positions_is_refused():
    vocabulary = tiny_vocabulary()
    config = BloomConfig(vocab_size=vocabulary.size, hidden_size=16, n_layer=1, n_head=2)
    with pytest.raises(RecipeError, match="position_ids"):
        CaptionModel(BloomForCausalLM(config), vocabulary)


def test_a_model_without_rows_for_speech_is_refused():
    with pytest.raises(RecipeError, match="add_speech_tokens"):
        CaptionModel(tiny_lm("gpt2"), tiny_vocabulary(codebooks=2))


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_prompt_beyond_the_position_table_is_an_error_not_a_crash(kind):
    causal_lm, vocabulary = tiny_lm(kind), tiny_vocabulary()
    longest = causal_lm.config.max_position_embeddings
    model = CaptionModel(causal_lm, vocabulary)
    fits = SharedPromptRow((0,) * (longest - 1), ((0, 1),))
    model.response_logits(to_torch(collate([fits], 0)))
    over = SharedPromptRow((0,) * longest, ((0, 1),))
    with pytest.raises(DataError, match=str(longest + 1)):
        model.response_logits(to_torch(collate([over], 0)))


def test_a_model_that_is_not_here_says_what_to_fetch(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("looked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(MissingModelError, match="hf download nobody/no-such-model") as caught:
        load_causal_lm("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    tiny_lm("gpt2").config.save_pretrained(tmp_path)
    with pytest.raises(MissingModelError, match=r"needs config\.json, model\.safetensors"):
        load_causal_lm(str(tmp_path))


def test_pickled_weights_are_not_opened(tmp_path):
    causal_lm = tiny_lm("gpt2")
    causal_lm.config.save_pretrained(tmp_path)
    torch.save(causal_lm.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingModelError, match="safetensors"):
        load_causal_lm(str(tmp_path))


def test_a_pretrained_folder_opens_with_its_tokenizer(tmp_path):
    lm = tiny_lm("gpt2")
    lm.save_pretrained(tmp_path)
    tokenizer = train_text_tokenizer(TEXTS * 4, 320)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    causal_lm, vocabulary = open_backbone(str(tmp_path), codebook_size=16)
    assert vocabulary.shape.bos == "<s>"
    assert vocabulary.shape.pad == "<pad>"
    assert vocabulary.text_size == tokenizer.get_vocab_size()
    add_speech_tokens(causal_lm, vocabulary)
    assert CaptionModel(causal_lm, vocabulary).device == torch.device("cpu")
