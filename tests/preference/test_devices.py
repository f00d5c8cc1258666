"""Preference recipes in two processes have the numbers of one: losses, captions, rollouts."""

import json
from pathlib import Path

import pytest

from aligncap.errors import RecipeError
from aligncap.recipes import run_recipe
from support.killer import finish, torchrun
from support.preferences import DPO, PPO, REWARD, train_start, write_preferences
from support.recipe_runs import PROGRAM
from support.rows import trace

WAYS = {"dpo": "fsdp", "reward": "fsdp", "ppo": "none"}
"""Kind of recipe → what is shared out. DPO's validation writes captions with shared-out weights."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("po")
    start, rows = train_start(root), write_preferences(root)
    together = []
    for kind, recipe in {"dpo": DPO, "reward": REWARD, "ppo": PPO}.items():
        path = root / f"{kind}.toml"
        twice = recipe.replace("steps = 4", "steps = 4, accumulation = 2")
        path.write_text(twice.replace("nowhere", str(rows)) + f'[model]\nstart = "{start}"\n')
        run_recipe(path, output=root / f"{kind}-one")
        way = [f"training.sharding={WAYS[kind]}"]
        output = str(root / f"{kind}-two")
        together.append({"recipe": str(path), "output": output, "resume": False, "set": way})
    finish(torchrun(PROGRAM, json.dumps(together)))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(WAYS))
def test_two_processes_log_what_one_does(runs: Path, kind: str) -> None:
    one, two = trace(runs / f"{kind}-one"), trace(runs / f"{kind}-two")
    assert len(one) == len(two) > 2
    assert ("validation_contradicted" in set().union(*one)) == (kind != "reward")
    for first, second in zip(one, two, strict=True):
        if first["step"] == 2:
            # The policy begins as its reference: the first margins are rounding, signs and all.
            first.pop("accuracy", None), second.pop("accuracy", None)
        assert second == pytest.approx(first, abs=1e-4)


def test_rollouts_are_not_drawn_from_weights_that_are_shared_out(tmp_path: Path) -> None:
    recipe = tmp_path / "ppo.toml"
    recipe.write_text(PPO + '[model]\nstart = "absent"\n')
    with pytest.raises(RecipeError, match="use none, zero1 or zero2"):
        run_recipe(recipe, overrides=["training.sharding=fsdp"], dry_run=True)
