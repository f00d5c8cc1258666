"""The policy of PPO: the captioner with a value head on its hidden states.

π_ref: the policy as it was before its first step, whose log-probabilities are constants.

They are computed once, with the very weights that training is about to change, and kept on disk:
no second copy of the model is loaded, and an adapter that is trained further needs no care
(switching it off would take its learnt speech rows away as well; decision 12).

PO-Regularization (§3.2, Eq. 6): the policy learns what a judge preferred, directly.

All candidates of a clip share its prompt, which is encoded once; the reference's log-probabilities
are computed before the first step and kept (decision 12).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from aligncap.alignment.examples import Example, Sample
from aligncap.alignment.teacher import (
    Distributions,
    FrozenCache,
    Teacher,
    TeacherCache,
    batch_of,
    fingerprint_of,
    shared_rows,
)
from aligncap.alignment.trainer import (
    CaptionObjective,
    StageSettings,
    StageTrainer,
    TaskBatch,
    TrainingTask,
)
from aligncap.captioner.model import CaptionModel, TorchBatch, target_log_probs
from aligncap.captioner.prompts import SharedPromptRow, to_torch
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.examples import (
    PairBatchSettings,
    PairDataset,
    Pairs,
    read_preferences,
    require_start,
    start_act_mode,
    with_pairs,
)
from aligncap.preference.losses import LOSSES, log_ratio_margins
from aligncap.preference.reward import CaptionCheck, CheckSettings, RowCaptioner
from aligncap.recipes import Trainer, one_of, recipe_section
from aligncap.training.devices import first_process_first, training_device
from aligncap.training.loop import evaluating


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What the policy says of the N tokens of a batch's responses."""

    log_probs: Tensor
    """[N]"""
    values: Tensor
    """[N]; the reward still to come, as seen before the token."""
    entropy: Tensor
    """[N], in nats."""


class PolicyWithValue(nn.Module):
    """One body, two heads: which token next, and what the response will be worth.

    The KL coefficient is a buffer, so that checkpoints keep it.
    """

    coefficient: Tensor

    def __init__(self, captioner: CaptionModel, *, coefficient: float) -> None:
        super().__init__()
        self.captioner = captioner
        self.value = nn.Linear(captioner.width, 1)
        # Nothing is known of values at first: 0 is as good a guess as any, and biases nothing.
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        self.register_buffer("coefficient", torch.tensor(coefficient, dtype=torch.float64))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.captioner.device

    def forward(self, batch: TorchBatch) -> TokenScores:
        """Log-probability, value and entropy of each token, from one pass."""
        logits, states = self.captioner.text_logits_and_states(batch)
        logits = logits.float()
        log_probs = target_log_probs(logits, batch.target_ids)
        values = self.value(states.float()).squeeze(-1)
        with torch.no_grad():
            spread = logits.detach().log_softmax(-1)
            entropy = -(spread.exp() * spread).sum(-1)
        return TokenScores(log_probs, values, entropy)


class StartingPolicy:
    """A model that is about to be trained, as a teacher: to be asked before the first step only."""

    def __init__(self, model: CaptionModel) -> None:
        self._model = model.to(training_device())
        self.fingerprint = fingerprint_of(model.named_parameters())
        self.text_vocab_size = model.vocabulary.text_rows

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_rows] of every token of every response."""
        with evaluating(self._model):
            return self._model.text_logits(batch_of(self._model, rows))


class ReferenceCache:
    """log π_ref of each of a fixed list of examples, summed over its tokens.

    In a folder of `root` named by a hash of the reference's weights and the examples.
    """

    def __init__(self, root: Path, reference: Teacher, examples: Sequence[Example]) -> None:
        self._reference, self._examples = reference, examples
        self._cache = FrozenCache(
            root,
            examples,
            described=reference.fingerprint,
            arrays={"log_probs": (np.float32, ())},
            rows_of=lambda _: 1,
        )
        self.folder = self._cache.folder

    def fill(self) -> int:
        """Compute what is missing; returns how many were. Safe to stop and repeat."""
        with first_process_first():
            return self._cache.fill(self._examples, self._compute)

    def lookup(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """The log-probability of each example's response, [examples]."""
        return self._cache.get("log_probs", examples)

    def _compute(self, groups: Sequence[Sequence[Example]]) -> None:
        examples = [example for group in groups for example in group]
        logits = self._reference.text_logits(shared_rows(groups))
        targets = [i for example in examples for i in example.response_ids]
        tokens = target_log_probs(logits, torch.tensor(targets, device=logits.device)).cpu()
        ends = np.cumsum([len(example.response_ids) for example in examples])[:-1]
        parts = np.split(tokens.double().numpy(), ends)
        for example, part in zip(examples, parts, strict=True):
            self._cache.put(example, {"log_probs": part.sum()})


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


@dataclass(frozen=True, slots=True)
class PairObjective:
    """A preference loss, and how far the policy prefers what was chosen."""

    settings: PairLossSettings

    def training_losses(self, model: CaptionModel, batch: TaskBatch[Pairs]) -> dict[str, Tensor]:
        """{"loss", "accuracy", "margin", "chosen_reward", "rejected_reward"}: means over pairs.

        The rewards are implicit, β (log π - log π_ref); a pair is right where the chosen
        response has the higher one, and the margin is by how much.
        """
        settings, pairs = self.settings, batch.targets
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

    def validation_losses(self, model: CaptionModel, batch: TaskBatch[Pairs]) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(model, batch)

    def count(self, batch: TaskBatch[Pairs]) -> int:
        """Pairs."""
        return len(batch.targets.chosen)


def plan(settings: DpoSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_preference(settings)


def train_dpo(settings: DpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Optimise the policy by the pairs; the model folder is `output`/model."""
    every, source = read_preferences(settings.data.rows)
    rows = with_pairs(every, candidates=settings.batch.captions)
    trainer = StageTrainer(settings, output, kind="dpo", data=([row.clip for row in rows], source))
    root = settings.reference or output / CACHE_FOLDER
    act_mode = start_act_mode(settings)
    book = PairDataset(
        trainer.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode
    )
    task, drift = dpo_task(settings, trainer, book, root)
    captioner = RowCaptioner(trainer.model, trainer.prompter, settings.limits, act_mode)
    check = CaptionCheck(captioner, rows, settings.check)
    return trainer.run(
        task,
        acoustic_prompt_source=act_mode,
        resume=resume,
        extra_metrics=lambda: {**drift(), **check()},
    )


def dpo_task(
    settings: DpoSettings, trainer: StageTrainer, book: PairDataset, root: Path
) -> tuple[TrainingTask[Pairs], Callable[[], Mapping[str, float]]]:
    """The pairs beside the reference's log-probabilities, and what tells how far the policy is
    from the reference: {"validation_kl": KL(π_ref ‖ π) a response token of validation rows}."""
    start = StartingPolicy(trainer.model)
    cache = ReferenceCache(root, start, book.examples(book.all_draws()))
    cache.fill()

    def beside(draws: Sequence[Sample]) -> Pairs:
        pairs = book.pairs_of(draws)
        return Pairs(pairs.chosen, pairs.rejected, cache.lookup(book.examples(draws)))

    task = TrainingTask(
        rows_of=lambda draw: [book.row_of(draw)],
        objective=PairObjective(settings.loss),
        targets=beside,
    )
    return task, _drift(trainer, book, start, root)


def _drift(
    trainer: StageTrainer, book: PairDataset, start: StartingPolicy, root: Path
) -> Callable[[], Mapping[str, float]]:
    examples = book.examples(trainer.validation_samples())
    if not examples:
        return dict
    cache = TeacherCache(root, start, examples, top_k=TOP_K)
    with first_process_first():
        cache.fill(examples)

    def said(draws: Sequence[Sample]) -> Distributions | None:
        return cache.lookup(book.examples(draws))

    task = TrainingTask(
        rows_of=lambda draw: [book.row_of(draw)],
        objective=CaptionObjective(kl_weight=1.0, ce_weight=0.0),
        targets=said,
    )
    means = trainer.validator(task, trainer.model)
    return lambda: {"validation_kl": means()["validation_kl"]}


DPO = Trainer(DpoSettings, plan, train_dpo)
