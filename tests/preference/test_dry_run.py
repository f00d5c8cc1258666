"""What dry runs say of preference recipes, against what their runs then train, hold and write."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.errors import DataError
from aligncap.preference import ppo
from aligncap.preference.examples import read_preferences, write_preference_rows
from aligncap.preference.ppo import PpoSettings, RolloutBatchSettings
from aligncap.preference.reward import HEAD_FILE, RewardSettings
from aligncap.recipes import run_recipe
from aligncap.training.settings import FitSettings
from alignment.test_dry_run import PARTS
from support.preferences import DPO, PPO, REWARD
from support.rows import SOURCE

FIT = FitSettings(steps=1, learning_rate=1e-3)


def recipe_of(text: str, folder: Path, preferences: Path, start: Path) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text.replace("nowhere", str(preferences)) + f'[model]\nstart = "{start}"\n')
    return path


def written(folder: Path, *names: str) -> int:
    return sum(
        file.stat().st_size for name in names for file in folder.rglob(name) if file.is_file()
    )


@pytest.mark.parametrize("text", [DPO, REWARD, PPO], ids=["dpo", "reward", "ppo"])
def test_what_a_plan_counts_is_what_the_run_trains_and_writes(
    text: str, tmp_path: Path, preferences: Path, start: Path
) -> None:
    recipe = recipe_of(text, tmp_path, preferences, start)
    output = tmp_path / "run"
    plan: Any = run_recipe(recipe, output=output, dry_run=True)["plan"]
    assert set(plan) == PARTS
    json.dumps(plan)
    assert not output.exists()
    assert all(one["present"] for one in plan["loads"])
    summary = run_recipe(recipe, output=output)
    counts, disk = plan["parameters"], plan["disk_bytes"]
    assert str(summary["trained"]).startswith(
        f"{counts['trained']:,} of {counts['total']:,} parameters train"
    )
    checkpoint = output / "checkpoint-4"
    assert disk["checkpoints"] == pytest.approx(3 * written(checkpoint, "*"), rel=0.1)
    model = written(output / "model", "*.safetensors")
    assert disk["model"] == pytest.approx(model, rel=0.05)
    head = counts["groups"].get("head", 0)
    assert (head > 0) == (text != DPO)


def test_rows_that_are_missing_are_named(tmp_path: Path, start: Path) -> None:
    plan: Any = run_recipe(
        recipe_of(DPO, tmp_path, tmp_path / "absent.jsonl", start), dry_run=True
    )["plan"]
    assert plan["loads"][0]["cure"].startswith("make it with a recipe of kind 'prefer'")
    assert plan["parameters"]


def test_what_training_would_refuse_is_refused(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    rows, _ = read_preferences([preferences])
    path = tmp_path / "rows.jsonl"
    write_preference_rows(path, SOURCE, [replace(row, pairs=()) for row in rows])
    with pytest.raises(DataError, match="none of 60 preference rows of split 'train' holds a pair"):
        run_recipe(recipe_of(DPO, tmp_path, path, start), dry_run=True)
    # The start was warmed up on captions alone, so only the codebook's size must be the same.
    write_preference_rows(path, replace(SOURCE, codebook_size=13), rows)
    with pytest.raises(DataError, match="is for speech tokens of fake"):
        run_recipe(recipe_of(DPO, tmp_path, path, start), dry_run=True)


def test_frozen_models_beside_the_policy_take_their_weights(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    def plan(**changes: object) -> dict[str, Any]:
        settings = PpoSettings(
            data=DataSettings(rows=(preferences,)),
            training=FIT,
            model=ModelSettings(start=start),
            batch=RolloutBatchSettings(rows=4, captions=3),
            **changes,  # type: ignore[arg-type]
        )
        return dict(ppo.plan(settings, tmp_path))

    alone: Any = plan()
    memory, head = alone["memory_bytes"], alone["parameters"]["groups"]["head"]
    # The value head, and its coefficient in float64.
    assert memory["weights"] == memory["frozen"] + 4 * head + 8
    absent: Any = plan(reward=RewardSettings(name="model", model=tmp_path / "reward"))
    assert absent["memory_bytes"] == memory
    assert absent["loads"][-1]["cure"] == "train it with a recipe of kind 'reward'"
    assert "its bytes are not counted" in absent["notes"][0]
    reward = tmp_path / "reward"
    shutil.copytree(start, reward)
    (reward / HEAD_FILE).touch()
    judged: Any = plan(reward=RewardSettings(name="model", model=reward))
    assert judged["memory_bytes"]["frozen"] == 2 * memory["frozen"]
    assert judged["memory_bytes"]["total"] == memory["total"] + memory["frozen"]
