"""The alignment experiment's table by hand, and its runs."""

from pathlib import Path

import pytest

from aligncap.experiments import alignment
from aligncap.experiments.alignment import ARMS, SCORED, Score, table, train_arm


def score(recall: float, distinct: float = 0.5, loss: float = 1.0) -> Score:
    return Score(dict.fromkeys(SCORED, recall), distinct, loss)


def test_the_table_gives_mean_and_deviation_over_seeds():
    lines = table({"CE": [score(0.4), score(0.6)], "KD": [score(0.5, loss=2.0)]})
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    # 0.4 and 0.6: the deviation of a sample of two is 0.2 / sqrt(2).
    assert lines[2] == "| CE " + "| 0.500 ± 0.141 " * 4 + "| 0.500 ± 0.000 | 1.000 ± 0.000 |"
    assert lines[3].endswith("| 2.000 ± 0.000 |")


def test_mean_recall_is_over_the_corpora_that_are_scored():
    assert Score({"ravdess": 0.3, "emodb": 0.6, "ased": 0.9, "secap": 0.0}, 1, 1).recall == (
        pytest.approx(0.6)
    )


def test_every_arm_is_a_run_of_its_own_and_goes_on_where_it_was(tmp_path, monkeypatch):
    asked = []

    def pretend(path: Path, *, overrides, output: Path, resume: bool):
        assert resume
        asked.append((path.name, list(overrides)))

    monkeypatch.setattr(alignment, "run_recipe", pretend)
    recipes = Path("recipes")
    folders = {
        train_arm(name, recipes=recipes, runs=tmp_path, seed=seed, overrides=["training.steps=2"])
        for name in ARMS
        for seed in (0, 1)
    }
    assert len(folders) == len(asked) == 2 * len(ARMS)
    assert asked[0] == ("ce.toml", ["training.steps=2", "training.seed=0"])
    prompts = {changes[1] for name, changes in asked if name == "kd.toml"}
    assert prompts == {f"teacher.prompt={kind}" for kind in ("act", "act+sem", "act+transcript")}


def test_the_arms_recipes_are_shipped(repository):
    for recipe, _ in ARMS.values():
        assert (repository / "recipes" / "mini" / f"{recipe}.toml").is_file()
