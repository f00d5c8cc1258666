"""Settings of a run, and the learning rate at each knee."""

import pytest

from aligncap.errors import RecipeError, UnknownNameError
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of


def settings(**changes: object) -> FitSettings:
    return FitSettings(**{"steps": 110, "learning_rate": 2.0, "warmup_steps": 10, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {1: 0.2, 5: 1.0, 10: 2.0, 60: 2.0, 110: 2.0}),
        ("linear", {1: 0.2, 5: 1.0, 10: 2.0, 60: 1.0, 85: 0.5, 110: 0.0}),
        # cos(π/4) = 0.70711 at a quarter of the way.
        ("cosine", {1: 0.2, 10: 2.0, 35: 1.70711, 60: 1.0, 110: 0.0, 200: 0.0}),
    ],
)
def test_the_learning_rate_at_each_knee(schedule, expected):
    rates = {number: learning_rate_at(number, settings(schedule=schedule)) for number in expected}
    assert rates == pytest.approx(expected, abs=1e-5)


def test_the_final_share_is_where_the_schedule_ends():
    assert learning_rate_at(110, settings(schedule="cosine", final_share=0.1)) == pytest.approx(0.2)


def test_without_warm_up_the_first_step_has_the_peak():
    assert learning_rate_at(1, settings(warmup_steps=0, schedule="linear")) == 2.0


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("learning_rate", 0.0), ("clip_norm", 0.0), ("ema_decay", 1.0), ("beta2", 1.0),
     ("accumulation", 0), ("weight_decay", -0.1), ("final_share", 1.1)],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(RecipeError, match=f"{name} is {value}"):
        settings(**{name: value})


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(UnknownNameError, match="'cosine'"):
        settings(schedule="cosin")


def test_near_seeds_are_far_apart():
    seeds = {seed_of(seed, number) for seed in range(30) for number in range(30)}
    assert len(seeds) == 900
    assert seed_of(1, 2) != seed_of(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
