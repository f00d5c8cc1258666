"""Every recipe that is shipped is one that can be run."""

import tomllib
from pathlib import Path

import pytest

from aligncap.recipes import run_recipe

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_recipe_dry_runs(path: Path, tmp_path: Path) -> None:
    described = run_recipe(path, output=tmp_path / "run", dry_run=True)
    assert described["kind"] == tomllib.loads(path.read_text("utf-8"))["kind"]
    assert not (tmp_path / "run").exists()


def test_the_rivals_differ_in_nothing_but_the_loss() -> None:
    """What `ce` is compared with must be `kd` with another loss, or the comparison says nothing."""
    kd, ce = (
        tomllib.loads((FOLDER / "mini" / f"{k}.toml").read_text("utf-8")) for k in ("kd", "ce")
    )
    for table, only in ((kd, {"kind", "teacher", "loss", "output"}), (ce, {"kind", "output"})):
        for key in only:
            table.pop(key)
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
