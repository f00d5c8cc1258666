"""Runs of a few steps at tiny size: every stage on made-up rows, and all of the way from recordings
to preferences. A folder is absolute or as seen from the root of the repository."""

import json
from pathlib import Path
from typing import Any

from golden.surface import CLIPS, HERE, INPUTS, ROOT, aligncap, json_lines
from support.speech_tokenizers import save_whisper

RECIPES = INPUTS / "recipes"
MANIFEST = INPUTS / "manifest.jsonl"
OLD = HERE / "old"
"""What the package wrote before its modules were moved: never written again."""
ENCODER = OLD / "model" / "encoder"


def train(recipe: str, output: Path, *changes: str, resume: bool = False) -> dict[str, Any]:
    """Run a recipe: the lines of its log and the summary it prints, without times and folders."""
    if recipe != "rows":  # which trains nothing
        # In float32 on every processor: "auto" asks what it has instructions for.
        changes = ("training.precision=float32", *changes)
    sets = [part for change in changes for part in ("--set", change)]
    sets += ["--resume"] if resume else []
    printed = aligncap("train", RECIPES / f"{recipe}.toml", "-o", output, *sets)
    # DeepSpeed, where it is installed, writes a line on standard output when it is imported.
    summary = {
        key: value
        for key, value in json.loads(printed[printed.index("{") :]).items()
        if isinstance(value, int | float) and not key.endswith("_s")
    }
    return {"log": log_of(output), "summary": summary}


def log_of(output: Path) -> list[dict[str, float]]:
    """Every number that a run logged, but the time it took."""
    log = ROOT / output / "log.jsonl"
    lines = json_lines(log.read_text("utf-8")) if log.exists() else []
    return [{key: value for key, value in line.items() if key != "elapsed_s"} for line in lines]


def stages(work: Path) -> dict[str, Any]:
    """Logs of warm-up and of all that goes on from it, by recipe."""
    found = {"warmup": train("warmup", work / "warmup")}
    start = f'model.start="{work}/warmup/model"'
    for recipe in ("ce", "kd", "kd-lora", "dpo", "dpo-lora", "reward", "ppo"):
        found[recipe] = train(recipe, work / recipe, start)
    for recipe in ("dpo", "dpo-lora"):
        # Policy and reference are one model yet: which caption is preferred is rounding.
        del found[recipe]["log"][0]["accuracy"]
    reward = f'reward.model="{work}/reward/model"'
    found["ppo-learnt"] = train("ppo-learnt", work / "ppo-learnt", start, reward)
    return found


def pipeline(work: Path, encoder: Path = ENCODER) -> dict[str, Any]:
    """From recordings to a captioner and to preference rows; the models, stores and caches stay in
    `work`. Tokens are those of `encoder`."""
    waveforms, start = f'waveforms="{work}/waveforms"', f'start="{work}/whisper"'
    save_whisper(ROOT / work / "whisper")
    cache, weights = f'tokens="{work}/cache"', f'tokenizer.weights="{encoder}"'
    rows = work / "rows" / "rows.jsonl"
    found: dict[str, Any] = {
        "encoder": train("encoder", work / "encoder", waveforms, start),
        "rows": train("rows", work / "rows", cache, weights),
    }
    found["rows"]["lines"] = json_lines((ROOT / rows).read_text("utf-8"))
    kept = f'output.encoder="{encoder}"'
    data = f'data.rows=["{rows}"]'
    longer = ("training.steps=100", "training.log_every=20", "model.new.hidden=16")
    found["warmup"] = train("warmup", work / "warmup", data, "data.languages.zh=0.2", *longer)
    found["kd"] = train(
        *("kd", work / "kd", data, kept, f'model.start="{work}/warmup/model"'),
        *(f'teacher.cache="{work}/teacher"', "teacher.top_k=4"),
    )
    model, exported = work / "kd" / "model", work / "exported"
    aligncap("export", model, exported, "--quantization", "float32")
    found["captions"] = {"torch": captions_of(model), "exported": captions_of(exported)}
    found["tokens"] = tokens(work / "tokens", encoder)
    found["printed"] = candidates(work / "store.sqlite")
    found["preferences"] = written(work / "store.sqlite", work, rows)
    return without_fingerprints(found, work)


def tokens(cache: Path, encoder: Path) -> str:
    """Tokens of the manifest by the built-in tokenizer, kept in a cache; what it prints."""
    tokenizer = ("--tokenizer", "builtin", "--weights", encoder)
    return aligncap("tokens", MANIFEST, *tokenizer, "--output", cache)


def without_fingerprints(value: Any, work: Path) -> Any:
    """The same without hashes of weights, which the last digit of a sum changes, and with the names
    WORK for the folder of the run and ROOT for the repository's."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key != "fingerprint"}
        return {key: without_fingerprints(one, work) for key, one in kept.items()}
    if isinstance(value, list):
        return [without_fingerprints(one, work) for one in value]
    if isinstance(value, str):
        return value.replace(str(work), "WORK").replace(str(ROOT), "ROOT")
    return value


def captions_of(model: Path) -> list[Any]:
    """Records of two clips in both languages by the model of a folder."""
    clips = (CLIPS / "man-plain.ogg", CLIPS / "woman-slow-soft.ogg")
    told = ("--model", model, "--format", "jsonl", "--candidates", 2)
    printed = (aligncap("caption", *clips, *told, "--language", name) for name in ("en", "zh"))
    return [record for text in printed for record in json_lines(text)]


def candidates(store: Path) -> list[str]:
    """Candidates of the manifest's clips by the first built-in model, judged; what is printed.

    By beams alone: samples of CTranslate2 depend on what its threads did before.
    """
    return [
        aligncap(
            *("prefer", "candidates", MANIFEST, "--store", store),
            *("--model", "mini-1", "--count", 8),
        ),
        aligncap("prefer", "judge", store),
    ]


def written(store: Path, work: Path, rows: Path) -> dict[str, Any]:
    """What a judged store gives: pairs, the files made of them, and how far judges agree."""
    found: dict[str, Any] = {
        "pairs": aligncap("prefer", "pairs", store, "--margin", 0.01, "--gold"),
        "agreement": aligncap("prefer", "agreement", store, "--format", "jsonl"),
    }
    aligncap("prefer", "rows", store, work / "preferences.jsonl", "--rows", rows)
    found["rows"] = json_lines((ROOT / work / "preferences.jsonl").read_text("utf-8"))
    for form in ("trl", "llama-factory"):
        aligncap("prefer", "export", store, work / f"{form}.jsonl", "--format", form)
        found[form] = json_lines((ROOT / work / f"{form}.jsonl").read_text("utf-8"))
    return found
