"""The reward model of RLHF: Bradley–Terry on the same pairs that DPO reads (decision 13)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor

from aligncap.alignment.lessons import Lesson
from aligncap.alignment.objective import LessonBatch
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.stages import Stage
from aligncap.captioner.batches import to_torch
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.losses import bradley_terry
from aligncap.preference.pair_lessons import PairBatchSettings, PairBook, Pairs, with_pairs
from aligncap.preference.reward_model import ModelReward, RewardModel, read_whole, save_head
from aligncap.preference.rewards import RewardOf, RewardSettings
from aligncap.preference.rows import read_preferences
from aligncap.preference.start import require_start, start_act_mode
from aligncap.recipes import recipe_section
from aligncap.training import is_first_process

SCALE_ROWS = 256
"""Clips whose candidates say what a usual reward is."""


@recipe_section
class RewardModelSettings(StageSettings):
    """A recipe of kind "reward"."""

    batch: PairBatchSettings = field(default_factory=PairBatchSettings)

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        require_start(self)
        return self


SETTINGS = RewardModelSettings


@dataclass(frozen=True, slots=True)
class BradleyTerryObjective:
    """-log σ(r_chosen - r_rejected)."""

    def training_losses(self, model: RewardModel, batch: LessonBatch[Pairs]) -> dict[str, Tensor]:
        """{"loss", "accuracy", "margin"}: means over pairs."""
        rewards = model(to_torch(batch.shared, model.device))
        chosen, rejected = (
            rewards[torch.from_numpy(places).to(model.device)]
            for places in (batch.beside.chosen, batch.beside.rejected)
        )
        return {
            "loss": bradley_terry(chosen, rejected).mean(),
            "accuracy": (chosen > rejected).float().mean(),
            "margin": (chosen - rejected).detach().mean(),
        }

    def validation_losses(self, model: RewardModel, batch: LessonBatch[Pairs]) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(model, batch)

    def count(self, batch: LessonBatch[Pairs]) -> int:
        """Pairs."""
        return len(batch.beside.chosen)


def plan(settings: RewardModelSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_preference(settings, wrap=RewardModel)


def run(settings: RewardModelSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Fit the reward model; `output`/model holds its body and its head."""
    every, source = read_preferences(settings.data.rows)
    rows = with_pairs(every, candidates=settings.batch.captions)
    stage = Stage(settings, output, kind="reward", data=([row.clip for row in rows], source))
    act_mode = start_act_mode(settings)
    book = PairBook(stage.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode)
    lesson = Lesson(
        rows_of=lambda draw: [read_whole(book.row_of(draw))],
        objective=BradleyTerryObjective(),
        beside=book.pairs_of,
    )
    model = RewardModel(stage.model, seed=settings.training.seed)
    summary = stage.run(lesson, act_mode=act_mode, resume=resume, module=model)
    draws = [draw for draw in book.all_draws() if rows[draw.row].clip.split == "train"]
    model.standardise([book.row_of(draw) for draw in draws[:: -(-len(draws) // SCALE_ROWS)]])
    if is_first_process():
        save_head(model, Path(str(summary["model"])))
    return summary


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward "model"."""
    assert settings.model is not None
    return ModelReward(settings.model)
