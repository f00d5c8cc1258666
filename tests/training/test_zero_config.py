"""What DeepSpeed is told; DeepSpeed itself is not asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from aligncap.errors import RecipeError
from aligncap.training.devices import engine_config
from aligncap.training.settings import FitSettings

FILES = sorted((Path(__file__).resolve().parents[2] / "recipes" / "devices").glob("*.json"))


def settings(**more: Any) -> FitSettings:
    return FitSettings(**{"steps": 1, "learning_rate": 1e-3, "sharding": "zero2", **more})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_goes_with_its_way_and_clips_as_recipes_do(path: Path) -> None:
    config = engine_config(settings(sharding=path.stem, deepspeed=path), share=4)
    assert config["zero_optimization"]["stage"] == int(path.stem[-1])
    assert config["zero_optimization"]["reduce_bucket_size"] == 50_000_000
    assert config["gradient_clipping"] == FitSettings(steps=1, learning_rate=1).clip_norm
    assert config["gradient_accumulation_steps"] == 4
    other = "zero1" if path.stem != "zero1" else "zero3"
    with pytest.raises(RecipeError, match=r"zero_optimization: stage is \d, but the recipe"):
        engine_config(settings(sharding=other, deepspeed=path), share=4)


def test_the_ways_all_have_a_file() -> None:
    assert [path.stem for path in FILES] == ["zero1", "zero2", "zero3"]


def test_no_clipping_is_said_as_well() -> None:
    assert engine_config(settings(clip_norm=None), share=1)["gradient_clipping"] == 0.0


def test_a_file_leaves_to_the_recipe_what_is_auto_and_denies_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    told = {"gradient_clipping": "auto", "zero_optimization": "auto", "wall_clock_breakdown": True}
    path.write_text(json.dumps(told))
    config = engine_config(settings(clip_norm=0.3, deepspeed=path), share=1)
    assert (config["gradient_clipping"], config["wall_clock_breakdown"]) == (0.3, True)
    path.write_text(json.dumps({"gradient_clipping": 0.5}))
    with pytest.raises(
        RecipeError, match=r"gradient_clipping is 0\.5, but the recipe makes it 1\.0"
    ):
        engine_config(settings(deepspeed=path), share=1)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.json: .*give DeepSpeed's JSON"):
        engine_config(settings(deepspeed=path), share=1)


def test_a_file_without_deepspeed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="sharding is fsdp; set zero1"):
        settings(sharding="fsdp", deepspeed=tmp_path / "own.json")
