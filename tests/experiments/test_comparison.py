"""The plan of a comparison: scales, runs, and the stages that are read off recipes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.errors import RecipeError, UnknownNameError
from aligncap.experiments.comparison import (
    Corpus,
    Run,
    Scale,
    planned_runs,
    read_scale,
    with_system,
)
from aligncap.experiments.stages import Planner, Stage
from support.comparison import RECIPES

SCALE = """
[reads]
captions = "texts"

[corpora.one]
manifests = ["one.jsonl"]

[corpora.two]
manifests = ["two.jsonl"]
language = "zh"

[tests.one]
protocol = "in-domain"
train = ["one"]
test = "one"

[tests.two]
protocol = "zero-shot"
train = ["one"]
texts = ["two"]
test = "two"

[arms.kd]
title = "AlignCap-KD"
recipe = "{recipes}/kd.toml"

[arms.kd-sem]
title = "AlignCap-KD without P_act"
recipe = "{recipes}/kd.toml"
changes = {{kd = ["teacher.prompt=sem"]}}

[arms.linear]
title = "Linear"
recipe = "{recipes}/linear.toml"

[items.table1]
arms = ["kd", "kd-sem", "linear"]
tests = ["one", "two"]
"""

CAPTIONS = RECIPES["rows"].replace("plans", "paired = false\nplans")


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Scale, Planner]:
    recipes = tmp_path / "recipes" / "tiny"
    recipes.mkdir(parents=True)
    for name, text in {**RECIPES, "captions": CAPTIONS}.items():
        (recipes / f"{name}.toml").write_text(text, "utf-8")
    lm = RECIPES["lm"].replace('rows.jsonl"]', 'rows.jsonl", "runs/tiny/captions/rows.jsonl"]')
    (recipes / "lm.toml").write_text(lm, "utf-8")
    for name in ("one", "two"):
        row = {"id": name, "file": f"{name}.wav"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    path = tmp_path / "scale.toml"
    path.write_text(SCALE.format(recipes=recipes), "utf-8")
    scale = read_scale(str(path))
    return scale, Planner(scale, tmp_path, tmp_path / "out")


def run_of(scale: Scale, arm: str, test: str, seed: int = 0) -> Run:
    return Run(arm, scale.arms[arm], test, scale.tests[test], seed)


def named(stage: Stage) -> dict[str, Stage]:
    return {one.name: one for one in stage.in_order()}


def test_what_a_recipe_reads_below_runs_is_made_first(planned: tuple[Scale, Planner]) -> None:
    scale, planner = planned
    stage = planner.stage_of(run_of(scale, "kd", "one"))
    assert [one.name for one in stage.in_order()] == ["rows", "rows", "lm", "kd"]
    folder = named(stage)["rows"].folder
    assert f'data.rows=["{folder / "rows.jsonl"}"]' in stage.overrides
    assert f'model.start="{named(stage)["lm"].folder / "model"}"' in stage.overrides
    rows = named(stage)["rows"]
    manifest = folder.parent.parent.parent / "one.jsonl"
    assert f'data=["{manifest}"]' in rows.overrides
    assert f'tokens="{folder.parent / "tokens"}"' in rows.overrides


def test_seeds_share_what_is_made_without_them(planned: tuple[Scale, Planner]) -> None:
    scale, planner = planned
    first, second = (named(planner.stage_of(run_of(scale, "kd", "one", seed))) for seed in (0, 1))
    assert {name for name in first if first[name].key == second[name].key} == {"rows", "lm"}
    assert "training.seed=1" in second["kd"].overrides


def test_a_change_makes_its_own_stage_again_and_those_that_need_it(
    planned: tuple[Scale, Planner],
) -> None:
    scale, planner = planned
    whole, without = (
        named(planner.stage_of(run_of(scale, arm, "one"))) for arm in ("kd", "kd-sem")
    )
    assert "teacher.prompt=sem" in without["kd"].overrides
    assert {name for name in whole if whole[name].key == without[name].key} == {"rows", "lm"}


def test_zero_shot_reads_captions_alone_of_the_tested_corpus(
    planned: tuple[Scale, Planner],
) -> None:
    scale, planner = planned
    stages = named(planner.stage_of(run_of(scale, "kd", "two")))
    assert set(stages) == {"rows", "captions", "lm", "kd"}
    read = [one for one in stages["captions"].overrides if one.startswith("data=")]
    assert "two.jsonl" in read[0]
    assert "two.jsonl" not in " ".join(stages["rows"].overrides)
    assert "/captions-" not in " ".join(stages["kd"].overrides)
    assert "data.languages={zh = 1.0}" in stages["kd"].overrides


def test_other_data_is_another_stage(planned: tuple[Scale, Planner], tmp_path: Path) -> None:
    scale, planner = planned
    before = planner.stage_of(run_of(scale, "linear", "one"))
    (tmp_path / "one.jsonl").write_text('{"id": "new", "file": "new.wav"}\n', "utf-8")
    after = Planner(scale, tmp_path, tmp_path / "out").stage_of(run_of(scale, "linear", "one"))
    assert before.folder != after.folder


def test_speakers_and_parts_of_their_own_are_not_read_together(
    planned: tuple[Scale, Planner], tmp_path: Path
) -> None:
    scale, planner = planned
    own = Corpus(train=("two.jsonl",), validation=("chosen.jsonl",), test=("two.jsonl",))
    both = replace(scale.tests["one"], train=("one", "two"))
    mixed = replace(
        scale, corpora={**scale.corpora, "two": own}, tests={**scale.tests, "one": both}
    )
    with pytest.raises(
        RecipeError, match=r"one.jsonl is split by its speakers and chosen.jsonl is"
    ):
        Planner(mixed, tmp_path, tmp_path / "out").stage_of(run_of(mixed, "kd", "one"))
    # Each alone is well.
    assert planner.stage_of(run_of(scale, "kd", "one"))
    alone = replace(mixed, tests={**scale.tests, "one": replace(both, train=("two",), test="two")})
    assert Planner(alone, tmp_path, tmp_path / "out").stage_of(run_of(alone, "kd", "one"))


def test_a_path_of_no_recipe_is_refused(planned: tuple[Scale, Planner], tmp_path: Path) -> None:
    scale, planner = planned
    text = RECIPES["linear"].replace("runs/tiny/features", "runs/tiny/vectors")
    (tmp_path / "recipes/tiny/linear.toml").write_text(text, "utf-8")
    with pytest.raises(RecipeError, match=r"linear.toml: runs/tiny/vectors/rows.jsonl is the run"):
        planner.stage_of(run_of(scale, "linear", "one"))


def test_all_of_a_seed_comes_before_the_next(planned: tuple[Scale, Planner]) -> None:
    scale, _ = planned
    runs = planned_runs(scale, ["table1"], 2)
    assert [run.seed for run in runs] == [0] * 6 + [1] * 6
    assert len({run.name for run in runs}) == 12
    with pytest.raises(UnknownNameError, match="table2"):
        planned_runs(scale, ["table2"], 1)


def test_a_system_more_is_named_by_its_output(
    planned: tuple[Scale, Planner], tmp_path: Path
) -> None:
    scale, _ = planned
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPES["linear"], "utf-8")
    more = with_system(scale, recipe)
    assert more.items["table1"].arms == ("kd", "kd-sem", "linear", "mine")
    assert more.arms["mine"].title == "tiny-linear"
    with pytest.raises(RecipeError, match="already"):
        with_system(more, recipe)


@pytest.mark.parametrize("change", [{"protocol": "zero-shot"}, {"test": "two"}])
def test_a_test_is_of_the_protocol_that_it_names(
    planned: tuple[Scale, Planner], change: dict[str, str]
) -> None:
    with pytest.raises(RecipeError, match=r"in-domain|zero-shot"):
        replace(planned[0].tests["one"], **change)


@pytest.mark.parametrize("name", ["small", "paper"])
def test_each_shipped_scale_finds_a_recipe_for_everything(
    name: str, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    scale = read_scale(name)
    planner = Planner(scale, tmp_path, tmp_path / "out")
    stages: dict[str, Stage] = {}
    for run in planned_runs(scale, list(scale.items), 1):
        stages |= {one.key: one for one in planner.stage_of(run).in_order()}
    used = {one.recipe for one in stages.values()}
    if name == "small":
        own = {
            path.relative_to(repository) for path in repository.glob("recipes/reproduce/small/*")
        }
        assert {path for path in own if path.suffix} == used
    assert len(stages) < 150
