"""How long, how fast and how often: the settings of a training run, without torch."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aligncap.errors import RecipeError, UnknownNameError

SCHEDULES = ("cosine", "constant", "linear")
PRECISIONS = ("float32", "bfloat16")
SHARDINGS = ("none", "fsdp", "zero1", "zero2", "zero3")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Settings of one run of `fit`; out-of-range values raise RecipeError at birth."""

    steps: int
    """Optimiser steps."""
    learning_rate: float
    """AdamW's peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    weight_decay: float = 0.0
    decay_all: bool = False
    """Decay norms, biases and embeddings as well as matrices."""
    accumulation: int = 1
    """Batches whose gradients make one step, of all processes together: they share them."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; None leaves gradients as they are."""
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints; the last step always has one."""
    log_every: int = 10
    """Steps whose mean makes one line of the log."""
    schedule: str = "cosine"
    """Of the learning rate after warm-up: "cosine" and "linear" fall to `final_share`."""
    final_share: float = 0.0
    """The share of the peak learning rate at the last step."""
    beta1: float = 0.9
    beta2: float = 0.999
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights; None keeps none."""
    precision: str = "float32"
    """"bfloat16" runs the step under autocast; weights stay float32."""
    sharding: str = "none"
    """What several processes share out of the model beside the batches: nothing ("none": DDP),
    all of it ("fsdp", "zero3"), AdamW's moments ("zero1"), or these and gradients ("zero2")."""
    deepspeed: Path | None = None
    """DeepSpeed's JSON for what the settings here do not say, such as buckets and offloading."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulation", "save_every", "log_every"):
            _demand(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "weight_decay", "seed"):
            _demand(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("beta1", "beta2"):
            _demand(name, getattr(self, name), 0 <= getattr(self, name) < 1, "in [0, 1)")
        _demand("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        _demand("final_share", self.final_share, 0 <= self.final_share <= 1, "in [0, 1]")
        clip, ema = self.clip_norm, self.ema_decay
        _demand("clip_norm", clip, clip is None or clip > 0, "above 0")
        _demand("ema_decay", ema, ema is None or 0 < ema < 1, "in (0, 1)")
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.sharding not in SHARDINGS:
            raise UnknownNameError("sharding", self.sharding, SHARDINGS)
        if self.sharding == "zero3" and ema is not None:
            raise RecipeError(
                "an average of the weights (ema_decay) cannot be kept under zero3; use fsdp, "
                "which shares out as much, or zero2"
            )
        if self.deepspeed is not None and not self.sharding.startswith("zero"):
            raise RecipeError(
                f"deepspeed is {self.deepspeed}, but sharding is {self.sharding}; set zero1, "
                "zero2 or zero3, or leave the file out"
            )


def _demand(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value}, must be {rule}")


def learning_rate_at(number: int, settings: FitSettings) -> float:
    """The learning rate of step `number` (from 1): linear warm-up, then the schedule.

    Step `warmup_steps` has the peak; the last step has `final_share` of it, unless constant.
    """
    if number < settings.warmup_steps:
        return settings.learning_rate * number / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    start = max(settings.warmup_steps, 1)
    done = min(1.0, (number - start) / max(1, settings.steps - start))
    fall = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate * (settings.final_share + (1 - settings.final_share) * fall)


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers (seed, step, rank …), well spread for near ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
