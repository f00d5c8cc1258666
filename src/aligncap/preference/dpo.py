"""PO-Regularization (§3.2, Eq. 6): the policy learns what a judge preferred, directly.

All candidates of a clip share its prompt, which is encoded once; the reference's log-probabilities
are computed before the first step and kept (decision 12).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from aligncap.alignment.draws import Draw
from aligncap.alignment.lessons import Lesson
from aligncap.alignment.objective import CaptionObjective, LessonBatch
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.stages import Stage
from aligncap.alignment.store import Distributions
from aligncap.alignment.teacher import TeacherCache
from aligncap.captioner.batches import to_torch
from aligncap.captioner.model import CaptionModel
from aligncap.preference.caption_check import CaptionCheck, Captioning, CheckSettings
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.losses import LOSSES, log_ratio_margins
from aligncap.preference.pair_lessons import PairBatchSettings, PairBook, Pairs, with_pairs
from aligncap.preference.reference import ReferenceCache, StartingPolicy
from aligncap.preference.rows import read_preferences
from aligncap.preference.start import require_start, start_act_mode
from aligncap.recipes import one_of, recipe_section
from aligncap.training import first_process_first

CACHE_FOLDER = "reference"
"""Of a run: what the reference says, where the recipe names no other folder."""

TOP_K = 64
"""Tokens of the reference's distributions that validation's KL is told by."""


@recipe_section
class PairLossSettings:
    """What is minimised over the pairs."""

    name: Annotated[str, one_of(LOSSES)] = "dpo"
    """One of `losses.LOSSES`: "dpo", "paper_eq6", "ipo" or "cdpo"."""
    beta: PositiveFloat = 0.1
    """How dear it is to leave the reference; §3.2 leaves it open (decision 12)."""
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """"cdpo" only: the share of pairs thought to be the wrong way round."""
    length_normalised: bool = False
    """Mean instead of summed log-probabilities: a long caption weighs no more than a short one."""
    likelihood_weight: NonNegativeFloat = 0.0
    """Weight of the chosen captions' own cross-entropy beside it; not in the paper."""

    @model_validator(mode="after")
    def _smoothing_is_of_cdpo(self) -> Self:
        if self.smoothing and self.name != "cdpo":
            raise ValueError(f"smoothing is {self.smoothing}, must be 0 for all but cdpo")
        return self


@recipe_section
class DpoSettings(StageSettings):
    """A recipe of kind "dpo"."""

    batch: PairBatchSettings = field(default_factory=PairBatchSettings)
    loss: PairLossSettings = field(default_factory=PairLossSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    reference: Path | None = None
    """Folder of what the reference says, to share between runs; inside the run's if not given."""

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        require_start(self)
        return self


SETTINGS = DpoSettings


@dataclass(frozen=True, slots=True)
class PairObjective:
    """A preference loss, and how far the policy prefers what was chosen."""

    settings: PairLossSettings

    def training_losses(self, model: CaptionModel, batch: LessonBatch[Pairs]) -> dict[str, Tensor]:
        """{"loss", "accuracy", "margin", "chosen_reward", "rejected_reward"}: means over pairs.

        The rewards are implicit, β (log π - log π_ref); a pair is right where the chosen
        response has the higher one, and the margin is by how much.
        """
        settings, pairs = self.settings, batch.beside
        assert pairs.reference is not None
        shared = to_torch(batch.shared, model.device)
        chosen, rejected, reference = (
            torch.from_numpy(array).to(model.device)
            for array in (pairs.chosen, pairs.rejected, pairs.reference)
        )
        scores = model.response_log_probs(shared)
        policy = scores.mean if settings.length_normalised else scores.sum
        if settings.length_normalised:
            reference = reference / shared.response_lengths
        margins = log_ratio_margins(policy, reference, chosen, rejected)
        loss = LOSSES[settings.name](margins, settings.beta, settings.smoothing).mean()
        if settings.likelihood_weight:
            loss = loss - settings.likelihood_weight * scores.mean[torch.unique(chosen)].mean()
        rewards = settings.beta * (policy - reference).detach()
        return {
            "loss": loss,
            "accuracy": (margins > 0).float().mean(),
            "margin": settings.beta * margins.detach().mean(),
            "chosen_reward": rewards[chosen].mean(),
            "rejected_reward": rewards[rejected].mean(),
        }

    def validation_losses(
        self, model: CaptionModel, batch: LessonBatch[Pairs]
    ) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(model, batch)

    def count(self, batch: LessonBatch[Pairs]) -> int:
        """Pairs."""
        return len(batch.beside.chosen)


def plan(settings: DpoSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_preference(settings)


def run(settings: DpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Optimise the policy by the pairs; the model folder is `output`/model."""
    every, source = read_preferences(settings.data.rows)
    rows = with_pairs(every, candidates=settings.batch.captions)
    stage = Stage(settings, output, kind="dpo", data=([row.clip for row in rows], source))
    root = settings.reference or output / CACHE_FOLDER
    act_mode = start_act_mode(settings)
    book = PairBook(stage.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode)
    lesson, drift = lesson_of(settings, stage, book, root)
    captioning = Captioning(stage.model, stage.prompter, settings.limits, act_mode)
    check = CaptionCheck(captioning, rows, settings.check)
    return stage.run(
        lesson,
        act_mode=act_mode,
        resume=resume,
        also=lambda: {**drift(), **check()},
    )


def lesson_of(
    settings: DpoSettings, stage: Stage, book: PairBook, root: Path
) -> tuple[Lesson[Pairs], Callable[[], Mapping[str, float]]]:
    """The pairs beside the reference's log-probabilities, and what tells how far the policy is
    from the reference: {"validation_kl": KL(π_ref ‖ π) a response token of validation rows}."""
    start = StartingPolicy(stage.model)
    cache = ReferenceCache(root, start, book.examples(book.all_draws()))
    cache.fill()

    def beside(draws: Sequence[Draw]) -> Pairs:
        pairs = book.pairs_of(draws)
        return Pairs(pairs.chosen, pairs.rejected, cache.lookup(book.examples(draws)))

    lesson = Lesson(
        rows_of=lambda draw: [book.row_of(draw)],
        objective=PairObjective(settings.loss),
        beside=beside,
    )
    return lesson, _drift(stage, book, start, root)


def _drift(
    stage: Stage, book: PairBook, start: StartingPolicy, root: Path
) -> Callable[[], Mapping[str, float]]:
    examples = book.examples(stage.validation_draws())
    if not examples:
        return dict
    cache = TeacherCache(root, start, examples, top_k=TOP_K)
    with first_process_first():
        cache.fill(examples)

    def said(draws: Sequence[Draw]) -> Distributions | None:
        return cache.store.get(book.examples(draws))

    lesson = Lesson(
        rows_of=lambda draw: [book.row_of(draw)],
        objective=CaptionObjective(kl_weight=1.0, ce_weight=0.0),
        beside=said,
    )
    means = stage.validation(lesson, stage.model)
    return lambda: {"validation_kl": means()["validation_kl"]}
