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
SCALES = sorted((FOLDER / "reproduce").glob("*.toml"))
"""What is compared (`experiments.comparison`): no recipes."""
RECIPES = sorted({*FOLDER.rglob("*.toml")} - {*SCALES})


def identity(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def table_of(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / name).read_text("utf-8"))


@pytest.mark.parametrize("path", RECIPES, ids=identity)
def test_every_recipe_dry_runs(path: Path, tmp_path: Path) -> None:
    described: Any = run_recipe(path, output=tmp_path / "run", dry_run=True)
    assert described["kind"] == table_of(identity(path))["kind"]
    assert not (tmp_path / "run").exists()
    plan = described["plan"]
    assert {"loads", "parameters", "memory_bytes", "disk_bytes", "assumed", "notes"} <= set(plan)
    assert plan["loads"]
    for one in plan["loads"]:
        assert one["present"] == (one["cure"] is None)
        assert "\n" not in (one["cure"] or "")
    # A size that is not told is that of something that is not here, and is named; rows have none.
    known = plan["parameters"] or described["kind"] in ("token-rows", "text-rows", "codebook")
    assert known or not all(one["present"] for one in plan["loads"])
    if not (path.parent.name == "paper" and path.stem.startswith("kd")):
        return
    # §4.2: AdamW at 1e-5, 50k iterations, batch 16, 400 steps of warm-up, LoRA of rank 8.
    settings = described["settings"]
    training = settings["training"]
    assert (training["learning_rate"], training["steps"]) == (1e-5, 50_000)
    assert training["warmup_steps"] == 400
    assert settings["batch"]["rows"] * training["accumulation"] == 16
    assert settings["model"]["lora"]["rank"] == 8
    # Nothing of it is on this machine, and yet its size is told.
    assert plan["parameters"]["trained"] < plan["parameters"]["total"] / 40
    assert plan["memory_bytes"]["total"] < 32e9


def leaves(table: dict[str, Any], *path: str) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key)


@pytest.mark.parametrize("path", RECIPES, ids=identity)
def test_a_recipe_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    table = table_of(identity(path))
    module, _, name = TRAINERS[table.pop("kind")].partition(":")
    kind = getattr(import_module(module), name).settings
    settings = read_section(kind, table, file=str(path))

    def same_without(leaf: tuple[str, ...]) -> bool:
        shorter = inner = copy.deepcopy(table)
        for key in leaf[:-1]:
            inner = inner[key]
        del inner[leaf[-1]]
        try:
            return bool(read_section(kind, shorter, file="short") == settings)
        except AlignCapError:  # what has no default
            return False

    assert [".".join(leaf) for leaf in leaves(table) if same_without(leaf)] == []


def test_what_is_compared_differs_in_nothing_else() -> None:
    """Or the comparison says nothing."""
    kd, ce = table_of("mini/kd.toml"), table_of("mini/ce.toml")
    loss = ("kind", "teacher", "loss", "output", "notes")
    common = [{k: v for k, v in one.items() if k not in loss} for one in (kd, ce)]
    assert common[0] == common[1]
    assert not {"teacher", "loss"} & ce.keys()
    for size in ("mini", "paper"):  # DPO and RLHF start from one model and learn from one file
        dpo, *others = (table_of(f"{size}/{kind}.toml") for kind in ("dpo", "reward", "ppo"))
        for other in others:
            assert (other["model"], other["data"]) == (dpo["model"], dpo["data"])
    # PPO's reward is the judge that makes DPO's pairs.
    prefer, ppo = table_of("mini/prefer.toml"), table_of("mini/ppo.toml")
    assert ppo["reward"]["evidence"] == prefer["evidence"]
