"""The settings of a training run (§4.2), without torch."""

import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from aligncap.recipes import Count, Share, recipe_section


@recipe_section
class FitSettings:
    """Settings of one run of `fit`; values out of range raise RecipeError."""

    steps: Count
    """Optimiser steps."""
    learning_rate: PositiveFloat
    """AdamW's peak learning rate."""
    rate_shares: Mapping[str, NonNegativeFloat] = field(default_factory=dict)
    """Of the learning rate, by the beginning of a weight's name: pretrained layers may take smaller
    steps than new ones; 1 where no name fits."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly from 0."""
    weight_decay: NonNegativeFloat = 0.0
    decay_all: bool = False
    """Decay norms, biases and embeddings as well as matrices."""
    accumulation: Count = 1
    """Batches whose gradients make one step, shared by all processes."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest gradient norm; None leaves gradients as they are."""
    seed: NonNegativeInt = 0
    save_every: Count = 500
    """Steps between checkpoints; the last step always has one."""
    log_every: Count = 10
    """Steps whose mean makes one line of the log."""
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    """Of the learning rate after warm-up: "cosine" and "linear" fall to `final_share`."""
    final_share: Share = 0.0
    """The share of the peak learning rate at the last step."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential moving average of the weights; None keeps none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"bfloat16" runs the step under autocast; weights stay float32. "auto" takes it where the
    device has instructions for it: without them it is four to seven times slower."""
    sharding: Literal["none", "fsdp", "zero1", "zero2", "zero3"] = "none"
    """What is sharded over several processes: nothing ("none": DDP), all of the model's state
    ("fsdp", "zero3"), AdamW's moments ("zero1"), or these and gradients ("zero2")."""
    deepspeed: Path | None = None
    """DeepSpeed's JSON for further settings, such as buckets and offloading."""

    @model_validator(mode="after")
    def _sharding_fits(self) -> Self:
        if self.sharding == "zero3" and self.ema_decay is not None:
            raise ValueError(
                "an average of the weights (ema_decay) cannot be kept under zero3; use fsdp, "
                "which shares out as much, or zero2"
            )
        if self.deepspeed is not None and not self.sharding.startswith("zero"):
            raise ValueError(
                f"deepspeed is {self.deepspeed}, but sharding is {self.sharding}; set zero1, "
                "zero2 or zero3, or leave the file out"
            )
        return self


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
    """One 63-bit seed from several numbers (seed, step, rank …); near ones give distant seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
