"""A trained folder becomes one that captions without torch, or a plain checkpoint."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import load_torch, load_vocabulary, read_meta, save
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.export import convert, export, merge_folder, prompt_text
from aligncap.captioner.model import AdapterSettings, CaptionModel, add_adapter
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import CT2Runtime, DecodeOptions, ResponseRules
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from aligncap.values import SpeechTokens
from support.captioner import (
    random_adapter,
    random_rows,
    tiny_lm,
    tiny_meta,
    tiny_model,
    tiny_vocabulary,
    write_model,
)

BEAMS = DecodeOptions(beam_size=3, captions=3, max_length=20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    export(trained, out, quantization="float32")
    return out


def test_an_exported_folder_holds_what_captioning_needs(trained, exported):
    found = {str(file.relative_to(exported)) for file in exported.rglob("*") if file.is_file()}
    assert found == {
        "README.md",
        "aligncap.json",
        "tokenizer.json",
        "encoder.onnx",
        "ct2/config.json",
        "ct2/model.bin",
        "ct2/vocabulary.json",
    }
    before, after = read_meta(trained), read_meta(exported)
    assert after.provenance["quantization"] == "float32"
    assert (after.limits, after.tokenizer, after.prompts) == (
        before.limits,
        before.tokenizer,
        before.prompts,
    )
    names = json.loads((exported / "ct2" / "vocabulary.json").read_text("utf-8"))
    assert names == load_vocabulary(exported).token_names()


def test_both_folders_caption_alike(trained, exported, example_clips):
    clips = [str(clip) for clip in example_clips]
    with_torch = load(trained).caption(clips, candidates=3)
    without = load(exported).caption(clips, candidates=3)
    assert [(one.text, one.candidates) for one in with_torch] == [
        (one.text, one.candidates) for one in without
    ]


def test_captioning_with_an_exported_folder_imports_no_torch(exported, example_clips):
    code = (
        "import sys, aligncap\n"
        f"caption = aligncap.load({str(exported)!r}).caption({str(example_clips[0])!r})\n"
        "print(bool(caption.text), [n for n in ('torch', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True []\n"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_an_adapter_is_merged_first(kind, tmp_path):
    base = tmp_path / "base"
    tiny_lm(kind).save_pretrained(base)
    adapted = random_adapter(tiny_model(kind), deviation=0.3)
    meta = tiny_meta(base=str(base), weights="adapter", act_mode="none")
    save(tmp_path / "model", adapted, without_encoder(meta))
    done = export(tmp_path / "model", tmp_path / "out", quantization="float32")
    assert (done.weights, done.base, done.provenance["base"]) == ("full", "", str(base))
    vocabulary = tiny_vocabulary()
    rules = ResponseRules.of(vocabulary)
    prompts = [row.prompt_ids for row in random_rows(vocabulary, seed=2, rows=4, responses=1)]
    with_torch = TorchRuntime(load_torch(tmp_path / "model").causal_lm, rules)
    found = CT2Runtime(tmp_path / "out" / "ct2", rules).generate(prompts, BEAMS)
    assert [[h.ids for h in row] for row in with_torch.generate(prompts, BEAMS)] == [
        [h.ids for h in row] for row in found
    ]


def without_encoder(meta):
    return replace(meta, tokenizer=replace(meta.tokenizer, name="mimi"))


def test_rows_that_stand_for_nothing_are_named(tmp_path):
    """A backbone padded to a multiple of 64 rows converts as well."""
    lm = tiny_lm("llama")
    lm.resize_token_embeddings(384, mean_resizing=False)
    convert(lm, tiny_vocabulary(), tmp_path / "ct2", quantization="int8")
    names = json.loads((tmp_path / "ct2" / "vocabulary.json").read_text("utf-8"))
    assert len(names) == len(set(names)) == 384


def test_a_kind_that_ctranslate2_lacks_is_refused(tmp_path):
    lm = tiny_lm("llama")
    lm.config.__class__ = type("UnheardOfConfig", (type(lm.config),), {})
    with pytest.raises(RecipeError, match="UnheardOf"):
        convert(lm, tiny_vocabulary(), tmp_path / "ct2", quantization="int8")


def test_heads_of_another_width_are_refused(tmp_path):
    lm = tiny_lm("llama")
    lm.config.head_dim = 24
    with pytest.raises(RecipeError, match="torch"):
        convert(lm, tiny_vocabulary(), tmp_path / "ct2", quantization="int8")


def test_an_unknown_quantization_is_refused(trained, tmp_path):
    with pytest.raises(UnknownNameError, match="int8"):
        export(trained, tmp_path / "out", quantization="int9")


def test_a_folder_of_something_else_is_not_overwritten(trained, exported, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for out in (tmp_path, trained, tmp_path / "thesis.txt"):
        with pytest.raises(DataError):
            export(trained, out)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    export(trained, exported, quantization="float32")  # an earlier export is replaced


def test_a_model_without_its_encoder_is_not_exported(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "encoder" / "encoder.onnx").unlink()
    with pytest.raises(MissingModelError, match=r"encoder\.onnx"):
        export(tmp_path / "model", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


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
    rules = ResponseRules(
        vocabulary.text_vocab_size, vocabulary.stop_ids(meta.limits.stop_characters)
    )
    options = DecodeOptions(beam_size=1, min_length=3, max_length=meta.limits.max_tokens)
    runtime = TorchRuntime(load_torch(model).causal_lm, rules)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged", local_files_only=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    for codes, language, act in zip(CODES, ("en", "zh", "en"), ("", "低沉", "Calm"), strict=True):
        prompt = builder.student(SpeechTokens(np.array([codes])), language=language, act=act)
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
        assert max(said) < vocabulary.text_vocab_size
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


def test_merging_overwrites_nothing_else(tmp_path: Path) -> None:
    model = tmp_path / "model"
    save(model, CaptionModel(tiny_lm("llama"), tiny_vocabulary()), tiny_meta())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").touch()
    with pytest.raises(DataError, match="something else"):
        merge_folder(model, tmp_path / "letters")
    with pytest.raises(DataError, match="is the model itself"):
        merge_folder(model, model)
