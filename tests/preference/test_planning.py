"""What dry runs say of preference recipes, against what their runs then train, hold and write."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.memory import Work, memory_need
from aligncap.alignment.settings import DataSettings, EstimateSettings, ModelSettings
from aligncap.captioner.batches import SharedPromptRow, collate, to_torch
from aligncap.captioner.continuation import Continuation
from aligncap.captioner.meta import CaptionLimits
from aligncap.errors import DataError
from aligncap.preference import ppo
from aligncap.preference.dpo import DpoSettings
from aligncap.preference.planning import begin_plan
from aligncap.preference.policy import PolicyWithValue
from aligncap.preference.ppo_settings import PpoSettings, RolloutBatchSettings
from aligncap.preference.reward_model import RewardModel, read_whole
from aligncap.preference.rewards import RewardSettings
from aligncap.preference.rows import read_preferences, write_preference_rows
from aligncap.recipes import run_recipe
from aligncap.training import FitSettings
from alignment.test_memory import FLOAT, student, watched
from alignment.test_planning import PARTS
from alignment.tiny_rows import SOURCE
from preference.po_corpus import DPO, PPO, REWARD

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
    if "reference" in disk:
        # Captions of six words are shorter than what is assumed of them.
        said = written(output / "reference", "*.npy")
        assert said / 10 < disk["reference"] < 10 * said
    if "rollouts" in disk:
        assert written(output / "rollouts", "phase-*.npz") < disk["rollouts"]


def test_candidates_are_counted_in_the_rows(tmp_path: Path, preferences: Path, start: Path) -> None:
    def plan(rows: Path) -> dict[str, Any]:
        found: Any = run_recipe(recipe_of(DPO, tmp_path, rows, start), dry_run=True)["plan"]
        return dict(found)

    whole = plan(preferences)
    rows, _ = read_preferences([preferences])
    fewer = [replace(row, pairs=row.pairs[:1]) for row in rows]
    write_preference_rows(tmp_path / "fewer.jsonl", SOURCE, fewer)
    less = plan(tmp_path / "fewer.jsonl")
    # Two of three candidates are left of each clip.
    assert less["memory_bytes"]["logits"] * 3 == whole["memory_bytes"]["logits"] * 2
    assert less["disk_bytes"]["reference"] * 3 == whole["disk_bytes"]["reference"] * 2
    absent = plan(tmp_path / "absent.jsonl")
    assert absent["assumed"]["candidates"] == 5
    assert absent["disk_bytes"]["reference"] is None
    assert absent["loads"][0]["cure"].startswith("make it with a recipe of kind 'prefer'")


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


BATCH = Work(rows=2, prompt_tokens=90, responses=3, response_tokens=10)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step_holds_no_more_than_is_reckoned_and_not_far_less(kind: str) -> None:
    """The policy of PPO projects what it says and sums its entropy, a reward model does neither."""
    model, size = student(kind, FLOAT, adapter=False)
    prompt = (model.vocabulary.speech_base,) * BATCH.prompt_tokens
    row = SharedPromptRow(prompt, ((5,) * BATCH.response_tokens,) * BATCH.responses)
    whole = replace(BATCH, response_tokens=BATCH.response_tokens + 1)
    policy, judge = PolicyWithValue(model, coefficient=0.1), RewardModel(model)
    with watched(model) as of_policy:
        said = policy(to_torch(collate([row] * BATCH.rows, 0)))
        loss = said.log_probs.mean() + said.values.mean()
    with watched(model) as of_judge:
        rewards = judge(to_torch(collate([read_whole(row)] * BATCH.rows, 0)))
    assert loss.requires_grad
    assert rewards.shape == (BATCH.rows * BATCH.responses,)
    need, without = memory_need(size, BATCH, FLOAT), memory_need(size, whole, FLOAT)
    for kept, reckoned in (
        (of_policy, need.activations + need.logits),
        (of_judge, without.activations),
    ):
        held = sum(storage.nbytes() for storage in kept.values())
        assert held <= reckoned <= 3 * held


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_what_is_kept_of_captions_is_reckoned_to_the_byte(kind: str, start: Path) -> None:
    settings = DpoSettings(
        data=DataSettings(rows=(Path("absent.jsonl"),)),
        training=FIT,
        model=ModelSettings(start=start),
        estimate=EstimateSettings(speech_tokens=20, text_tokens=8),
        limits=CaptionLimits(max_tokens=7),
    )
    model, size = student(kind, FLOAT, adapter=False)
    state = Continuation(model.causal_lm, [[5] * 30] * 3)
    state.advance([0, 0, 1, 1, 2, 2], [5] * 6)
    for _ in range(6):
        state.advance(range(6), [5] * 6)
    kept = sum(side.nbytes for layer in state.cache.layers for side in (layer.keys, layer.values))
    begun = begin_plan(settings, pairs=True)
    assert begun.generation_bytes(size, prompts=3, captions=2) == kept
    assert begun.generation_bytes(size, prompts=0, captions=2) == 0


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
    assert memory["weights"] == memory["teacher"] + 4 * head
    assert memory["beside"] == 0
    judged: Any = plan(reward=RewardSettings(name="model", model=tmp_path / "reward"))
    assert judged["memory_bytes"]["beside"] == memory["teacher"]
    assert judged["memory_bytes"]["total"] == memory["total"] + memory["teacher"]
    assert judged["loads"][-1]["cure"] == "train it with a recipe of kind 'reward'"
    assert "reckoned with as large as the policy" in judged["notes"][-1]
