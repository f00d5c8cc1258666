"""The recipe of kind "ppo"."""

from dataclasses import field
from typing import Self

from pydantic import NonNegativeFloat, PositiveFloat, model_validator

from aligncap.alignment.settings import BatchSettings, StageSettings
from aligncap.preference.caption_check import CheckSettings
from aligncap.preference.rewards import RewardSettings
from aligncap.preference.start import require_start
from aligncap.recipes import Count, Share, recipe_section


@recipe_section
class RolloutBatchSettings(BatchSettings):
    """What one round of rollouts holds."""

    captions: Count = 4
    """Rollouts of a clip, which share its prompt."""


@recipe_section
class PpoLossSettings:
    """How the policy follows its rewards."""

    epochs: Count = 2
    """Passes over each round of rollouts."""
    minibatches: Count = 2
    """Batches of each pass; each is one of `training.steps` (times accumulation)."""
    clip: PositiveFloat = 0.2
    """How far a token's probability may move from the one it was drawn with, as a share."""
    value_clip: PositiveFloat = 0.2
    value_weight: NonNegativeFloat = 0.1
    discount: Share = 1.0
    """γ: a caption is worth the same whether it takes long to say or not."""
    decay: Share = 0.95
    """λ of generalised advantage estimation."""
    kl_coefficient: NonNegativeFloat = 0.2
    """What a nat away from the reference costs, at first."""
    kl_target: PositiveFloat = 6.0
    """Nats a response that the coefficient is steered to."""
    kl_rate: NonNegativeFloat = 0.1
    """How fast it is."""
    unfinished_penalty: NonNegativeFloat = 1.0
    """What a response costs that was cut off at the greatest length."""

    @property
    def updates(self) -> int:
        """Batches that learn from one round of rollouts."""
        return self.epochs * self.minibatches


@recipe_section
class PpoSettings(StageSettings):
    """A recipe of kind "ppo"."""

    batch: RolloutBatchSettings = field(default_factory=RolloutBatchSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    ppo: PpoLossSettings = field(default_factory=PpoLossSettings)
    check: CheckSettings = field(default_factory=CheckSettings)

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        require_start(self)
        if self.batch.rows < self.ppo.minibatches:
            raise ValueError(
                f"{self.batch.rows} clips a round do not fill {self.ppo.minibatches} minibatches"
            )
        if self.training.sharding in ("fsdp", "zero3"):
            raise ValueError(
                f"training.sharding is {self.training.sharding}, but captions are drawn from whole "
                "weights, each process its own: use none, zero1 or zero2"
            )
        if self.ppo.updates % self.training.accumulation:
            raise ValueError(
                f"a round gives {self.ppo.updates} batches (epochs x minibatches), which "
                f"accumulation {self.training.accumulation} must divide"
            )
        return self
