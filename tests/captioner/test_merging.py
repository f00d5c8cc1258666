"""A merged model in plain transformers: the same ids, the same captions, and still one of ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligncap.captioner.checkpoint import load_torch, load_vocabulary, read_meta, save
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.export import merge_folder, prompt_text
from aligncap.captioner.model import AdapterSettings, CaptionModel, add_adapter
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.errors import DataError
from aligncap.values import SpeechTokens
from captioner.test_checkpoint import tiny_meta
from captioner.tiny import tiny_lm, tiny_vocabulary

CODES = [[3, 1, 4, 1, 5, 9, 2, 6], [15, 0, 15], [7]]


def trained_folder(kind: str, folder: Path, *, tied: bool) -> Path:
    """An adapter with opinions over a base beside it."""
    torch.manual_seed(1)
    base = folder / "base"
    lm = tiny_lm(kind, tied=tied)
    lm.get_output_embeddings().weight.data.mul_(8.0)
    save(base, CaptionModel(lm, tiny_vocabulary()), tiny_meta())
    model = add_adapter(load_torch(base), AdapterSettings(rank=2))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "trainable_tokens" not in name:
            parameter.data.normal_(0, 0.3)
    save(folder / "model", model, tiny_meta(weights="adapter", base=str(base)))
    return folder / "model"


@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("gpt2", True)])
def test_plain_transformers_says_what_our_runtime_says(kind: str, tied: bool, tmp_path: Path):
    model = trained_folder(kind, tmp_path, tied=tied)
    meta = merge_folder(model, tmp_path / "merged")
    assert meta.weights == "full"
    # The base is a model of ours: its folder would say nothing on another machine.
    assert meta.provenance["base"] == "tiny"

    vocabulary = load_vocabulary(model)
    builder = PromptBuilder(vocabulary, meta.prompts)
    rules = ResponseRules(vocabulary.text_rows, vocabulary.stop_ids(meta.limits.stop_characters))
    options = DecodeOptions(beam_size=1, min_length=3, max_length=meta.limits.max_tokens)
    runtime = TorchRuntime(load_torch(model).causal_lm, rules)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged", local_files_only=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    for codes, language, act in zip(CODES, ("en", "zh", "en"), ("", "低沉", "Calm"), strict=True):
        prompt = builder.student(SpeechTokens(np.array([codes])), language=language, act=act).ids
        written = "".join(f"<speech_0_{code}>" for code in codes)
        text = f"{vocabulary.shape.bos}{act}{'。' if act else ''}<speech>{written}</speech>"
        text += meta.prompts.instructions[language]
        assert prompt_text(vocabulary, prompt) == text
        batch = tokenizer(text, return_tensors="pt")
        assert batch.input_ids[0].tolist() == list(prompt)

        ids = plain.generate(batch.input_ids, attention_mask=batch.attention_mask)[0]
        said = ids[len(prompt) :].tolist()
        ((ours,),) = runtime.generate([prompt], options)
        assert said == list(ours.ids)
        assert max(said) < vocabulary.text_rows
        assert vocabulary.decode(said) == tokenizer.decode(
            [i for i in said if i != vocabulary.eos_id]
        )


def test_it_is_still_a_model_of_ours(tmp_path: Path) -> None:
    model = trained_folder("llama", tmp_path, tied=True)
    merge_folder(model, tmp_path / "merged")
    merge_folder(model, tmp_path / "merged")  # over an earlier one
    again = load_torch(tmp_path / "merged")
    assert again.vocabulary.token_names() == tiny_vocabulary().token_names()
    assert read_meta(tmp_path / "merged").weights == "full"
    files = {file.suffix for file in (tmp_path / "merged").rglob("*") if file.is_file()}
    assert files <= {".json", ".safetensors", ".md", ".jinja"}
    card = (tmp_path / "merged" / "README.md").read_text("utf-8")
    assert "vllm serve FOLDER --served-model-name tiny" in card
    assert "<speech><speech_0_0>…</speech>Say how." in card


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    model = tmp_path / "model"
    save(model, CaptionModel(tiny_lm("llama"), tiny_vocabulary()), tiny_meta())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").touch()
    with pytest.raises(DataError, match="something else"):
        merge_folder(model, tmp_path / "letters")
    with pytest.raises(DataError, match="is the model itself"):
        merge_folder(model, model)
