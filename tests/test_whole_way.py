"""From recordings to a served model, by the commands that a user types and the paper's recipes.

LLaMA and SpeechTokenizer have random weights; SpeechTokenizer has its published shape.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import read_rows, read_source
from aligncap.audio import load as load_sound
from aligncap.captioner.captioner import StudentInput, load, open_generator
from aligncap.captioner.checkpoint import load_torch, load_vocabulary, read_meta
from aligncap.captioner.model import adapter_disabled
from aligncap.preference.examples import read_preferences
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.cache import TokenCache
from speech_tokenizers.conftest import official_module  # noqa: F401  # a fixture
from support.pipeline import (
    FEELINGS,
    OFFICIAL,
    Way,
    save_llama,
    save_speech_tokenizer,
    write_recordings,
)
from support.server import completing, serving

pytestmark = pytest.mark.slow

SMALL = (
    *("training.steps=4", "training.accumulation=1", "training.warmup_steps=1"),
    *("training.learning_rate=3e-3", "training.log_every=2", "limits.max_tokens=12"),
    *("model.dtype=float32", "training.precision=float32"),
)
"""What is changed of the paper's recipes so that they take seconds."""


@pytest.fixture(scope="module")
def way(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, example_clips: list[Path]
) -> Way:
    """All of the way, walked once."""
    way = Way(tmp_path_factory.mktemp("way"), repository / "recipes" / "paper", {})
    write_recordings(way["mine"], example_clips[:6])
    weights, base = save_speech_tokenizer(way["tokenizer"]), save_llama(way["llama"])
    rows, said = f'data.rows=["{way["rows"]}/rows.jsonl"]', way.said
    corpus, tokens = way["corpus"], way["tokens"]
    said["corpus"] = way.run("corpus", "folder", way["mine"], "-o", corpus, "--split", "random")
    said["tokens"] = way.run(
        *("tokens", corpus / "manifest.jsonl", "--tokenizer", "speechtokenizer"),
        *("--weights", weights, "-o", tokens),
    )
    way.train(
        *("rows", f'data=["{corpus}/train.jsonl"]', f'validation=["{corpus}/validation.jsonl"]'),
        # Clues of labels, too: of captions alone so small a model learns to claim nothing.
        *(f'tokens="{tokens}"', f'tokenizer.weights="{weights}"', 'act="known"'),
    )
    way.train("warmup", *SMALL, rows, f'model.base="{base}"')
    way.run("merge", way["warmup"] / "model", way["warmed"])
    way.train("kd", *SMALL, rows, "model.base=none", f'model.start="{way["warmed"]}"')
    said["candidates"] = way.run(
        *("prefer", "candidates", corpus / "train.jsonl", "--store", way["prefer.sqlite"]),
        *("--model", way["kd"] / "model", "--tokenizer-weights", weights),
        *("--method", "sample", "--count", 4),
    )
    said["judge"] = way.run("prefer", "judge", way["prefer.sqlite"])
    said["pairs"] = way.run("prefer", "pairs", way["prefer.sqlite"], "--margin", 0.01)
    said["rows"] = way.run(
        *("prefer", "rows", way["prefer.sqlite"], way["preferences.jsonl"]),
        *("--rows", way["rows"] / "rows.jsonl"),
    )
    preferred = f'data.rows=["{way["preferences.jsonl"]}"]'
    way.train("dpo", *SMALL, preferred, f'model.start="{way["kd"]}/model"')
    way.run("merge", way["dpo"] / "model", way["merged"])
    return way


@pytest.fixture
def clip(way: Way) -> Path:
    return way["mine"] / "clip03.wav"


def prompts_of(way: Way, model: Path) -> dict[str, tuple[int, ...]]:
    """The prompt of each clip, written out here: bos, <speech> codes </speech>, the instruction."""
    known = load_vocabulary(model)
    instruction = known.encode_text("Describe the speaker's emotion and voice in one sentence.\n")
    spoken = {
        row.id.removesuffix("#0"): [known.speech_base + int(code) for code in row.speech[0]]
        for row in read_rows(way["rows"] / "rows.jsonl")
    }
    return {
        name: (known.bos_id, known.speech_open_id, *ids, known.speech_close_id, *instruction)
        for name, ids in spoken.items()
    }


def logits_of(causal_lm: Any, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = causal_lm(input_ids=torch.tensor([ids])).logits[0]
    return found


def test_the_corpus_is_split_and_all_of_it_is_tokenised(way: Way) -> None:
    assert "12 clips" in way.said["corpus"]
    assert "faults: none" in way.said["corpus"]
    assert way.said["tokens"].endswith("12 clips encoded, 0 there already, 0 failed\n")


def test_the_tokens_are_those_of_the_official_package(way, official_module) -> None:  # noqa: F811
    """The first of eight codebooks, from the same checkpoint."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        model = official_module.SpeechTokenizer(OFFICIAL).eval()
    state = torch.load(way["tokenizer"] / "SpeechTokenizer.pt", weights_only=True)
    model.load_state_dict(state, strict=False)
    with TokenCache(way["tokens"], open_tokenizer("speechtokenizer", way["tokenizer"])) as cache:
        for name in ("clip00", "clip07"):
            samples = load_sound(way["mine"] / f"{name}.wav").samples
            with torch.no_grad():
                codes = model.encode(torch.from_numpy(samples)[None, None], n_q=1)
            np.testing.assert_array_equal(cache.get(name).codes, codes[:, 0].numpy())


def test_rows_are_the_clips_of_train_and_validation(way: Way) -> None:
    rows = {row.id.removesuffix("#0"): row for row in read_rows(way["rows"] / "rows.jsonl")}
    for split in ("train", "validation"):
        lines = (way["corpus"] / f"{split}.jsonl").read_text("utf-8").splitlines()
        told = {one["id"]: one for one in map(json.loads, lines)}
        assert {name for name, row in rows.items() if row.split == split} == told.keys() != set()
        for name, one in told.items():
            assert rows[name].captions["en"] == (FEELINGS[one["emotion"]],)
            assert one["emotion"] in rows[name].act["en"]
    source = read_source(way["rows"] / "rows.jsonl")
    assert (source.name, source.codebooks, source.codebook_size) == ("speechtokenizer", 1, 1024)
    codes = [row.speech for row in rows.values()]
    assert {one.shape for one in codes} == {(1, 30)}  # 0.6 s at 50 Hz
    assert max(one.max() for one in codes) < 1024
    assert len(np.unique(np.concatenate(codes, axis=1))) > 30


def test_with_the_adapter_off_the_student_is_its_base(way: Way) -> None:
    student, base = load_torch(way["kd"] / "model"), load_torch(way["warmed"])
    ids = (1, *load_vocabulary(way["warmed"]).encode_text("Feeling sad, low, and slow\n"))
    expected = logits_of(base.causal_lm, ids)
    with adapter_disabled(student):
        torch.testing.assert_close(logits_of(student.causal_lm, ids), expected)
    spoken = next(iter(prompts_of(way, way["warmed"]).values()))
    moved = logits_of(student.causal_lm, spoken) - logits_of(base.causal_lm, spoken)
    assert moved.abs().max() > 1e-3


def test_candidates_are_judged_paired_and_become_rows(way: Way) -> None:
    lines = (way["corpus"] / "train.jsonl").read_text("utf-8").splitlines()
    assert f"{len(lines)} clips added, 0 there already, 0 failed" in way.said["candidates"]
    rows, source = read_preferences([way["preferences.jsonl"]])
    assert source == read_source(way["rows"] / "rows.jsonl")
    count = sum(len(row.pairs) for row in rows)
    assert f"{count} pairs of " in way.said["pairs"]
    assert count > 4
    known = {row.id: row for row in read_rows(way["rows"] / "rows.jsonl")}
    for row in rows:
        np.testing.assert_array_equal(row.clip.speech, known[row.clip.id].speech)
        assert row.emotion in known[row.clip.id].act["en"]


def test_dpo_moved_the_adapter_and_nothing_else(way: Way) -> None:
    before, after = (
        dict(load_torch(way[name] / "model").causal_lm.named_parameters()) for name in ("kd", "dpo")
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert all("lora" in name or "trainable_tokens" in name for name in moved)
    assert moved >= {name for name in before if "lora_B" in name} != set()


def test_the_merged_model_has_the_adapters_logits(way: Way) -> None:
    from transformers import AutoModelForCausalLM

    adapted = load_torch(way["dpo"] / "model").causal_lm
    plain = AutoModelForCausalLM.from_pretrained(way["merged"], local_files_only=True)
    for ids in list(prompts_of(way, way["merged"]).values())[:3]:
        found, expected = logits_of(plain, ids), logits_of(adapted, ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_the_documented_prompt_is_the_ids_and_gives_the_caption(way, clip, repository) -> None:
    """docs/deploy.md, word for word, in plain transformers."""
    from transformers import AutoTokenizer

    vocabulary = load_vocabulary(way["merged"])
    tokenizer = AutoTokenizer.from_pretrained(way["merged"], local_files_only=True)
    ids = tokenizer.convert_tokens_to_ids([f"<speech_0_{code}>" for code in (0, 17, 1023)])
    assert ids == [vocabulary.speech_base + code for code in (0, 17, 1023)]
    tokens = open_tokenizer("speechtokenizer", way["tokenizer"])
    codes = tokens.encode(load_sound(clip)).codes[0]
    documented = (
        "<s><speech><speech_0_17><speech_0_901>…</speech>"
        "Describe the speaker's emotion and voice in one sentence.\\n"
    )
    page = (repository / "docs" / "deploy.md").read_text("utf-8")
    assert f"\n    {documented}\n" in page
    spoken = "".join(f"<speech_0_{code}>" for code in codes)
    prompt = documented.replace("<speech_0_17><speech_0_901>…", spoken).replace("\\n", "\n")
    shown = documented.replace("<speech_0_17><speech_0_901>", "<speech_0_0>")
    card = (way["merged"] / "README.md").read_text("utf-8")
    assert f"\n    {shown}\n" in card
    assert "Send ids" not in card

    batch = tokenizer(prompt)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert tuple(batch.input_ids) == prompts_of(way, way["merged"])[clip.stem]

    example = page.split("```python\n", 1)[1].split("```", 1)[0]
    said: list[str] = []
    names = {"prompt": prompt, "print": said.append}
    exec(example.replace('"merged"', repr(str(way["merged"]))), names)  # the page's own lines
    generator = open_generator(way["merged"])
    asked = StudentInput(tokens.encode(load_sound(clip)), "", "")  # no plan, as on the page
    [[ours]] = generator.generate([asked], language="en", options=generator.options(1))
    assert said[0].strip() == ours.text != ""


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_exported_it_captions_without_torch(way: Way, clip: Path, quantization: str) -> None:
    out = way[f"exported-{quantization}"]
    way.run("export", way["merged"], out, "--quantization", quantization)
    text = load(out, tokenizer_path=way["tokenizer"]).caption(clip).text
    assert text
    if quantization == "float32":
        merged = load(way["merged"], tokenizer_path=way["tokenizer"])
        assert text == merged.caption(clip).text


def test_a_server_of_completions_gives_the_same_caption(way: Way, clip: Path) -> None:
    name = read_meta(way["merged"]).name
    with serving(completing(way["merged"], name=name)) as server:
        printed = way.run(
            *("caption", clip, "--model", way["merged"], "--endpoint", server.url),
            *("--tokenizer-weights", way["tokenizer"], "--format", "jsonl"),
        )
    sent = {tuple(asked.body["prompt"]) for asked in server.asked}
    [ids], prompt = sent, prompts_of(way, way["merged"])[clip.stem]
    assert ids[: len(prompt)] == prompt
    plan = load_vocabulary(way["merged"]).decode(ids[len(prompt) :])
    assert re.fullmatch(r"f\d+ \d+\|", plan.strip())
    assert json.loads(printed)["caption"]


def test_without_the_tokenizers_weights_it_says_what_to_fetch(way: Way, clip: Path) -> None:
    told = way.run("caption", clip, "--model", way["merged"], fails=2)
    cures = ("hf download fnlp/SpeechTokenizer", "--tokenizer-weights FOLDER", "merged/encoder")
    assert [one for one in cures if one not in told] == []
    (way["merged"] / "encoder").symlink_to(way["tokenizer"])
    try:
        assert "0.6 s" in way.run("caption", clip, "--model", way["merged"])
    finally:
        (way["merged"] / "encoder").unlink()


def test_the_loop_in_one_command(way: Way) -> None:
    """recipes/paper/prefer.toml, with diverse beams and rows that are there; from the model after
    DPO. Its beams may claim nothing: the corpus' captions are candidates too."""
    recipe = way.recipes / "prefer.toml"
    changes = (
        f'start="{way["dpo"]}/model"',
        f'data.rows="{way["rows"]}/rows.jsonl"',
        f'data.manifests=["{way["corpus"]}/manifest.jsonl"]',
        f'data.facts="{way["rows"]}/facts.jsonl"',
        'data.languages=["en"]',
        "pairs.least_margin=0.01",
        "pairs.gold=true",
        f'learn.recipes="{way.recipes}"',
        f"learn.dpo={json.dumps(SMALL)}",
    )
    printed = way.run("prefer", "run", recipe, "-o", way["loop"], changes=changes)
    assert json.loads(printed)["model"] == str(way["loop"] / "round-1" / "dpo" / "model")
