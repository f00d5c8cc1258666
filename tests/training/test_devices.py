"""Processes that share a run, and DeepSpeed's configuration (DeepSpeed itself is not needed)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncap.errors import RecipeError
from aligncap.training.devices import (
    engine_config,
    has_bfloat16,
    local_share,
    processes,
    takes_bfloat16,
)
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from support.killer import finish, torchrun
from training.tiny_run import PROGRAM, run_shared

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "devices"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(torchrun(PROGRAM, "shared", two))
    run_shared(one)
    kept = ("step", "loss", "gradient_norm")
    logs = [[{key: line[key] for key in kept} for line in read_log(run)] for run in (two, one)]
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4, 5, 6]  # written once, by the first
    assert logs[0] == [pytest.approx(line, rel=1e-4) for line in logs[1]]
    ends = [load_file(run / "checkpoint-6" / "weights.safetensors") for run in (two, one)]
    torch.testing.assert_close(*ends)


def test_processes_share_the_batches_of_a_step_evenly_or_not_at_all():
    assert [local_share(8, count) for count in (1, 2, 4, 8)] == [8, 4, 2, 1]
    for accumulation, count in ((3, 2), (1, 4)):
        with pytest.raises(RecipeError, match=r"set training\.accumulation to 4"):
            local_share(accumulation, count)


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


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16 amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 fma\nbugs\t\t: bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_taken_where_the_processor_has_instructions_for_it(cpuinfo, has):
    assert has_bfloat16(cpuinfo) is has
    cpu = torch.device("cpu")
    assert takes_bfloat16("bfloat16", cpu)
    assert not takes_bfloat16("float32", cpu)


def test_auto_is_what_torch_itself_finds_on_this_processor():
    # The processors that torch asks by CPUID; ARM's it cannot tell.
    if torch.backends.cpu.get_cpu_capability().startswith(("AVX", "NO", "DEFAULT")):
        found = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        assert takes_bfloat16("auto", torch.device("cpu")) == found


def settings(**more: object) -> FitSettings:
    return FitSettings(
        **{"precision": "float32", "steps": 1, "learning_rate": 1e-3, "sharding": "zero2", **more}
    )


@pytest.mark.parametrize(("stage", "other"), [(1, 3), (2, 1), (3, 1)])
def test_each_file_fits_its_stage_and_clips_as_recipes_do(stage, other):
    path = FOLDER / f"zero{stage}.json"
    config = engine_config(settings(sharding=path.stem, deepspeed=path), share=4)
    assert config["zero_optimization"]["stage"] == stage
    assert config["zero_optimization"]["reduce_bucket_size"] == 50_000_000
    assert (
        config["gradient_clipping"]
        == FitSettings(precision="float32", steps=1, learning_rate=1).clip_norm
    )
    assert config["gradient_accumulation_steps"] == 4
    with pytest.raises(RecipeError, match=r"zero_optimization: stage is \d, but the recipe"):
        engine_config(settings(sharding=f"zero{other}", deepspeed=path), share=4)


def test_auto_is_as_the_recipe_and_a_contradiction_is_refused(tmp_path):
    assert engine_config(settings(clip_norm=None), share=1)["gradient_clipping"] == 0.0
    path = tmp_path / "own.json"
    own = {"gradient_clipping": "auto", "zero_optimization": "auto", "wall_clock_breakdown": True}
    path.write_text(json.dumps(own))
    config = engine_config(settings(clip_norm=0.3, deepspeed=path), share=1)
    assert (config["gradient_clipping"], config["wall_clock_breakdown"]) == (0.3, True)
    path.write_text(json.dumps({"zero_optimization": 2}))
    with pytest.raises(RecipeError, match="zero_optimization is 2, must be an object"):
        engine_config(settings(deepspeed=path), share=1)
    path.write_text(json.dumps({"gradient_clipping": 0.5}))
    line = r"gradient_clipping is 0\.5, but the recipe makes it 1\.0"
    with pytest.raises(RecipeError, match=line):
        engine_config(settings(deepspeed=path), share=1)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.json: .*give DeepSpeed's JSON"):
        engine_config(settings(deepspeed=path), share=1)
    with pytest.raises(RecipeError, match="sharding is fsdp; set zero1"):
        settings(sharding="fsdp", deepspeed=path)
