"""A trained folder becomes one that captions without torch, or a plain checkpoint."""

import json
import os
import platform
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
    ct2 = {f"ct2/{name}" for name in ("config.json", "model.bin", "vocabulary.json")}
    assert found == {"README.md", "aligncap.json", "tokenizer.json", "encoder.onnx", *ct2}
    before, after = read_meta(trained), read_meta(exported)
    assert after.provenance["quantization"] == "float32"
    assert replace(after, provenance=before.provenance) == before
    names = json.loads((exported / "ct2" / "vocabulary.json").read_text("utf-8"))
    assert names == load_vocabulary(exported).token_names()


def test_an_exported_model_can_be_trained_further(trained, exported):
    before, after = (load_torch(one).causal_lm for one in (trained, exported))
    rows = load_vocabulary(trained).text_vocab_size
    whole, again = before.state_dict(), after.state_dict()
    assert whole.keys() == again.keys()
    for name, weight in whole.items():
        kept = slice(rows) if name.startswith("lm_head") else slice(None)  # no speech is written
        torch.testing.assert_close(again[name][kept], weight[kept], rtol=0, atol=0)
    assert after.config.rms_norm_eps == before.config.rms_norm_eps
    assert not after.config.tie_word_embeddings


def test_of_int8_weights_each_is_off_by_a_step_at_most(trained, tmp_path):
    export(trained, tmp_path / "int8", quantization="int8")
    before, after = (load_torch(one).causal_lm for one in (trained, tmp_path / "int8"))
    weight, again = (one.model.layers[1].self_attn.k_proj.weight for one in (before, after))
    # Of 63, the largest whose products are exact on every processor; rounded twice, to 127 first.
    step = weight.abs().amax(dim=1, keepdim=True) / 63
    assert ((again - weight).abs() <= 0.75 * step).all()
    assert ((again / step).round() - again / step).abs().max() < 1e-3
    assert not torch.equal(again, weight)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 processors")
def test_the_words_of_mini_do_not_depend_on_the_processor(example_clips):
    """As a processor without VNNI writes them, and as this one does."""
    command = [sys.executable, "-m", "aligncap", "caption", *map(str, example_clips)]
    command += ["--format", "jsonl", "--candidates", "3"]
    said = []
    for isa in ("AVX2", ""):
        asked = {"CT2_FORCE_CPU_ISA": isa, "ONEDNN_MAX_CPU_ISA": isa or "ALL"}
        environment = {**os.environ, **asked}
        if not isa:
            del environment["CT2_FORCE_CPU_ISA"]
        ran = subprocess.run(command, env=environment, capture_output=True, check=True)
        said.append(ran.stdout)
    assert said[0] == said[1]


def test_weights_of_halves_are_not_trained_further(trained, tmp_path):
    export(trained, tmp_path / "half", quantization="float16")
    with pytest.raises(RecipeError, match="export with int8 or float32"):
        load_torch(tmp_path / "half")


def test_both_folders_caption_alike_and_one_without_torch(trained, exported, example_clips):
    clips = [str(clip) for clip in example_clips]
    with_torch, without = (
        [(one.text, *one.candidates) for one in load(folder).caption(clips, candidates=3)]
        for folder in (trained, exported)
    )
    assert with_torch == without
    code = (
        "import sys, aligncap\n"
        f"print(aligncap.load({str(exported)!r}).caption({clips[0]!r}).text)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{with_torch[0][0]}\nset()\n"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_an_adapter_is_merged_first(kind, tmp_path):
    base, vocabulary = str(tmp_path / "base"), tiny_vocabulary()
    tiny_lm(kind).save_pretrained(base)
    meta = tiny_meta(base=base, weights="adapter", act_mode="none")
    meta = replace(meta, tokenizer=replace(meta.tokenizer, name="mimi"))  # which is not exported
    save(tmp_path / "model", random_adapter(tiny_model(kind), deviation=0.3), meta)
    done = export(tmp_path / "model", tmp_path / "out", quantization="float32")
    assert (done.weights, done.base, done.provenance["base"]) == ("full", "", base)
    rules = ResponseRules.of(vocabulary)
    prompts = [row.prompt_ids for row in random_rows(vocabulary, seed=2, rows=4, responses=1)]
    with_torch, without = (
        [[h.ids for h in row] for row in runtime.generate(prompts, BEAMS)]
        for runtime in (
            TorchRuntime(load_torch(tmp_path / "model").causal_lm, rules),
            CT2Runtime(tmp_path / "out" / "ct2", rules),
        )
    )
    assert with_torch == without


BEAMS = DecodeOptions(beam_size=3, captions=3, max_length=20)


def test_rows_that_stand_for_nothing_are_named(tmp_path):
    """A backbone padded to a multiple of 64 rows converts as well."""
    lm = tiny_lm("llama")
    lm.resize_token_embeddings(384, mean_resizing=False)
    convert(lm, tiny_vocabulary(), tmp_path / "ct2", quantization="int8")
    names = json.loads((tmp_path / "ct2" / "vocabulary.json").read_text("utf-8"))
    assert len(names) == len(set(names)) == 384


def test_what_ctranslate2_cannot_run_is_refused(trained, tmp_path):
    kind, heads = tiny_lm("llama"), tiny_lm("llama")
    kind.config.__class__ = type("UnheardOfConfig", (type(kind.config),), {})
    heads.config.head_dim = 24
    for lm, said in ((kind, "UnheardOf"), (heads, "torch")):
        with pytest.raises(RecipeError, match=said):
            convert(lm, tiny_vocabulary(), tmp_path / "ct2", quantization="int8")
    with pytest.raises(UnknownNameError, match="int8"):
        export(trained, tmp_path / "out", quantization="int9")


def test_a_model_without_its_encoder_is_not_exported(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "encoder" / "encoder.onnx").unlink()
    with pytest.raises(MissingModelError, match=r"encoder\.onnx"):
        export(tmp_path / "model", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_folder_of_something_else_is_not_overwritten(trained, exported, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for out, said in (
        (tmp_path, "something else"),
        (trained, "is the model itself"),
        (tmp_path / "thesis.txt", r"thesis\.txt"),
    ):
        for change in (export, merge_folder):
            with pytest.raises(DataError, match=said):
                change(trained, out)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    export(trained, exported, quantization="float32")  # an earlier export is replaced


CODES = [[3, 1, 4, 1, 5, 9, 2, 6], [15, 0, 15], [7]]


@pytest.fixture(params=[("llama", False), ("gpt2", True)], ids=["llama", "gpt2, tied"])
def adapted(request, tmp_path) -> Path:
    """An adapter with opinions over a base beside it."""
    torch.manual_seed(1)
    model = tiny_model(request.param[0], tied=request.param[1])
    model.bare.get_output_embeddings().weight.data.mul_(8.0)
    base = str(tmp_path / "base")
    save(tmp_path / "base", model, tiny_meta())
    meta = tiny_meta(weights="adapter", base=base)
    save(tmp_path / "model", random_adapter(model, deviation=0.3), meta)
    return tmp_path / "model"


def test_plain_transformers_says_what_our_runtime_says(adapted: Path, tmp_path: Path):
    meta = merge_folder(adapted, tmp_path / "merged")
    # The base is a model of ours: its folder would say nothing on another machine.
    assert (meta.weights, meta.provenance["base"]) == ("full", "tiny")

    vocabulary = load_vocabulary(adapted)
    builder = PromptBuilder(vocabulary, meta.prompts)
    options = DecodeOptions(beam_size=1, min_length=3, max_length=meta.limits.max_tokens)
    rules = ResponseRules.of(vocabulary, meta.limits.stop_characters)
    runtime = TorchRuntime(load_torch(adapted).causal_lm, rules)

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
        [[ours]] = runtime.generate([prompt], options)
        assert said == list(ours.ids)
        assert max(said) < vocabulary.text_vocab_size
        text_ids = [i for i in said if i != vocabulary.eos_id]
        assert vocabulary.decode(said) == tokenizer.decode(text_ids)


def test_a_merged_model_is_still_one_of_ours(trained: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merge_folder(trained, merged)
    merge_folder(trained, merged)  # over an earlier one
    assert load_torch(merged).vocabulary.token_names() == load_vocabulary(trained).token_names()
    files = {file.suffix for file in merged.rglob("*") if file.is_file()}
    assert files <= {".json", ".safetensors", ".md", ".jinja", ".onnx"}
    card = (merged / "README.md").read_text("utf-8")
    assert "vllm serve FOLDER --served-model-name tiny" in card
    assert "<speech><speech_0_0>…</speech>Say how." in card
