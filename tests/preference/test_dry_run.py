"""What dry runs say of preference recipes, against what their runs then train, hold and write."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.errors import DataError
from aligncap.preference import ppo
from aligncap.preference.examples import read_preferences, write_preference_rows
from aligncap.preference.reward import HEAD_FILE, RewardSettings
from aligncap.recipes import run_recipe
from aligncap.training.settings import FitSettings
from alignment.test_dry_run import PARTS
from support.preferences import DPO, PPO, REWARD
from support.rows import SOURCE


def recipe_of(text: str, folder: Path, preferences: Path, start: Path) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text.replace("nowhere", str(preferences)) + f'[model]\nstart = "{start}"\n')
    return path


def plan_of(recipe: Path, **more: Any) -> Any:
    return run_recipe(recipe, dry_run=True, **more)["plan"]


def written(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


@pytest.mark.parametrize("text", [DPO, REWARD, PPO], ids=["dpo", "reward", "ppo"])
def test_what_a_plan_counts_is_what_the_run_trains_and_writes(
    text: str, tmp_path: Path, preferences: Path, start: Path
) -> None:
    recipe, output = recipe_of(text, tmp_path, preferences, start), tmp_path / "run"
    plan = plan_of(recipe, output=output)
    assert set(plan) == PARTS
    json.dumps(plan)
    assert not output.exists()
    assert all(one["present"] for one in plan["loads"])
    summary = run_recipe(recipe, output=output)
    counts, disk = plan["parameters"], plan["disk_bytes"]
    told = f"{counts['trained']:,} of {counts['total']:,} parameters train"
    assert str(summary["trained"]).startswith(told)
    assert disk["checkpoints"] == pytest.approx(3 * written(output / "checkpoint-4", "*"), rel=0.1)
    assert disk["model"] == pytest.approx(written(output / "model", "*.safetensors"), rel=0.05)
    assert (counts["groups"].get("head", 0) > 0) == (text != DPO)


def test_what_is_missing_or_would_be_refused_is_named(tmp_path, preferences, start) -> None:
    plan = plan_of(recipe_of(DPO, tmp_path, tmp_path / "absent.jsonl", start))
    assert plan["loads"][0]["cure"].startswith("make it with a recipe of kind 'prefer'")
    assert plan["parameters"]
    rows, _ = read_preferences([preferences])
    path = tmp_path / "rows.jsonl"
    recipe = recipe_of(DPO, tmp_path, path, start)
    write_preference_rows(path, SOURCE, [replace(row, pairs=()) for row in rows])
    with pytest.raises(DataError, match="none of 60 preference rows of split 'train' holds a pair"):
        plan_of(recipe)
    # The start was warmed up on captions alone, so any codebook will do.
    write_preference_rows(path, replace(SOURCE, codebook_size=13), rows)
    assert plan_of(recipe)["parameters"]


def test_frozen_models_beside_the_policy_take_their_weights(tmp_path, preferences, start) -> None:
    def plan(**changes: Any) -> Any:
        settings = ppo.PpoSettings(
            data=DataSettings(rows=(preferences,)),
            training=FitSettings(precision="float32", steps=1, learning_rate=1e-3),
            model=ModelSettings(start=start),
            batch=ppo.RolloutBatchSettings(rows=4, captions=3),
            **changes,
        )
        return ppo.plan(settings, tmp_path)

    alone, reward = plan(), RewardSettings(name="model", model=tmp_path / "reward")
    memory, head = alone["memory_bytes"], alone["parameters"]["groups"]["head"]
    # The value head, and its coefficient in float64.
    assert memory["weights"] == memory["frozen"] + 4 * head + 8
    absent = plan(reward=reward)
    assert absent["memory_bytes"] == memory
    assert absent["loads"][-1]["cure"] == "train it with a recipe of kind 'reward'"
    assert "its bytes are not counted" in absent["notes"][0]
    shutil.copytree(start, tmp_path / "reward")
    save_file({"weight": torch.zeros(1, 8)}, tmp_path / "reward" / HEAD_FILE)
    judged = plan(reward=reward)["memory_bytes"]
    assert judged["frozen"] == 2 * memory["frozen"]
    assert judged["total"] == memory["total"] + memory["frozen"]
