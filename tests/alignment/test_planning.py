"""What a dry run says, of models that are here and of those that are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment import kd, warmup
from aligncap.alignment.ce import CeSettings
from aligncap.alignment.planning import plan_stage
from aligncap.alignment.settings import DataSettings, ModelSettings, SizeSettings
from aligncap.captioner.adapters import AdapterSettings
from aligncap.recipes import run_recipe
from aligncap.training import FitSettings
from alignment.test_pretrained import pretrained
from alignment.tiny_rows import write_tiny

FIT = FitSettings(steps=2, learning_rate=1e-3)
PARTS = {"loads", "parameters", "memory_bytes", "disk_bytes", "assumed", "notes"}


def planned(rows: Path, model: ModelSettings) -> dict[str, Any]:
    settings = CeSettings(data=DataSettings(rows=(rows,)), training=FIT, model=model)
    plan = dict(plan_stage(settings, hears=True))
    assert set(plan) == PARTS
    json.dumps(plan)
    return plan


def test_the_counts_are_those_of_the_run(tmp_path: Path) -> None:
    rows, base = write_tiny(tmp_path), pretrained("llama", tmp_path / "base")
    recipe = tmp_path / "kd.toml"
    recipe.write_text(
        f'kind = "kd"\n[data]\nrows = ["{rows}"]\n[model]\nbase = "{base}"\n'
        "[model.lora]\nrank = 2\n[teacher]\n[training]\nsteps = 1\nlearning_rate = 1e-3\n"
    )
    plan: Any = run_recipe(recipe, output=tmp_path / "run", dry_run=True)["plan"]
    summary = run_recipe(recipe, output=tmp_path / "run")
    counts = plan["parameters"]
    assert str(summary["trained"]).startswith(
        f"{counts['trained']:,} of {counts['total']:,} parameters train"
    )
    assert [one["present"] for one in plan["loads"]] == [True, True]
    assert plan["notes"] == []
    assert "codebook_size" not in plan["assumed"]

    # 30 clips of three captions each, at most 40 tokens long; many are alike and stored once.
    cached = sum(f.stat().st_size for f in (tmp_path / "run" / "teacher").rglob("*.npy"))
    assert 0 < cached < plan["disk_bytes"]["teacher_cache"] == 90 * (40 * (32 * 4 + 2) + 1)
    model = tmp_path / "run" / "model"
    again = planned(rows, ModelSettings(start=model))
    assert again["parameters"]["groups"] == counts["groups"]


def test_a_known_model_that_is_not_here_is_reckoned_with(tmp_path: Path) -> None:
    model = ModelSettings(base="huggyllama/llama-7b", dtype="bfloat16", lora=AdapterSettings())
    plan = planned(tmp_path / "absent.jsonl", model)
    assert [one["present"] for one in plan["loads"]] == [False, False]
    cure = plan["loads"][1]["cure"]
    assert cure.startswith("fetch it once with `hf download huggyllama/llama-7b`")
    assert plan["parameters"]["groups"]["LoRA"] == 4_194_304
    assert plan["assumed"]["codebook_size"] == 1024
    assert "published configuration" in plan["notes"][0]


@pytest.mark.parametrize(
    "model", [ModelSettings(base="nobody/knows-it"), ModelSettings(start=Path("no/such/model"))]
)
def test_what_is_not_known_is_null(model: ModelSettings, tmp_path: Path) -> None:
    plan = planned(write_tiny(tmp_path), model)
    assert plan["parameters"] is plan["memory_bytes"] is plan["disk_bytes"] is None
    assert "not known" in plan["notes"][0]


def test_a_new_model_reads_no_speech_in_warm_up(tmp_path: Path) -> None:
    settings = warmup.WarmupSettings(
        data=DataSettings(rows=(write_tiny(tmp_path),)),
        training=FIT,
        model=ModelSettings(new=SizeSettings(hidden=64, layers=2, heads=2, text_vocabulary=300)),
    )
    plan: Any = warmup.plan(settings, tmp_path)
    assert "speech_tokens" not in plan["assumed"]
    # By hand: rows, two layers of 4 h² + 3 h f + 2 norms, and the last norm; f = 192.
    expected = (300 + 2 + 12) * 64 + 2 * (4 * 64**2 + 3 * 64 * 192 + 2 * 64) + 64
    assert plan["parameters"]["total"] == expected


def test_a_teacher_of_its_own_takes_its_weights(tmp_path: Path) -> None:
    rows, base = write_tiny(tmp_path), pretrained("gpt2", tmp_path / "base")
    shared = kd.KdSettings(
        data=DataSettings(rows=(rows,)),
        training=FIT,
        model=ModelSettings(base=str(base), lora=AdapterSettings()),
    )
    assert kd.plan(shared, tmp_path)["memory_bytes"]["teacher"] == 0  # type: ignore[index]
    own = kd.KdSettings(
        data=shared.data,
        training=FIT,
        model=shared.model,
        teacher=kd.TeacherSettings(model=tmp_path / "teacher"),
    )
    plan: Any = kd.plan(own, tmp_path)
    assert plan["memory_bytes"]["teacher"] > 0
    assert {"what": "teacher", "present": False}.items() <= plan["loads"][-1].items()


def test_four_bits_and_checkpointed_layers_are_reckoned_with(tmp_path: Path) -> None:
    def memory(**changes: Any) -> dict[str, int]:
        lean = {"dtype": "bfloat16", "lora": AdapterSettings(), **changes}
        model = ModelSettings(base="huggyllama/llama-7b", **lean)
        found: dict[str, int] = planned(tmp_path / "absent.jsonl", model)["memory_bytes"]
        return found

    plain, packed = memory(), memory(quantization="nf4")
    # By hand: 32 layers of four matrices h x h and three h x f, each number 2 bytes, or half a
    # byte and a 64th of a byte and four of scale.
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    saved = matrices * (2 - 0.5 - 1 / 64 - 4 / (64 * 256))
    assert plain["weights"] - packed["weights"] == pytest.approx(saved, abs=1)
    assert packed["autocast"] == 2 * 4096 * 11008
    lean = memory(quantization="nf4", gradient_checkpointing=True)
    assert lean["total"] == lean["total_checkpointed"] == packed["total_checkpointed"]
    assert lean["total"] < packed["total"] < plain["total"]
