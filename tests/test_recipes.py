"""Recipes: typed, checked, overridden, and refused with a line that names the setting."""

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, model_validator

from aligncap import recipes
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from aligncap.recipes import apply_override, one_of, read_section, recipe_section, run_recipe


@recipe_section
class Oven:
    """A section."""

    heat_c: Annotated[float, Field(le=300)]
    fan: bool = False
    shelf: Annotated[float, Field(ge=0, lt=1)] | None = None
    mode: Literal["top", "bottom"] = "top"

    @model_validator(mode="after")
    def _fan_is_cool(self) -> Self:
        if self.fan and self.heat_c > 250:
            raise ValueError("with the fan 250 is hot enough; leave fan or heat less")
        return self


@recipe_section
class Cake:
    """Settings with every kind of value."""

    oven: Oven
    eggs: int = 3
    name: str = "plain"
    book: Path | None = None
    layers: tuple[int, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    minutes: float | None = 40.0
    steps: int = 1
    icing: Annotated[str, one_of(("chocolate", "lemon"))] = "lemon"


WARM = {"heat_c": 1}
RECIPE = 'kind = "cake"\n[oven]\nheat_c = 180\n'


def read(table: dict[str, object]) -> Cake:
    return read_section(Cake, table, file="cake.toml")


@pytest.fixture
def bakery(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Cake, Path, bool]]:
    """A trainer kind "cake" that notes what it is asked to do."""
    calls: list[tuple[Cake, Path, bool]] = []

    def bake(settings: Cake, output: Path, *, resume: bool) -> dict[str, object]:
        calls.append((settings, output, resume))
        return {"cakes": len(calls)}

    def plan(cake: Cake, output: Path) -> dict[str, object]:
        return {"bakes": cake.oven.heat_c, "in": output.name}

    module: Any = types.ModuleType("bakery_of_the_test")
    module.CAKE = recipes.Trainer(Cake, plan, bake)
    monkeypatch.setitem(sys.modules, "bakery_of_the_test", module)
    monkeypatch.setitem(recipes.TRAINERS, "cake", "bakery_of_the_test:CAKE")
    return calls


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Runs a recipe, by its text, in the folder `run` of the test's."""

    def run(text: str = RECIPE, **options: object) -> dict[str, object]:
        path = tmp_path / "cake.toml"
        path.write_text(text, encoding="utf-8")
        return run_recipe(path, output=tmp_path / "run", **options)

    return run


def test_every_kind_of_value_is_read():
    cake = read(
        {"oven": {"heat_c": 180, "shelf": "none"}, "eggs": 2, "book": "a/b", "layers": [1, 2],
         "parts": {"flour": 1, "milk": 0.5}, "minutes": "none"}
    )  # fmt: skip
    assert cake == Cake(
        oven=Oven(heat_c=180.0), eggs=2, book=Path("a/b"), layers=(1, 2),
        parts={"flour": 1.0, "milk": 0.5}, minutes=None,
    )  # fmt: skip
    assert isinstance(cake.oven.heat_c, float)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"oven": {"heat_c": "hot"}}, r"cake\.toml: oven\.heat_c is 'hot', must be a number"),
        ({"oven": {"heat_c": True}}, r"oven\.heat_c is True, must be a number"),
        ({"oven": WARM, "eggs": 2.5}, r"eggs is 2\.5, must be a whole number"),
        ({"oven": WARM, "layers": ["a"]}, "layers is 'a', must be a whole number"),
        ({"oven": WARM, "layers": 3}, "layers is 3, must be a list"),
        ({"oven": WARM, "parts": {"x": "y"}}, r"parts\.x is 'y', must be a number"),
        ({"oven": 180}, "oven is 180, must be a section"),
        ({}, r"cake\.toml: oven is missing"),
        ({"oven": {}}, r"cake\.toml: oven\.heat_c is missing"),
        ({"oven": {"heat_c": 400}}, r"cake\.toml: oven\.heat_c is 400, must be at most 300"),
        ({"oven": {"heat_c": 1, "shelf": 2}}, r"oven\.shelf is 2, must be in \[0, 1\)"),
        ({"oven": {"heat_c": 300, "fan": True}}, r"cake\.toml \[oven\]: with the fan 250"),
        ({"oven": WARM, "icing": "lemmon"}, r"icing \(cake\.toml\) called 'lemmon'.*'lemon'"),
        ({"oven": {"heat": 180}}, r"cake\.toml \[oven\] called 'heat'.*'heat_c'"),
    ],
)
def test_a_wrong_value_is_named_with_file_section_and_rule(table, message):
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        read(table)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"heat_c": 301.0}, RecipeError, r"^heat_c is 301\.0, must be at most 300$"),
        ({"heat": 1.0}, UnknownNameError, "setting in Oven called 'heat'"),
        ({"heat_c": 1.0, "mode": "topp"}, UnknownNameError, "choice of mode called 'topp'.*'top'"),
    ],
)
def test_settings_made_by_hand_are_checked_alike(values, error, message):
    with pytest.raises(error, match=message):
        Oven(**values)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("oven.heat_c=1e2", {"oven": {"heat_c": 100.0, "fan": True}}),
        ("oven.fan=false", {"oven": {"heat_c": 1, "fan": False}}),
        ("layers=[1, 2]", {"oven": {"heat_c": 1, "fan": True}, "layers": [1, 2]}),
        ("name=my cake", {"oven": {"heat_c": 1, "fan": True}, "name": "my cake"}),
        ("parts.milk=1", {"oven": {"heat_c": 1, "fan": True}, "parts": {"milk": 1}}),
    ],
)
def test_an_override_changes_one_value(override, expected):
    table: dict[str, object] = {"oven": {"heat_c": 1, "fan": True}}
    apply_override(table, override)
    assert table == expected


@pytest.mark.parametrize("override", ["oven", "=3", "a..b=3", "eggs.x=1"])
def test_an_override_that_says_nothing_is_refused(override):
    with pytest.raises(RecipeError, match="--set"):
        apply_override({"eggs": 3}, override)


def test_a_recipe_runs_its_trainer_and_is_signed(bakery, run, tmp_path):
    assert run(overrides=["eggs=5"]) == {"cakes": 1}
    assert bakery == [(Cake(oven=Oven(heat_c=180.0), eggs=5), tmp_path / "run", False)]
    signed = json.loads((tmp_path / "run" / "recipe.json").read_text("utf-8"))
    oven = {"heat_c": 180.0, "fan": False, "shelf": None, "mode": "top"}
    assert (signed["kind"], signed["settings"]["oven"]) == ("cake", oven)


def test_a_dry_run_does_nothing(bakery, run, tmp_path):
    described = run(dry_run=True)
    assert (described["kind"], described["plan"]) == ("cake", {"bakes": 180.0, "in": "run"})
    assert bakery == []
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_more_steps_but_no_other_setting(bakery, run, tmp_path):
    run()
    run(overrides=["steps=9"], resume=True)
    with pytest.raises(RecipeError, match=r"settings\.eggs = 3, not 4"):
        run(overrides=["eggs=4"], resume=True)
    assert len(bakery) == 2
    (tmp_path / "run" / "checkpoint-3").mkdir()
    with pytest.raises(RecipeError, match="holds a run already"):
        run()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("{milk=1.0, flour=2.0}", "{flour=2.0}", r"parts\.milk = 1\.0, not nothing"),
        ("{flour=2.0}", "{milk=1.0, flour=2.0}", r"parts\.milk = nothing, not 1\.0"),
        ("{milk=1.0}", "{}", r"parts\.milk = 1\.0, not nothing"),
    ],
)
def test_a_run_is_not_resumed_with_more_or_fewer_keys(bakery, run, before, after, message):
    run(overrides=[f"parts={before}"])
    with pytest.raises(RecipeError, match=message):
        run(overrides=[f"parts={after}"], resume=True)
    run(overrides=[f"parts={before}", "steps=9"], resume=True)


def test_a_run_of_another_release_is_resumed_where_defaults_explain_it(bakery, run, tmp_path):
    """A setting that there was not yet has its default; one that is no more has no part."""
    run()
    path = tmp_path / "run" / "recipe.json"
    signed = json.loads(path.read_text("utf-8"))
    del signed["settings"]["eggs"], signed["settings"]["oven"]["fan"]
    signed["settings"] |= {"gas": 3, "oven": {**signed["settings"]["oven"], "door": "open"}}
    path.write_text(json.dumps(signed), "utf-8")
    with pytest.raises(RecipeError, match=r"settings\.eggs = 3, not 4"):
        run(overrides=["eggs=4"], resume=True)
    run(resume=True)
    path.write_text('{"kind": "cake"}', "utf-8")
    with pytest.raises(DataError, match=r"recipe\.json: is damaged \(no settings\)"):
        run(resume=True)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[oven]\nheat_c = 1\n", RecipeError, "says no kind"),
        ('kind = "cak"\n', UnknownNameError, "'cake'"),
        ("kind = \n", RecipeError, "is no TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(bakery, run, text, error, message):
    with pytest.raises(error, match=message):
        run(text)


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.toml: .*No such file"):
        run_recipe(tmp_path / "none.toml")


def test_without_the_train_extra_the_message_says_what_to_install(monkeypatch, run, tmp_path):
    (tmp_path / "needs_torch_here.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(recipes.TRAINERS, "cake", "needs_torch_here")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingModelError, match=r"aligncap\[train\]"):
        run()
