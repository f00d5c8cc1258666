"""What a dry run counts, against models that are really built, trained and written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from aligncap.alignment import kd
from aligncap.alignment.examples import DataSettings, write_rows
from aligncap.alignment.init_model import KNOWN_BACKBONES, ModelSettings, SizeSettings, meta_model
from aligncap.alignment.kd import CeSettings, plan_stage
from aligncap.captioner.model import (
    AdapterSettings,
    CaptionModel,
    add_adapter,
    trainable_summary,
    trained_groups,
)
from aligncap.recipes import run_recipe
from aligncap.training.checkpoints import make_optimizer
from aligncap.training.dry_run import COUNTED, checkpoints_bytes, training_memory, weight_bytes
from aligncap.training.settings import FitSettings
from alignment.test_pretrained import pretrained
from support.captioner import tiny_lm, tiny_vocabulary
from support.rows import SOURCE, tiny_rows, write_tiny

FIT = FitSettings(precision="float32", steps=2, learning_rate=1e-3)
PARTS = {"loads", "parameters", "memory_bytes", "disk_bytes", "assumed", "notes"}


def planned(
    rows: Path, model: ModelSettings, kind: type[Any] = CeSettings, **more: object
) -> dict[str, Any]:
    settings = kind(data=DataSettings(rows=(rows,)), training=FIT, model=model, **more)
    plan = dict(plan_stage(settings, rows.parent))
    assert set(plan) == PARTS
    json.dumps(plan)
    return plan


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2"])
def test_a_meta_model_is_counted_like_the_model_that_is_built(kind: str, tied: bool) -> None:
    causal_lm: Any = tiny_lm(kind, tied=tied)
    rows = causal_lm.config.vocab_size
    whole = meta_model(causal_lm.config, tiny_vocabulary())
    assert causal_lm.config.vocab_size == rows
    assert trainable_summary(whole) == trainable_summary(CaptionModel(causal_lm, tiny_vocabulary()))
    lora = AdapterSettings(rank=3)
    adapted = meta_model(causal_lm.config, tiny_vocabulary(), lora)
    built = add_adapter(CaptionModel(causal_lm, tiny_vocabulary()), lora)
    assert trainable_summary(adapted) == trainable_summary(built)
    assert set(trained_groups(adapted)) == {"LoRA", "new token rows"}
    assert {parameter.device.type for parameter in adapted.parameters()} == {"meta"}

    # What an optimiser really holds after a step.
    for parameter in built.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer = make_optimizer(built, FIT)
    optimizer.step()
    moments = [v for state in optimizer.state.values() for v in state.values() if v.ndim]
    held = sum(moment.nbytes for moment in moments)
    expected = {"optimizer": held, "gradients": held / 2, "average": held / 2, "frozen": 7}
    memory = training_memory(adapted, average=True, frozen=7)
    assert memory.items() >= (expected | {"weights": weight_bytes(built)}).items()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("huggyllama/llama-7b", 6_738_415_616),
        ("openai-community/gpt2", 124_439_808),
        ("openai-community/gpt2-large", 774_030_080),
        ("facebook/opt-1.3b", 1_315_758_080),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
    ],
)
def test_known_backbones_have_their_published_sizes(name: str, published: int) -> None:
    kind, text, config = KNOWN_BACKBONES[name]
    known = AutoConfig.for_model(kind, **config)
    assert text <= known.vocab_size
    # Without a word or a code more: as the model is published.
    model = meta_model(known, tiny_vocabulary())
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_the_counts_are_those_of_the_run(tmp_path: Path) -> None:
    rows, base = write_tiny(tmp_path), pretrained("llama", tmp_path / "base")
    recipe = tmp_path / "kd.toml"
    recipe.write_text(
        f'kind = "kd"\n[data]\nrows = ["{rows}"]\n[model]\nbase = "{base}"\n'
        "[model.lora]\nrank = 2\n[teacher]\n[training]\nsteps = 1\nlearning_rate = 1e-3\n"
    )
    plan: Any = run_recipe(recipe, output=tmp_path / "run", dry_run=True)["plan"]
    summary = run_recipe(recipe, output=tmp_path / "run")
    counts, disk = plan["parameters"], plan["disk_bytes"]
    told = f"{counts['trained']:,} of {counts['total']:,} parameters train"
    assert str(summary["trained"]).startswith(told)
    assert [one["present"] for one in plan["loads"]] == [True, True]
    assert (plan["notes"], plan["assumed"]) == ([COUNTED], {})
    assert disk["total"] == disk["checkpoints"] + disk["model"]

    def written(folder: str) -> int:
        files = (tmp_path / "run").glob(folder)
        return sum(tensor.nbytes for file in files for tensor in load_file(file).values())

    # AdamW's count of steps, a float32 of each weight, is left out.
    kept = 3 * written("checkpoint-1/*.safetensors")
    assert kept - 3 * 4 * 20 < disk["checkpoints"] <= kept
    assert disk["model"] == written("model/adapter/*.safetensors")
    again = planned(rows, ModelSettings(start=tmp_path / "run" / "model"))
    assert again["parameters"] == counts


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_goes_on_from_captions_alone_is_counted_with_the_codes_of_its_rows(
    kind: str, tmp_path: Path
) -> None:
    rows = write_tiny(tmp_path)
    texts = [replace(row, speech=None) for row in tiny_rows()]
    write_rows(tmp_path / "texts.jsonl", replace(SOURCE, codebook_size=1), texts)
    model = f'text_vocabulary = 330\nfamily = "{kind}"\nhidden = 16\nlayers = 1\nheads = 2\n'

    def run(stage: str, rows: Path, model: str, **more: Any) -> dict[str, Any]:
        recipe = tmp_path / f"{stage}.toml"
        recipe.write_text(
            f'kind = "{stage}"\n[data]\nrows = ["{rows}"]\n[model{model}\n[training]\n'
            "steps = 1\nlearning_rate = 1e-3\n"
        )
        return run_recipe(recipe, output=tmp_path / stage, **more)

    run("warmup", tmp_path / "texts.jsonl", f".new]\n{model}")
    start = f']\nstart = "{tmp_path / "warmup" / "model"}"'
    counts = run("ce", rows, start, dry_run=True)["plan"]["parameters"]
    summary = run("ce", rows, start)
    told = f"{counts['trained']:,} of {counts['total']:,} parameters train"
    assert str(summary["trained"]).startswith(told)


def test_a_known_model_that_is_not_here_is_counted(tmp_path: Path) -> None:
    known = {"base": "huggyllama/llama-7b", "dtype": "bfloat16", "lora": AdapterSettings()}
    plan = planned(tmp_path / "absent.jsonl", ModelSettings(**known))
    assert [one["present"] for one in plan["loads"]] == [False, False]
    cure = plan["loads"][1]["cure"]
    assert cure.startswith("fetch it once with `hf download huggyllama/llama-7b`")
    assert plan["parameters"]["groups"]["LoRA"] == 4_194_304
    assert plan["assumed"] == {"codebooks": 1, "codebook_size": 1024}
    assert "published configuration" in plan["notes"][0]
    # By hand: 32 layers of four matrices h x h and three h x f, each number 2 bytes, or half a
    # byte and a 64th of a byte and four of scale.
    packed = ModelSettings(**known, quantization="nf4")
    weights = planned(tmp_path / "absent.jsonl", packed)["memory_bytes"]["weights"]
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    saved = matrices * (2 - 0.5 - 1 / 64 - 4 / (64 * 256))
    assert plan["memory_bytes"]["weights"] - weights == pytest.approx(saved, abs=224)


@pytest.mark.parametrize(
    "model", [ModelSettings(base="nobody/knows-it"), ModelSettings(start=Path("no/such/model"))]
)
def test_what_is_not_known_is_null(model: ModelSettings, tmp_path: Path) -> None:
    plan = planned(write_tiny(tmp_path), model)
    assert plan["parameters"] is plan["memory_bytes"] is plan["disk_bytes"] is None
    assert "size is unknown" in plan["notes"][0]
    assert plan["loads"][-1]["cure"]


def test_a_new_model_is_counted_by_hand(tmp_path: Path) -> None:
    new = ModelSettings(new=SizeSettings(hidden=64, layers=2, heads=2, text_vocabulary=300))
    plan = planned(write_tiny(tmp_path), new, kd.WarmupSettings)
    # Rows, two layers of 4 h² + 3 h f + 2 norms, and the last norm; f = 192.
    count = (300 + 2 + 12) * 64 + 2 * (4 * 64**2 + 3 * 64 * 192 + 2 * 64) + 64
    groups = {"base weights": count}
    assert plan["parameters"] == {"total": count, "trained": count, "groups": groups}
    assert plan["memory_bytes"].items() >= {"gradients": 4 * count, "optimizer": 8 * count}.items()


def test_a_checkpoint_holds_what_trains_its_moments_and_the_average() -> None:
    model = torch.nn.BatchNorm1d(5)  # ten parameters; buffers of 5, 5 and one int64
    assert checkpoints_bytes(model, average=False) == 3 * (40 + 48 + 80)
    assert checkpoints_bytes(model, average=True) == 3 * (40 + 48 + 120)


def test_a_teacher_of_its_own_takes_its_weights(tmp_path: Path) -> None:
    rows, base = write_tiny(tmp_path), pretrained("gpt2", tmp_path / "base")
    model = ModelSettings(base=str(base), lora=AdapterSettings())
    assert planned(rows, model, kd.KdSettings)["memory_bytes"]["frozen"] == 0
    own = kd.TeacherSettings(model=tmp_path / "teacher")
    plan = planned(rows, model, kd.KdSettings, teacher=own)
    assert plan["memory_bytes"]["frozen"] == plan["memory_bytes"]["weights"]
    assert {"what": "teacher", "present": False}.items() <= plan["loads"][-1].items()


def test_a_recipe_with_the_estimates_of_old_still_opens(tmp_path: Path) -> None:
    recipe = tmp_path / "ce.toml"
    recipe.write_text(
        f'kind = "ce"\n[data]\nrows = ["{write_tiny(tmp_path)}"]\n[training]\nsteps = 1\n'
        "learning_rate = 1e-3\n[estimate]\nspeech_tokens = 400\n"
    )
    described: Any = run_recipe(recipe, output=tmp_path / "run", dry_run=True)
    assert "estimate" not in described["settings"]
