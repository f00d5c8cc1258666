"""Processes that share a run, and DeepSpeed's configuration (DeepSpeed itself is not needed)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aligncap.errors import RecipeError
from aligncap.training.devices import engine_config, local_share, processes
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from support.killer import finish, torchrun
from training.parallel_run import run

PROGRAM = Path(__file__).with_name("parallel_run.py")
FILES = sorted((Path(__file__).resolve().parents[2] / "recipes" / "devices").glob("*.json"))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    finish(torchrun(PROGRAM, tmp_path / "two", 2))
    run(tmp_path / "one", accumulation=2)
    logs = [read_log(tmp_path / name) for name in ("one", "two")]
    assert [line["step"] for line in logs[1]] == [1, 2, 3, 4, 5, 6]  # written once, by the first
    for one, two in zip(*logs, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    weights = [
        load_file(tmp_path / n / "checkpoint-6" / "weights.safetensors") for n in ("one", "two")
    ]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name])


def test_processes_share_the_batches_of_a_step_evenly_or_not_at_all():
    assert [local_share(8, count) for count in (1, 2, 4, 8)] == [8, 4, 2, 1]
    with pytest.raises(RecipeError, match=r"set training\.accumulation to 4"):
        local_share(3, 2)
    with pytest.raises(RecipeError, match=r"set training\.accumulation to 4"):
        local_share(1, 4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WORLD_SIZE", "2", "2 processes were launched, 1 joined"),
        ("ACCELERATE_USE_FSDP", "true", r"set training\.sharding"),
    ],
)
def test_processes_that_differ_from_the_launch_are_refused(name, value, message, monkeypatch):
    assert processes().num_processes == 1
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=message):
        processes()


def settings(**more: Any) -> FitSettings:
    return FitSettings(**{"steps": 1, "learning_rate": 1e-3, "sharding": "zero2", **more})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_fits_its_stage_and_clips_as_recipes_do(path):
    config = engine_config(settings(sharding=path.stem, deepspeed=path), share=4)
    assert config["zero_optimization"]["stage"] == int(path.stem[-1])
    assert config["zero_optimization"]["reduce_bucket_size"] == 50_000_000
    assert config["gradient_clipping"] == FitSettings(steps=1, learning_rate=1).clip_norm
    assert config["gradient_accumulation_steps"] == 4
    other = "zero1" if path.stem != "zero1" else "zero3"
    with pytest.raises(RecipeError, match=r"zero_optimization: stage is \d, but the recipe"):
        engine_config(settings(sharding=other, deepspeed=path), share=4)


def test_every_stage_has_a_file():
    assert [path.stem for path in FILES] == ["zero1", "zero2", "zero3"]


def test_no_clipping_is_configured_too():
    assert engine_config(settings(clip_norm=None), share=1)["gradient_clipping"] == 0.0


def test_auto_is_as_the_recipe_and_a_contradiction_is_refused(tmp_path):
    path = tmp_path / "own.json"
    own = {"gradient_clipping": "auto", "zero_optimization": "auto", "wall_clock_breakdown": True}
    path.write_text(json.dumps(own))
    config = engine_config(settings(clip_norm=0.3, deepspeed=path), share=1)
    assert (config["gradient_clipping"], config["wall_clock_breakdown"]) == (0.3, True)
    path.write_text(json.dumps({"gradient_clipping": 0.5}))
    with pytest.raises(
        RecipeError, match=r"gradient_clipping is 0\.5, but the recipe makes it 1\.0"
    ):
        engine_config(settings(deepspeed=path), share=1)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.json: .*give DeepSpeed's JSON"):
        engine_config(settings(deepspeed=path), share=1)


def test_a_file_without_deepspeed_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="sharding is fsdp; set zero1"):
        settings(sharding="fsdp", deepspeed=tmp_path / "own.json")
