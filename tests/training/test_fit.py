"""The training loop: its steps, log and checkpoints, and that a killed run resumes exactly."""

import math
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from aligncap.errors import InterruptedRunError, RecipeError
from aligncap.training.checkpoints import WeightAverage, checkpoints, latest_checkpoint, trained
from aligncap.training.loop import BestWeights, History, Hook, evaluating, every, fit, read_log
from aligncap.training.settings import FitSettings
from support.killer import finish, kill, start, wait_until
from support.rows import trace
from training.tiny_run import SETTINGS, batch_at, run, tiny_model

PROGRAM = Path(__file__).with_name("tiny_run.py")


def fit_square(model: nn.Module, settings: FitSettings, output: Path, **more: Any) -> History:
    """Fit the mean square of a model's output to 0."""

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": model(batch).square().mean()}

    return fit(model, step, batch_at, settings, output, resume=False, **more)


@pytest.mark.slow
def test_a_killed_and_resumed_run_gives_the_losses_of_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole", resume=False)
    process = start(PROGRAM, tmp_path / "killed", SETTINGS.steps - 5, tmp_path / "never")
    wait_until(lambda: latest_checkpoint(tmp_path / "killed") is not None, process)
    kill(process, after_s=random.uniform(0.0, 0.1))
    stopped = latest_checkpoint(tmp_path / "killed")
    assert stopped is not None
    assert int(stopped.name.rpartition("-")[2]) < SETTINGS.steps
    run(tmp_path / "killed", resume=True)
    assert trace(tmp_path / "killed") == trace(tmp_path / "whole")
    for name in ("weights", "optimizer", "average"):
        ends = [tmp_path / d / "checkpoint-40" / f"{name}.safetensors" for d in ("whole", "killed")]
        whole, killed = map(load_file, ends)
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[key], killed[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.parametrize("received", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_names_resume_and_loses_nothing(tmp_path, received):
    run(tmp_path / "whole", resume=False)
    process = start(PROGRAM, tmp_path / "stopped", SETTINGS.steps - 5, tmp_path / "gate")
    wait_until(lambda: latest_checkpoint(tmp_path / "stopped") is not None, process)
    process.send_signal(received)
    (tmp_path / "gate").touch()
    _, error = finish(process, 1)
    assert InterruptedRunError.__name__ in error
    assert "--resume" in error
    run(tmp_path / "stopped", resume=True)
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")


def test_the_loop_is_plain_adamw_with_accumulated_gradients(tmp_path):
    """By another road: torch's own AdamW on the mean loss of both halves of each step."""
    settings = FitSettings(steps=5, learning_rate=0.05, accumulation=2, clip_norm=None,
                           weight_decay=0.1, decay_all=True, schedule="constant")  # fmt: skip
    model, oracle = nn.Linear(4, 1), nn.Linear(4, 1)
    oracle.load_state_dict(model.state_dict())
    fit_square(model, settings, tmp_path)  # fmt: skip
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=0.05, weight_decay=0.1)
    for number in range(5):
        optimizer.zero_grad()
        both = torch.cat([batch_at(2 * number), batch_at(2 * number + 1)])
        oracle(both).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, oracle.weight)
    torch.testing.assert_close(model.bias, oracle.bias)


@pytest.mark.parametrize("decay_all", [False, True])
def test_matrices_decay_and_the_rest_only_where_asked_for(tmp_path, decay_all):
    """Without a gradient a step is the decay alone: w · (1 - rate · decay)."""
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    nn.init.ones_(model[1].bias)
    nn.init.ones_(model[2].bias)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = FitSettings(steps=1, learning_rate=0.1, weight_decay=0.5, decay_all=decay_all)

    def step(_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": sum(0 * p.sum() for p in model.parameters())}

    fit(model, step, batch_at, settings, tmp_path, resume=False)
    for name, parameter in model.named_parameters():
        kept = 0.95 if decay_all or name == "1.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_the_mean_gradient_of_a_step_is_clipped_by_its_norm(tmp_path):
    """By another road: the gradient of each step scaled by hand; AdamW remembers the sizes."""
    settings = FitSettings(steps=5, learning_rate=0.1, clip_norm=1.0, schedule="constant",
                           log_every=1, accumulation=2)  # fmt: skip
    model, oracle = nn.Linear(4, 1), nn.Linear(4, 1)
    nn.init.constant_(model.weight, 0.5)
    oracle.load_state_dict(model.state_dict())
    fit_square(model, settings, tmp_path)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=0.1, weight_decay=0.0)
    norms = []
    for number in range(5):
        optimizer.zero_grad()
        both = torch.cat([batch_at(2 * number), batch_at(2 * number + 1)])
        oracle(both).square().mean().backward()
        gradients = [p.grad for p in oracle.parameters()]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        for gradient in gradients:
            gradient.mul_(min(1.0, 1.0 / norms[-1]))
        optimizer.step()
    assert min(norms) < 1.0 < max(norms)  # scaled and left alone
    torch.testing.assert_close(model.weight, oracle.weight, rtol=1e-4, atol=1e-5)
    logged = [line["gradient_norm"] for line in read_log(tmp_path)]
    assert logged == pytest.approx(norms, rel=1e-3)


def test_a_hook_sees_the_averaged_weights(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    seen: list[float] = []
    hook = Hook(lambda _: True, lambda *_: seen.append(model.weight.item()))
    settings = FitSettings(steps=2, learning_rate=1.0, schedule="constant", ema_decay=0.999)
    fit(model, lambda _: {"loss": -model.weight.sum()}, batch_at, settings, tmp_path,
        resume=False, hooks=[hook])  # fmt: skip
    # A constant gradient moves the weight by the rate: 1, 2; decays are 2/11, 3/12.
    first = 9 / 11
    assert seen == pytest.approx([first, first / 4 + 2 * 3 / 4], abs=1e-4)
    assert model.weight.item() == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        # Two steps up to 0.06, then down to 0 in four: 0.06 · 3/4, 2/4, 1/4, 0.
        ("linear", [0.03, 0.06, 0.045, 0.03, 0.015, 0.0]),
        # 0.06 · (1 + cos(π n/4)) / 2.
        ("cosine", [0.03, 0.06, 0.0512132, 0.03, 0.0087868, 0.0]),
        ("constant", [0.03, 0.06, 0.06, 0.06, 0.06, 0.06]),
    ],
)
def test_each_step_moves_the_weights_at_its_own_learning_rate(tmp_path, schedule, rates):
    """By another road: torch's own AdamW with the rate of each step set by hand."""
    settings = FitSettings(steps=6, learning_rate=0.06, warmup_steps=2, final_share=0.0,
                           schedule=schedule, weight_decay=0.0, clip_norm=None,
                           log_every=1)  # fmt: skip
    model, oracle = nn.Linear(4, 1), nn.Linear(4, 1)
    oracle.load_state_dict(model.state_dict())
    fit_square(model, settings, tmp_path)  # fmt: skip
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=1.0, weight_decay=0.0)
    for number, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        oracle(batch_at(number)).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, oracle.weight)
    assert [line["learning_rate"] for line in read_log(tmp_path)] == pytest.approx(rates, abs=1e-6)


def test_only_two_checkpoints_stay_and_none_is_pickled(tmp_path):
    run(tmp_path, resume=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-36", "checkpoint-40"]
    files = {p.suffix for folder in checkpoints(tmp_path) for p in folder.iterdir()}
    assert files == {".safetensors", ".json"}


def test_a_log_line_is_the_mean_of_its_steps(tmp_path):
    seen: list[float] = []
    model = nn.Linear(4, 1)
    fit_square(model, FitSettings(steps=6, learning_rate=0.1, log_every=3), tmp_path,
        hooks=[Hook(lambda _: True, lambda _, report: seen.append(report["loss"]))])  # fmt: skip
    logged = [line["loss"] for line in read_log(tmp_path)]
    assert logged == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:]) / 3])


@pytest.mark.parametrize("disturbed", [False, True])
def test_what_a_hook_returns_is_logged_and_does_not_change_training(tmp_path, disturbed):
    model = tiny_model()

    def disturb() -> dict[str, float]:
        with evaluating(model):
            torch.rand(7)
            return {"validation_loss": float(model(batch_at(999)).square().mean())}

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (model(batch)[:, 0] - batch[:, 0] * batch[:, 1]).square().mean()}

    settings = replace(SETTINGS, steps=8)
    hooks = (every(2, disturb),) if disturbed else ()
    log = fit(model, step, batch_at, settings, tmp_path / "one", resume=False, hooks=hooks).log
    validated = [line["step"] for line in log if "validation_loss" in line]
    assert validated == [2, 4, 6, 8] * disturbed
    run(tmp_path / "plain", resume=False)
    # The schedule knows its end, so only the steps of the common warm-up are the same run.
    first = next(line["loss"] for line in log if "loss" in line)
    assert first == read_log(tmp_path / "plain")[0]["loss"]


@pytest.mark.parametrize(
    ("higher", "scores"), [(True, (0.1, 0.7, 0.7, 0.3)), (False, (0.7, 0.1, 0.1, 0.3))]
)
def test_the_first_of_the_best_weights_is_kept(tmp_path, higher, scores):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    best = BestWeights(
        tmp_path, score="score", higher=higher, patience=0, weights=lambda: trained(model)
    )
    coming = iter(scores)
    hook = best.watch(every(1, lambda: {"score": next(coming)}))
    settings = FitSettings(steps=4, learning_rate=1.0, schedule="constant")
    fit(model, lambda _: {"loss": -model.weight.sum()}, batch_at, settings, tmp_path,
        resume=False, hooks=[hook])  # fmt: skip
    # A constant gradient moves the weight by the rate.
    assert model.weight.item() == pytest.approx(4.0, abs=1e-4)
    assert best.restore(model) == 2
    assert model.weight.item() == pytest.approx(2.0, abs=1e-4)


def test_evaluating_gives_every_module_its_mode_back():
    model = tiny_model()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model] == [True, False, True, True, True]


def test_an_average_of_weights_is_the_recursion_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.5)
    for value in (3.0, 5.0, 7.0):
        nn.init.constant_(model.weight, value)
        average.update()
    # Decays (1+n)/(10+n): 2/11, 3/12, 4/13, all below 0.5.
    by_hand = 1.0
    for decay, value in zip((2 / 11, 3 / 12, 4 / 13), (3.0, 5.0, 7.0), strict=True):
        by_hand = decay * by_hand + (1 - decay) * value
    assert average.weights["weight"].item() == pytest.approx(by_hand)
    with average.applied():
        assert model.weight.item() == pytest.approx(by_hand)
    assert model.weight.item() == 7.0


def test_frozen_weights_are_neither_changed_nor_stored(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].requires_grad_(requires_grad=False)
    before = model[0].weight.clone()
    history = fit_square(model, FitSettings(steps=3, learning_rate=0.1), tmp_path)  # fmt: skip
    assert torch.equal(model[0].weight, before)
    assert set(load_file(history.checkpoint / "weights.safetensors")) == {"1.weight", "1.bias"}


def test_another_run_in_the_folder_is_refused_without_resume(tmp_path):
    run(tmp_path, resume=False)
    with pytest.raises(RecipeError, match="--resume"):
        run(tmp_path, resume=False)


def test_resuming_with_other_settings_is_refused_by_name(tmp_path):
    run(tmp_path, resume=False)
    model = tiny_model()
    with pytest.raises(RecipeError, match=r"learning_rate = 0\.01, not 0\.5"):
        fit(model, lambda b: {"loss": model(b).mean()}, batch_at,
            replace(SETTINGS, learning_rate=0.5), tmp_path, resume=True)  # fmt: skip


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = nn.Linear(4, 1)
    with pytest.raises(RecipeError, match="at step 1; lower learning_rate"):
        fit(model, lambda b: {"loss": model(b).mean() * math.nan}, batch_at,
            FitSettings(steps=3, learning_rate=0.1), tmp_path, resume=False)  # fmt: skip
