"""Every recipe that is shipped is one that can be run."""

import copy
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from aligncap.errors import AlignCapError
from aligncap.recipes import TRAINERS, read_section, run_recipe

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_recipe_dry_runs(path: Path, tmp_path: Path) -> None:
    described = run_recipe(path, output=tmp_path / "run", dry_run=True)
    assert described["kind"] == tomllib.loads(path.read_text("utf-8"))["kind"]
    assert not (tmp_path / "run").exists()
    plan: Any = described["plan"]
    assert {"loads", "parameters", "memory_bytes", "disk_bytes", "assumed", "notes"} <= set(plan)
    assert plan["loads"]
    for one in plan["loads"]:
        assert one["present"] == (one["cure"] is None)
        assert "\n" not in (one["cure"] or "")
    # A size that is not told is that of something that is not here, and is named.
    assert plan["parameters"] or not all(one["present"] for one in plan["loads"])


def leaves(table: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key)


def without(table: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    shorter = inner = copy.deepcopy(table)
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return shorter


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_recipe_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    table = tomllib.loads(path.read_text("utf-8"))
    module, _, name = TRAINERS[table.pop("kind")].partition(":")
    kind = getattr(import_module(module), name).settings

    def same_without(leaf: tuple[str, ...]) -> bool:
        try:
            return bool(read_section(kind, without(table, leaf), file="short") == settings)
        except AlignCapError:  # what has no default
            return False

    settings = read_section(kind, table, file=str(path))
    assert [".".join(leaf) for leaf in leaves(table) if same_without(leaf)] == []


PAPER_KD = sorted((FOLDER / "paper").glob("kd*.toml"))


@pytest.mark.parametrize("path", PAPER_KD, ids=lambda path: path.stem)
def test_the_papers_values_stand_in_its_recipes(path: Path, tmp_path: Path) -> None:
    """§4.2: AdamW at 1e-5, 50k iterations, batch 16, 400 steps of warm-up, LoRA of rank 8."""
    described = run_recipe(path, output=tmp_path / "run", dry_run=True)
    settings: Any = described["settings"]
    training, batch = settings["training"], settings["batch"]
    assert (training["learning_rate"], training["steps"]) == (1e-5, 50_000)
    assert training["warmup_steps"] == 400
    assert batch["rows"] * training["accumulation"] == 16
    assert settings["model"]["lora"]["rank"] == 8
    plan: Any = described["plan"]
    # Nothing of it is on this machine, and yet its size is told.
    assert plan["parameters"]["trained"] < plan["parameters"]["total"] / 40
    assert plan["memory_bytes"]["total"] < 32e9
    assert all(one["cure"] for one in plan["loads"] if not one["present"])


def test_the_rivals_differ_in_nothing_but_the_loss() -> None:
    """What `ce` is compared with must be `kd` with another loss, or the comparison says nothing."""
    kd, ce = (
        tomllib.loads((FOLDER / "mini" / f"{k}.toml").read_text("utf-8")) for k in ("kd", "ce")
    )
    for table, only in ((kd, {"kind", "teacher", "loss", "output"}), (ce, {"kind", "output"})):
        for key in only:
            table.pop(key, None)
    assert kd == ce


@pytest.mark.parametrize("size", ["mini", "paper"])
def test_preference_recipes_go_on_from_one_model_and_one_file(size: str) -> None:
    """DPO and RLHF are compared: what they start from and learn from must be the same."""
    tables = [
        tomllib.loads((FOLDER / size / f"{kind}.toml").read_text("utf-8"))
        for kind in ("dpo", "reward", "ppo")
    ]
    for table in tables:
        assert table["model"] == tables[0]["model"]
        assert table["data"] == tables[0]["data"]


def test_ppos_reward_is_the_judge_that_makes_dpos_pairs() -> None:
    """DPO and RLHF are compared: what a caption is worth must be the same."""
    prefer, ppo = (
        tomllib.loads((FOLDER / "mini" / f"{kind}.toml").read_text("utf-8"))
        for kind in ("prefer", "ppo")
    )
    assert ppo["reward"]["evidence"] == prefer["evidence"]
