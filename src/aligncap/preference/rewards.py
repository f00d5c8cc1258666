"""What PPO maximises: a reward of captions of a clip, by name."""

from collections.abc import Sequence
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Protocol, Self

from pydantic import model_validator

from aligncap.preference.evidence_judge import EvidenceWeights
from aligncap.preference.rows import PreferenceRow
from aligncap.recipes import one_of, recipe_section

REWARDS = {
    "evidence": "aligncap.preference.claims",
    "model": "aligncap.preference.reward",
}
"""Where rewards come from: name → module with open_reward(settings)."""


class RewardOf(Protocol):
    """Says how good captions of a clip are; more is better."""

    def __call__(self, row: PreferenceRow, texts: Sequence[str]) -> list[float]:
        """The reward of each text, which is in the row's language."""


@recipe_section
class RewardSettings:
    """Which reward, and where it is."""

    name: Annotated[str, one_of(REWARDS)] = "evidence"
    """"evidence" (what the signal and the labels say: a verifiable reward) or "model"."""
    model: Path | None = None
    """Folder of the reward model, for "model"."""
    evidence: EvidenceWeights = field(default_factory=EvidenceWeights)
    """What claims are worth and what they cost, for "evidence"."""

    @model_validator(mode="after")
    def _model_is_given(self) -> Self:
        if (self.name == "model") != (self.model is not None):
            raise ValueError('the reward "model" needs reward.model, its folder; others have none')
        return self


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward that the settings ask for; what it needs is imported only now."""
    reward: RewardOf = import_module(REWARDS[settings.name]).open_reward(settings)
    return reward
