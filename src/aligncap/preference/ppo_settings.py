"""The recipe of kind "ppo"."""

from dataclasses import dataclass, field

from aligncap.alignment.settings import BatchSettings, StageSettings
from aligncap.errors import RecipeError
from aligncap.preference.caption_check import CheckSettings
from aligncap.preference.rewards import RewardSettings
from aligncap.preference.start import require_start


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatchSettings(BatchSettings):
    """What one round of rollouts holds."""

    captions: int = 4
    """Rollouts of a clip, which share its prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoLossSettings:
    """How the policy follows its rewards."""

    epochs: int = 2
    """Passes over each round of rollouts."""
    minibatches: int = 2
    """Batches of each pass; each is one of `training.steps` (times accumulation)."""
    clip: float = 0.2
    """How far a token's probability may move from the one it was drawn with, as a share."""
    value_clip: float = 0.2
    value_weight: float = 0.1
    discount: float = 1.0
    """γ: a caption is worth the same whether it takes long to say or not."""
    decay: float = 0.95
    """λ of generalised advantage estimation."""
    kl_coefficient: float = 0.2
    """What a nat away from the reference costs, at first."""
    kl_target: float = 6.0
    """Nats a response that the coefficient is steered to."""
    kl_rate: float = 0.1
    """How fast it is."""
    unfinished_penalty: float = 1.0
    """What a response costs that was cut off at the greatest length."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("clip", "value_clip", "kl_target"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("discount", "decay"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name in ("value_weight", "kl_coefficient", "kl_rate", "unfinished_penalty"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")

    @property
    def updates(self) -> int:
        """Batches that learn from one round of rollouts."""
        return self.epochs * self.minibatches


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoSettings(StageSettings):
    """A recipe of kind "ppo"."""

    batch: RolloutBatchSettings = field(default_factory=RolloutBatchSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    ppo: PpoLossSettings = field(default_factory=PpoLossSettings)
    check: CheckSettings = field(default_factory=CheckSettings)

    def __post_init__(self) -> None:
        require_start(self)
        if self.batch.rows < self.ppo.minibatches:
            raise RecipeError(
                f"{self.batch.rows} clips a round do not fill {self.ppo.minibatches} minibatches"
            )
        if self.training.sharding in ("fsdp", "zero3"):
            raise RecipeError(
                f"training.sharding is {self.training.sharding}, but captions are drawn from whole "
                "weights, each process its own: use none, zero1 or zero2"
            )
        if self.ppo.updates % self.training.accumulation:
            raise RecipeError(
                f"a round gives {self.ppo.updates} batches (epochs x minibatches), which "
                f"accumulation {self.training.accumulation} must divide"
            )


def _require(name: str, value: float, holds: bool, rule: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value}, must be {rule}")
