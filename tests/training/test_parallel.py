"""Two processes that share two batches take the steps of one process with both."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aligncap.errors import RecipeError
from aligncap.training.devices import local_share, processes
from aligncap.training.loop import read_log
from support.killer import finish, torchrun
from training.parallel_run import run

PROGRAM = Path(__file__).with_name("parallel_run.py")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
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


def test_processes_share_the_batches_of_a_step_evenly_or_are_told_how() -> None:
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
def test_processes_that_would_not_do_as_launched_are_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processes().num_processes == 1
    monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=message):
        processes()
