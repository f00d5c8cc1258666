"""A trained folder becomes one that captions without torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aligncap.captioner.checkpoint import load_torch, load_vocabulary, read_meta, save
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.export import convert, export
from aligncap.captioner.loading import load
from aligncap.captioner.model import AdapterSettings, add_adapter
from aligncap.captioner.runtimes import CT2Runtime, DecodeOptions, ResponseRules
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from captioner.standins import write_model
from captioner.test_checkpoint import tiny_meta, tiny_model
from captioner.tiny import random_rows, tiny_lm, tiny_vocabulary

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
    adapted = add_adapter(tiny_model(kind), AdapterSettings(rank=2))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    meta = tiny_meta(base=str(base), weights="adapter", act_mode="none")
    save(tmp_path / "model", adapted, without_encoder(meta))
    done = export(tmp_path / "model", tmp_path / "out", quantization="float32")
    assert (done.weights, done.base, done.provenance["base"]) == ("full", "", str(base))
    vocabulary = tiny_vocabulary()
    rules = ResponseRules(vocabulary.text_rows, vocabulary.stop_ids())
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
