"""The training loop: its steps, log and checkpoints, and that a killed run resumes exactly."""

import math
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from aligncap.errors import InterruptedRunError, RecipeError, UnknownNameError
from aligncap.training.checkpoints import (
    WeightAverage,
    checkpoints,
    kept_weights,
    latest_checkpoint,
)
from aligncap.training.loop import BestWeights, History, Hook, evaluating, every, fit, read_log
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of
from support.killer import finish, kill, start, wait_until
from support.rows import trace
from training.tiny_run import PROGRAM, SETTINGS, batch_at, run, tiny_model

CONSTANT = FitSettings(
    precision="float32",
    steps=5,
    learning_rate=0.1,
    schedule="constant",
    accumulation=2,
    log_every=1,
)


def fit_square(model: nn.Module, settings: FitSettings, output: Path, **more: Any) -> History:
    """Fit the mean square of a model's output to 0."""

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": model(batch).square().mean()}

    return fit(model, step, batch_at, settings, output, resume=False, **more)


def climb(settings: FitSettings, output: Path, hook: Hook, model: nn.Module) -> None:
    """Train one weight by a constant gradient, which moves it by the learning rate."""
    nn.init.zeros_(model.weight)
    fit(model, lambda _: {"loss": -model.weight.sum()}, batch_at, settings, output,
        resume=False, hooks=[hook])  # fmt: skip


@pytest.mark.slow
def test_a_killed_and_resumed_run_gives_the_losses_of_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole", resume=False)
    process = start(PROGRAM, "killed", tmp_path / "killed", SETTINGS.steps - 5, tmp_path / "never")
    wait_until(lambda: latest_checkpoint(tmp_path / "killed") is not None, process)
    kill(process, after_s=random.uniform(0.0, 0.1))
    stopped = latest_checkpoint(tmp_path / "killed")
    assert int(stopped.name.rpartition("-")[2]) < SETTINGS.steps
    run(tmp_path / "killed", resume=True)
    assert trace(tmp_path / "killed") == trace(tmp_path / "whole")
    for name in ("weights", "optimizer", "average"):
        file = f"checkpoint-40/{name}.safetensors"
        whole, killed = (load_file(tmp_path / each / file) for each in ("whole", "killed"))
        torch.testing.assert_close(killed, whole, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("received", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_names_resume_and_loses_nothing(tmp_path, received):
    run(tmp_path / "whole", resume=False)
    process = start(PROGRAM, "killed", tmp_path / "stopped", SETTINGS.steps - 5, tmp_path / "gate")
    wait_until(lambda: latest_checkpoint(tmp_path / "stopped") is not None, process)
    process.send_signal(received)
    (tmp_path / "gate").touch()
    _, error = finish(process, 1)
    assert InterruptedRunError.__name__ in error
    assert "--resume" in error
    run(tmp_path / "stopped", resume=True)
    assert trace(tmp_path / "stopped") == trace(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "clipped", "decay"),
    [
        (replace(CONSTANT, clip_norm=None, weight_decay=0.1, decay_all=True), math.inf, 0.1),
        (replace(CONSTANT, clip_norm=1.0), 1.0, 0.0),
    ],
    ids=["decayed", "clipped"],
)
def test_a_step_is_plain_adamw_on_the_clipped_mean_gradient(tmp_path, settings, clipped, decay):
    """By another road: torch's own AdamW on the mean loss of both halves of each step, the gradient
    scaled by hand; AdamW remembers the sizes."""
    model, oracle = nn.Linear(4, 1), nn.Linear(4, 1)
    nn.init.constant_(model.weight, 0.5)
    oracle.load_state_dict(model.state_dict())
    fit_square(model, settings, tmp_path)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=0.1, weight_decay=decay)
    norms = []
    for number in range(5):
        optimizer.zero_grad()
        both = torch.cat([batch_at(2 * number), batch_at(2 * number + 1)])
        oracle(both).square().mean().backward()
        gradients = [p.grad for p in oracle.parameters()]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        for gradient in gradients:
            gradient.mul_(min(1.0, clipped / norms[-1]))
        optimizer.step()
    assert clipped == math.inf or min(norms) < 1.0 < max(norms)  # scaled and left alone
    for found, expected in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    logged = [line["gradient_norm"] for line in read_log(tmp_path)]
    assert logged == pytest.approx(norms, rel=1e-3)


@pytest.mark.parametrize("decay_all", [False, True])
def test_matrices_decay_and_the_rest_only_where_asked_for(tmp_path, decay_all):
    """Without a gradient a step is the decay alone: w · (1 - rate · decay)."""
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    nn.init.ones_(model[1].bias)
    nn.init.ones_(model[2].bias)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = FitSettings(
        precision="float32", steps=1, learning_rate=0.1, weight_decay=0.5, decay_all=decay_all
    )

    def step(_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": sum(0 * p.sum() for p in model.parameters())}

    fit(model, step, batch_at, settings, tmp_path, resume=False)
    for name, parameter in model.named_parameters():
        kept = 0.95 if decay_all or name == "1.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[name])


def test_a_hook_sees_the_averaged_weights(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    seen: list[float] = []
    hook = Hook(lambda _: True, lambda *_: seen.append(model.weight.item()))
    settings = FitSettings(
        precision="float32", steps=2, learning_rate=1.0, schedule="constant", ema_decay=0.999
    )
    climb(settings, tmp_path, hook, model)
    # The weight is 1, 2; decays are 2/11, 3/12.
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
    settings = FitSettings(precision="float32",
                           steps=6, learning_rate=0.06, warmup_steps=2, final_share=0.0,
                           schedule=schedule, weight_decay=0.0, clip_norm=None,
                           log_every=1)  # fmt: skip
    model, oracle = nn.Linear(4, 1), nn.Linear(4, 1)
    oracle.load_state_dict(model.state_dict())
    fit_square(model, settings, tmp_path)
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=1.0, weight_decay=0.0)
    for number, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        oracle(batch_at(number)).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, oracle.weight)
    assert [line["learning_rate"] for line in read_log(tmp_path)] == pytest.approx(rates, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, {1: 0.2, 5: 1.0, 10: 2.0, 60: 2.0, 110: 2.0}),
        ({"schedule": "linear"}, {1: 0.2, 5: 1.0, 10: 2.0, 60: 1.0, 85: 0.5, 110: 0.0}),
        # cos(π/4) = 0.70711 at a quarter of the way.
        ({"schedule": "cosine"}, {1: 0.2, 10: 2.0, 35: 1.70711, 60: 1.0, 110: 0.0, 200: 0.0}),
        ({"schedule": "cosine", "final_share": 0.1}, {110: 0.2}),
        ({"schedule": "linear", "warmup_steps": 0}, {1: 2.0}),
    ],
)
def test_the_learning_rate_at_each_knee(changes, expected):
    settings = FitSettings(
        **{
            "precision": "float32",
            "steps": 110,
            "learning_rate": 2.0,
            "warmup_steps": 10,
            **changes,
        }
    )
    rates = {number: learning_rate_at(number, settings) for number in expected}
    assert rates == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("learning_rate", 0.0), ("clip_norm", 0.0), ("ema_decay", 1.0), ("beta2", 1.0),
     ("accumulation", 0), ("weight_decay", -0.1), ("final_share", 1.1)],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(RecipeError, match=f"{name} is {value}"):
        replace(SETTINGS, **{name: value})
    with pytest.raises(UnknownNameError, match="'cosine'"):
        replace(SETTINGS, schedule="cosin")


def test_near_seeds_are_far_apart():
    seeds = [seed_of(seed, number) for seed in range(30) for number in range(30)]
    assert len(set(seeds)) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_only_two_checkpoints_stay_and_another_run_or_settings_are_refused(tmp_path):
    run(tmp_path, resume=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-36", "checkpoint-40"]
    files = {p.suffix for folder in checkpoints(tmp_path) for p in folder.iterdir()}
    assert files == {".safetensors", ".json"}  # none is pickled
    with pytest.raises(RecipeError, match="--resume"):
        run(tmp_path, resume=False)
    with pytest.raises(RecipeError, match=r"learning_rate = 0\.01, not 0\.5"):
        run(tmp_path, resume=True, settings=replace(SETTINGS, learning_rate=0.5))


def test_a_log_line_is_the_mean_of_its_steps(tmp_path):
    seen: list[float] = []
    hook = Hook(lambda _: True, lambda _, report: seen.append(report["loss"]))
    settings = FitSettings(precision="float32", steps=6, learning_rate=0.1, log_every=3)
    fit_square(nn.Linear(4, 1), settings, tmp_path, hooks=[hook])
    logged = [line["loss"] for line in read_log(tmp_path)]
    assert logged == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:]) / 3])


def test_what_a_hook_returns_is_logged_and_does_not_change_training(tmp_path):
    other = tiny_model()

    def disturb() -> dict[str, float]:
        with evaluating(other):
            return {"validation_loss": float(torch.rand(7).sum())}

    short = replace(SETTINGS, steps=8)
    plain, disturbed = (
        run(tmp_path / name, resume=False, settings=short, hooks=hooks).log
        for name, hooks in (("plain", ()), ("disturbed", [every(2, disturb)]))
    )
    assert [line["step"] for line in disturbed if "validation_loss" in line] == [2, 4, 6, 8]
    losses = [[line["loss"] for line in log if "loss" in line] for log in (plain, disturbed)]
    assert losses[0] == losses[1] != []


@pytest.mark.parametrize(
    ("higher", "scores"), [(True, (0.1, 0.7, 0.7, 0.3)), (False, (0.7, 0.1, 0.1, 0.3))]
)
def test_the_first_of_the_best_weights_is_kept(tmp_path, higher, scores):
    model = nn.Linear(1, 1, bias=False)
    best = BestWeights(
        tmp_path, score="score", higher=higher, patience=0, weights=lambda: kept_weights(model)
    )
    coming = iter(scores)
    settings = FitSettings(precision="float32", steps=4, learning_rate=1.0, schedule="constant")
    climb(settings, tmp_path, best.watch(every(1, lambda: {"score": next(coming)})), model)
    assert model.weight.item() == pytest.approx(4.0, abs=1e-4)
    assert best.restore(model) == 2
    assert model.weight.item() == pytest.approx(2.0, abs=1e-4)


def climb_by_scores(
    output: Path, scores: dict[int, float], *, steps: int = 8, resume: bool = False
) -> tuple[int | None, float]:
    """Climb with a checkpoint every two steps and a validation after each, which a score of nan
    kills; the best step and the weight that is kept, its step as well."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    best = BestWeights(
        output, score="score", higher=True, patience=0, weights=lambda: kept_weights(model)
    )

    def validate(number: int, _: object) -> dict[str, float]:
        if math.isnan(scores[number]):
            raise KeyboardInterrupt
        return {"score": scores[number]}

    settings = FitSettings(
        precision="float32", steps=steps, learning_rate=1.0, schedule="constant", save_every=2
    )
    hook = best.watch(Hook(lambda _: True, validate))
    fit(model, lambda _: {"loss": -model.weight.sum()}, batch_at, settings, output,
        resume=resume, hooks=[hook])  # fmt: skip
    return best.restore(model), model.weight.item()


def test_a_run_resumed_from_any_kept_checkpoint_has_its_best_weights(tmp_path):
    """Weights of a later step were the best when it was killed, and are not when done again."""
    rising = dict(zip(range(1, 9), (0.5, 0.1, 0.6, 0.2, 0.7, 0.1, 0.8, math.nan), strict=True))
    for last, best in ((6, 5), (4, 3)):
        output = tmp_path / str(last)
        with pytest.raises(KeyboardInterrupt):
            climb_by_scores(output, rising)
        kept = checkpoints(output)
        assert [one.name for one in kept] == ["checkpoint-4", "checkpoint-6"]
        if last == 4:  # a damaged one is removed, as the message says
            shutil.rmtree(kept[-1])
        again = dict.fromkeys(rising, 0.0)
        found = climb_by_scores(output, again, resume=True)
        assert found == (best, pytest.approx(best, abs=1e-4))


def test_best_weights_that_no_checkpoint_needs_are_removed(tmp_path):
    scores = {number: number / 10 for number in range(1, 9)}
    assert climb_by_scores(tmp_path, scores)[0] == 8
    assert sorted(one.name for one in (tmp_path / "best").iterdir()) == [
        "step-4",
        "step-6",
        "step-8",
    ]


def test_the_best_weights_score_again_what_they_scored(tmp_path):
    """Running statistics are part of what was scored: they go on moving afterwards."""
    model, points = tiny_model(), batch_at(99)

    def validate() -> dict[str, float]:
        with evaluating(model):
            return {"score": float(model(points).square().mean())}

    best = BestWeights(
        tmp_path, score="score", higher=False, patience=0, weights=lambda: kept_weights(model)
    )
    settings = FitSettings(precision="float32", steps=6, learning_rate=0.3)

    def step(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (model(batch)[:, 0] - batch[:, 0]).square().mean()}

    fit(model, step, lambda number: batch_at(number) + number, settings, tmp_path,
        resume=False, hooks=[best.watch(every(1, validate))])  # fmt: skip
    step_of_best = best.restore(model)
    logged = {line["step"]: line["score"] for line in read_log(tmp_path) if "score" in line}
    assert step_of_best < 6
    assert validate()["score"] == logged[step_of_best] == min(logged.values())


def test_a_share_of_a_learning_rate_is_of_weights_that_train(tmp_path):
    settings = FitSettings(steps=1, learning_rate=0.1, rate_shares={"0.": 0.5, "1.bais": 0.1})
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    with pytest.raises(RecipeError, match=r"a name that begins '1\.bais'"):
        fit_square(model, settings, tmp_path)
    with pytest.raises(RecipeError, match=r"rate_shares\.0\. is -3\.0, must be 0 or more"):
        FitSettings(steps=1, learning_rate=0.1, rate_shares={"0.": -3.0})


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
    by_hand = 1.0
    # Decays (1+n)/(10+n): 2/11, 3/12, 4/13, all below 0.5.
    for decay, value in zip((2 / 11, 3 / 12, 4 / 13), (3.0, 5.0, 7.0), strict=True):
        nn.init.constant_(model.weight, value)
        average.update()
        by_hand = decay * by_hand + (1 - decay) * value
    assert average.weights["weight"].item() == pytest.approx(by_hand)
    with average.applied():
        assert model.weight.item() == pytest.approx(by_hand)
    assert model.weight.item() == 7.0


def test_frozen_weights_are_neither_changed_nor_stored(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].requires_grad_(requires_grad=False)
    before = model[0].weight.clone()
    history = fit_square(
        model, FitSettings(precision="float32", steps=3, learning_rate=0.1), tmp_path
    )
    assert torch.equal(model[0].weight, before)
    assert set(load_file(history.checkpoint / "weights.safetensors")) == {"1.weight", "1.bias"}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = nn.Linear(4, 1)
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(RecipeError, match="at step 1; lower learning_rate"):
        fit_square(model, FitSettings(precision="float32", steps=3, learning_rate=0.1), tmp_path)
