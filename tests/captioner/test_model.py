"""The shared-prompt forward against plain separate rows, with and without an adapter; backbones."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from aligncap.captioner.model import (
    AdapterSettings,
    CaptionModel,
    adapter_disabled,
    add_adapter,
    add_speech_tokens,
    family_of,
    load_adapter,
    max_positions,
    merge_adapter,
    open_backbone,
    save_adapter,
    set_speech_rows,
    small_llama,
    trainable_summary,
)
from aligncap.captioner.prefill import TorchBatch
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.training.pretrained import load_causal_lm
from support.captioner import (
    KINDS,
    TEXTS,
    random_rows,
    separate_log_probs,
    tiny_lm,
    tiny_model,
    tiny_vocabulary,
)

VOCABULARY = tiny_vocabulary()
TEXT_SIZE = VOCABULARY.text_vocab_size
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCABULARY.size}


def other_lm(kind: str, **sizes: object) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SMALL | sizes)
    return AutoModelForCausalLM.from_config(config).eval()


def batch_of(rows: list[SharedPromptRow]) -> TorchBatch:
    return to_torch(collate(rows, VOCABULARY.pad_id))


def tiny_batch(responses: int = 2, seed: int = 0) -> TorchBatch:
    return batch_of(random_rows(VOCABULARY, seed=seed, rows=3, responses=responses))


def trained(kind: str, *, tied: bool = True) -> CaptionModel:
    """An adapter that does something: three steps of likelihood."""
    model = add_adapter(tiny_model(kind, tied=tied), AdapterSettings(rank=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for seed in range(3):
        loss = -model.response_log_probs(tiny_batch(seed=seed)).mean.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def assert_as_separate_rows(model: CaptionModel, rows: list[SharedPromptRow]) -> None:
    """Scores and gradients are those of each response after its own copy of the prompt."""
    both = []
    for scores in (
        lambda: model.response_log_probs(batch_of(rows)).sum,
        lambda: separate_log_probs(model.causal_lm, rows, TEXT_SIZE),
    ):
        model.zero_grad()
        found = scores()
        found.mean().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        both.append({"scores": found, **gradients})
    torch.testing.assert_close(*both, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "adapter"])
@pytest.mark.parametrize("responses", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompt_equals_separate_rows(kind, responses, attention):
    model = trained(kind) if attention == "adapter" else tiny_model(kind)
    if attention == "eager":
        model.bare.set_attn_implementation(attention)
    rows = random_rows(VOCABULARY, seed=responses, rows=4, responses=responses)
    assert_as_separate_rows(model, rows)


def test_prompts_of_one_token_are_run_with_their_responses():
    eos = VOCABULARY.eos_id
    row = SharedPromptRow([VOCABULARY.bos_id], [[5, 6, eos], [7, eos]])
    assert_as_separate_rows(tiny_model(), [row])


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
    model = tiny_model()
    rows = random_rows(VOCABULARY, seed=1, rows=4, responses=3)
    batch = batch_of(rows)
    shortest = min(len(row.prompt_ids) for row in rows)
    with passes(model.bare) as columns:
        model.response_logits(batch)
    assert columns == [shortest - 1, batch.input_ids.shape[1] - shortest + 1]


def test_checkpointed_layers_are_run_once_with_the_same_gradients():
    plain, checkpointed = (CaptionModel(tiny_lm("llama").train(), VOCABULARY) for _ in range(2))
    checkpointed.bare.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model.response_log_probs(tiny_batch(seed=2)).sum.sum().backward()
    found, expected = ([p.grad for p in model.parameters()] for model in (checkpointed, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("window", "at_once"), [(8, True), (4096, False)])
def test_responses_attend_to_the_whole_prompt_whatever_the_window(window, at_once):
    causal_lm = other_lm("mistral", sliding_window=window)
    model = CaptionModel(causal_lm, VOCABULARY)
    ids = [int(i) for i in np.random.default_rng(3).integers(3, TEXT_SIZE, 20)]
    rows = [SharedPromptRow(ids, [[5, 6, VOCABULARY.eos_id]])]
    with passes(model.bare) as columns:
        scores = model.response_log_probs(batch_of(rows)).sum
    assert len(columns) == (1 if at_once else 2)
    causal_lm.config.sliding_window = None
    alone = separate_log_probs(causal_lm, rows, TEXT_SIZE)
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_project_to_the_same_logits(kind):
    model, batch = tiny_model(kind), tiny_batch(seed=3)
    expected = model.bare.get_output_embeddings()(model.predicting_states(batch))
    torch.testing.assert_close(model.response_logits(batch), expected, rtol=0, atol=1e-6)
    assert model.text_logits(batch).shape == (len(batch.target_ids), TEXT_SIZE)


def test_probabilities_run_over_text_only():
    model, batch = tiny_model(tied=False), tiny_batch(seed=4)
    before = model.response_log_probs(batch)
    with torch.no_grad():  # whatever the logits of speech are
        model.bare.get_output_embeddings().weight[TEXT_SIZE:] += 100.0
    assert torch.equal(before.sum, model.response_log_probs(batch).sum)
    torch.testing.assert_close(before.mean * batch.response_lengths, before.sum)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_scores():
    model = tiny_model()
    batch = collate(random_rows(VOCABULARY, seed=6, rows=3, responses=3), 0)
    expected = model.response_log_probs(to_torch(batch)).sum
    scores = model.cuda().response_log_probs(to_torch(batch, "cuda")).sum
    torch.testing.assert_close(scores.cpu(), expected, rtol=0, atol=1e-3)


class TestSpeechRows:
    @pytest.mark.parametrize("tied", [True, False])
    @pytest.mark.parametrize("kind", ["gpt2", "opt"])
    def test_new_rows_have_the_distribution_of_the_old_ones(self, kind, tied):
        vocabulary = tiny_vocabulary(codebook_size=4000)
        lm = tiny_lm(kind, tied=tied)
        with torch.no_grad():  # a mean and a direction that white noise has not
            table = lm.get_input_embeddings().weight
            table += 3.0
            table[:, 0] = table[:, 1]
        text = table[: vocabulary.shape.base_size].detach().clone()
        add_speech_tokens(lm, vocabulary, seed=1)
        assert lm.config.vocab_size == vocabulary.size
        assert lm.config.eos_token_id == lm.generation_config.eos_token_id == vocabulary.eos_id
        rows = lm.get_input_embeddings().weight
        assert (lm.get_output_embeddings().weight is rows) == tied
        assert torch.equal(rows[: len(text)], text)
        new = rows[len(text) :].detach()
        torch.testing.assert_close(new.mean(0), text.mean(0), rtol=0, atol=2e-3)
        torch.testing.assert_close(new[:, 0], new[:, 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(new.std(0), text.std(0, unbiased=False), rtol=0.1, atol=0)

    def test_spare_rows_of_a_backbone_are_used_before_it_grows(self):
        lm = other_lm("llama", vocab_size=VOCABULARY.size + 50)
        last = lm.get_input_embeddings().weight.detach()[VOCABULARY.size :].clone()
        add_speech_tokens(lm, VOCABULARY)
        assert lm.config.vocab_size == VOCABULARY.size + 50
        assert torch.equal(lm.get_input_embeddings().weight.detach()[VOCABULARY.size :], last)

    def test_neighbours_in_the_codebook_begin_as_neighbours(self):
        model = tiny_model()
        codebook = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
        codebook[3] = codebook[2] + 0.01
        table = model.bare.get_input_embeddings().weight
        text = table[:TEXT_SIZE].detach().clone()
        set_speech_rows(model, codebook)
        rows = table[VOCABULARY.speech_base : VOCABULARY.size].detach()
        assert int(torch.cdist(rows, rows)[2].topk(2, largest=False).indices[1]) == 3
        given, kept = torch.pdist(codebook), torch.pdist(rows)
        assert float(torch.corrcoef(torch.stack((given, kept)))[0, 1]) > 0.7
        assert torch.equal(table[:TEXT_SIZE], text)
        assert float(rows.std()) == pytest.approx(float(text.std()), rel=0.2)
        with pytest.raises(RecipeError, match=r"3 entries.*tokenizer's own"):
            set_speech_rows(model, torch.randn(3, 4))


def test_a_small_llama_depends_on_its_seed_alone():
    sizes = {"hidden": 16, "layers": 1, "heads": 2}
    first = small_llama(VOCABULARY, **sizes, seed=7)
    torch.rand(3)
    state = torch.random.get_rng_state()
    second = small_llama(VOCABULARY, **sizes, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    with pytest.raises(RecipeError, match="heads"):
        small_llama(VOCABULARY, hidden=30, heads=4)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_small_model_of_another_family_has_the_sizes_that_are_asked_for(family: str) -> None:
    made = small_llama(VOCABULARY, family=family, hidden=16, layers=3, heads=2, max_positions=40)
    assert made.config.model_type == family
    assert (made.config.num_hidden_layers, made.config.num_attention_heads) == (3, 2)
    assert made.get_input_embeddings().weight.shape == (VOCABULARY.size, 16)
    assert made.config.eos_token_id == VOCABULARY.eos_id
    assert max_positions(made) == 40


def test_the_summary_counts_what_trains():
    model = tiny_model()
    total = sum(p.numel() for p in model.parameters())
    whole = f"{total:,} of {total:,} parameters train: base weights {total:,}"
    assert trainable_summary(model) == whole
    model.requires_grad_(False)
    assert trainable_summary(model) == f"0 of {total:,} parameters train"
    adapted = trainable_summary(trained("llama"))
    found = [words in adapted for words in ("LoRA", "new token rows", "base weights")]
    assert found == [True, True, False]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_switched_off_saved_and_merged(kind, tied, tmp_path):
    batch, base = tiny_batch(), tiny_lm(kind, tied=tied)
    expected = tiny_model(kind, tied=tied).response_logits(batch)
    fresh = add_adapter(tiny_model(kind, tied=tied)).eval()
    torch.testing.assert_close(fresh.response_logits(batch), expected)

    student = trained(kind, tied=tied)
    adapted = student.response_logits(batch).detach()
    assert (adapted - expected).abs().max() > 1e-3
    student.train()
    with adapter_disabled(student):
        seen = student.response_logits(batch)
        assert not student.training
    assert not seen.requires_grad
    assert student.training
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-6)

    save_adapter(student.eval(), tmp_path, base="some/base")
    again = load_adapter(tiny_lm(kind, tied=tied), VOCABULARY, tmp_path).eval()
    assert torch.equal(again.response_logits(batch), adapted)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors", ".json"}

    merged = merge_adapter(student)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged.response_logits(batch), adapted, rtol=0, atol=1e-5)
    before, after = (lm.get_input_embeddings().weight.detach() for lm in (base, merged.bare))
    moved = (after - before).abs().amax(1)
    assert not moved[: VOCABULARY.shape.base_size].any()  # text rows do not train, speech rows do
    assert (moved[VOCABULARY.speech_base : VOCABULARY.size] > 1e-4).float().mean() > 0.8


def test_adapters_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="add_adapter"), adapter_disabled(tiny_model()):
        pass
    with pytest.raises(RecipeError, match="add_adapter"):
        merge_adapter(tiny_model())
    with pytest.raises(RecipeError, match="merge"):
        add_adapter(trained("llama"))
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(MissingModelError, match="safetensors"):
        load_adapter(tiny_lm("llama"), VOCABULARY, tmp_path)


def test_a_kind_that_is_in_no_table_keeps_its_own_logits():
    """Gemma 2 bends its logits (softcap)."""
    causal_lm = other_lm("gemma2", head_dim=16, final_logit_softcapping=0.5)
    [row] = random_rows(VOCABULARY, seed=0, rows=1, responses=1)
    logits = CaptionModel(causal_lm, VOCABULARY).response_logits(batch_of([row]))
    ids = torch.tensor([[*row.prompt_ids, *row.responses[0]]])
    expected = causal_lm(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert logits.abs().max() < 0.5
    with pytest.raises(RecipeError, match="no LoRA targets known for 'gemma2'"):
        family_of(causal_lm)


def test_models_that_cannot_read_speech_are_refused():
    with pytest.raises(RecipeError, match="position_ids"):
        CaptionModel(other_lm("bloom", n_layer=1, n_head=2), VOCABULARY)
    with pytest.raises(RecipeError, match="add_speech_tokens"):
        CaptionModel(tiny_lm("gpt2"), tiny_vocabulary(codebooks=2))


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_prompt_beyond_the_position_table_is_an_error_not_a_crash(kind):
    model = tiny_model(kind)
    longest = model.bare.config.max_position_embeddings
    model.response_logits(batch_of([SharedPromptRow((0,) * (longest - 1), ((0, 1),))]))
    with pytest.raises(DataError, match=str(longest + 1)):
        model.response_logits(batch_of([SharedPromptRow((0,) * longest, ((0, 1),))]))


def test_a_model_that_is_not_here_says_what_to_fetch(monkeypatch, tmp_path):
    def refuse(*_: object) -> None:
        raise AssertionError("looked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(MissingModelError, match="hf download nobody/no-such-model") as caught:
        load_causal_lm("nobody/no-such-model")
    assert "\n" not in str(caught.value)
    causal_lm = tiny_lm("gpt2")
    causal_lm.config.save_pretrained(tmp_path)
    with pytest.raises(MissingModelError, match=r"needs config\.json, model\.safetensors"):
        load_causal_lm(str(tmp_path))
    torch.save(causal_lm.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(MissingModelError, match="pickled"):
        load_causal_lm(str(tmp_path))


def test_a_pretrained_folder_opens_with_its_tokenizer(tmp_path):
    tiny_lm("gpt2").save_pretrained(tmp_path)
    tokenizer = train_text_tokenizer(TEXTS * 4, 320)
    roles = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(tmp_path)
    causal_lm, vocabulary = open_backbone(str(tmp_path), codebook_size=16)
    assert (vocabulary.shape.bos, vocabulary.shape.pad) == ("<s>", "<pad>")
    assert vocabulary.text_vocab_size == tokenizer.get_vocab_size()
    add_speech_tokens(causal_lm, vocabulary)
    assert CaptionModel(causal_lm, vocabulary).device == torch.device("cpu")
