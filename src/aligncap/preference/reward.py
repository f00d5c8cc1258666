"""A reward model: a captioner's body that reads prompt and caption, and a scalar head.

The reward model of RLHF: Bradley–Terry on the same pairs that DPO reads (decision 13).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from pydantic import model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.alignment.examples import Prompter, Sample
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.stage import Stage, TaskBatch, TrainingTask
from aligncap.alignment.teacher import batch_of
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.model import CaptionModel, TorchBatch, seeded
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, to_torch
from aligncap.errors import DataError, MissingModelError
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.evidence import RewardOf, RewardSettings
from aligncap.preference.examples import (
    PairBatchSettings,
    PairDataset,
    Pairs,
    PreferenceRow,
    read_preferences,
    reads,
    require_start,
    start_act_mode,
    with_pairs,
)
from aligncap.preference.losses import bradley_terry
from aligncap.recipes import Trainer, recipe_section
from aligncap.training.devices import is_first_process, training_device
from aligncap.training.loop import evaluating

HEAD_FILE = "reward_head.safetensors"
"""Of a reward model's folder, beside the model."""


class RewardModel(nn.Module):
    """Gives every response a scalar: a linear head on the hidden state of its last token."""

    centre: Tensor
    spread: Tensor

    def __init__(self, body: CaptionModel, *, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        with seeded(seed):
            self.head = nn.Linear(body.width, 1)
            # As small as a normalised state is wide: rewards begin near 0 (Stiennon et al. 2020).
            nn.init.normal_(self.head.weight, std=(body.width + 1) ** -0.5)
            nn.init.zeros_(self.head.bias)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    def forward(self, batch: TorchBatch) -> Tensor:
        """Raw rewards [R] of the responses of a batch of `read_whole` rows."""
        last = batch.response_lengths.cumsum(0) - 1
        states = self.body.predicting_states(batch)[last]
        rewards: Tensor = self.head(states.float()).squeeze(-1)
        return rewards

    def rewards(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Rewards [R] without gradient, in standard deviations from the usual caption."""
        with evaluating(self):
            raw = self(batch_of(self.body, [read_whole(row) for row in rows]))
        standard: Tensor = (raw - self.centre) / self.spread
        return standard

    def standardise(self, rows: Sequence[SharedPromptRow]) -> None:
        """Make the rewards of these rows' responses have mean 0 and standard deviation 1.

        Only differences are learnt; PPO wants a scale that means the same in every run.
        """
        self.centre.zero_()
        self.spread.fill_(1.0)
        raw = torch.cat([self.rewards([row]) for row in rows])
        self.centre.copy_(raw.mean())
        self.spread.copy_(raw.std(correction=0).clamp(min=1e-6))


def read_whole(row: SharedPromptRow) -> SharedPromptRow:
    """A row whose responses are fed to their very end: a batch leaves out the last token."""
    return SharedPromptRow(row.prompt_ids, tuple((*said, said[-1]) for said in row.responses))


def save_head(model: RewardModel, folder: Path) -> None:
    """Write the head into the folder of the reward model's body."""
    tensors = {"weight": model.head.weight, "bias": model.head.bias}
    tensors |= {"centre": model.centre, "spread": model.spread}
    save_file({n: t.detach().cpu().clone() for n, t in tensors.items()}, folder / HEAD_FILE)


def load_reward_model(folder: Path) -> RewardModel:
    """The reward model of a folder; MissingModelError where there is no head in it."""
    path = folder / HEAD_FILE
    if not path.is_file():
        raise MissingModelError(
            f"{folder}: holds no {HEAD_FILE}, so it is no reward model; train one with kind "
            '= "reward"'
        )
    model = RewardModel(load_torch(folder))
    stored = load_file(path)
    with torch.no_grad():
        model.head.weight.copy_(stored["weight"])
        model.head.bias.copy_(stored["bias"])
        model.centre.copy_(stored["centre"])
        model.spread.copy_(stored["spread"])
    return model.to(training_device()).requires_grad_(requires_grad=False).eval()


class ModelReward:
    """The reward "model": texts are read by a trained reward model."""

    def __init__(self, folder: Path) -> None:
        self._model, self._folder = load_reward_model(folder), folder
        meta = read_meta(folder)
        self._builder = PromptBuilder(self._model.body.vocabulary, meta.prompts)
        self._reads = reads(meta.act_mode)

    def __call__(self, row: PreferenceRow, texts: Sequence[str]) -> list[float]:
        """The reward of each text, the prompt read once for all."""
        if row.language not in self._builder.template.instructions:
            raise DataError(f"{self._folder}: knows no captions in {row.language!r}")
        prompter = Prompter(self._builder, [row.clip])
        prompt = prompter.student_row(Sample(0, row.language, (0,), None), self._reads).prompt_ids
        said = tuple(tuple(self._builder.response(text)) for text in texts)
        found: list[float] = self._model.rewards([SharedPromptRow(prompt, said)]).tolist()
        return found


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


@dataclass(frozen=True, slots=True)
class BradleyTerryObjective:
    """-log σ(r_chosen - r_rejected)."""

    def training_losses(self, model: RewardModel, batch: TaskBatch[Pairs]) -> dict[str, Tensor]:
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

    def validation_losses(self, model: RewardModel, batch: TaskBatch[Pairs]) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(model, batch)

    def count(self, batch: TaskBatch[Pairs]) -> int:
        """Pairs."""
        return len(batch.beside.chosen)


def plan(settings: RewardModelSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_preference(settings, wrap=RewardModel)


def train_reward_model(
    settings: RewardModelSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Fit the reward model; `output`/model holds its body and its head."""
    every, source = read_preferences(settings.data.rows)
    rows = with_pairs(every, candidates=settings.batch.captions)
    stage = Stage(settings, output, kind="reward", data=([row.clip for row in rows], source))
    act_mode = start_act_mode(settings)
    book = PairDataset(stage.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode)
    lesson = TrainingTask(
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


def open_model_reward(settings: RewardSettings) -> RewardOf:
    """The reward "model"."""
    assert settings.model is not None
    return ModelReward(settings.model)


REWARD = Trainer(RewardModelSettings, plan, train_reward_model)
