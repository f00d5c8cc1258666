"""PO-Regularization (§3.2, Eq. 6): the policy learns from pairs directly (decision 12).

Each pair loss is a pure function of margins [pairs],

    h = (log π(c) - log π_ref(c)) - (log π(r) - log π_ref(r)),

c the chosen and r the rejected response, log-probabilities summed over the response's tokens (or
their mean, if `length_normalised`). All candidates of a clip share its prompt, which is encoded
once. π_ref is the policy before its first step: its log-probabilities are computed once, with the
very weights that training is about to change, and kept on disk. No second copy of the model is
loaded, and an adapter that is trained further needs no care (switching it off would take its
learnt speech rows away as well).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from aligncap.alignment import teacher
from aligncap.alignment.examples import Example, Sample
from aligncap.alignment.kd import CaptionObjective
from aligncap.alignment.trainer import StageTrainer, TaskBatch, TrainingTask
from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.captioner.prompts import SharedPromptRow, to_torch
from aligncap.preference.examples import (
    PairBatchSettings,
    PairDataset,
    Pairs,
    PreferenceSettings,
    plan_preference,
    read_preferences,
    require_start,
    start_act_mode,
    with_pairs,
)
from aligncap.preference.reward import CaptionCheck, CheckSettings, RowCaptioner
from aligncap.recipes import Trainer, one_of, recipe_section
from aligncap.training.devices import first_process_first, training_device
from aligncap.training.loop import evaluating

PairLoss = Callable[[Tensor, float, float], Tensor]
"""(margins [pairs], β, smoothing) → losses [pairs]."""


def log_ratio_margins(
    policy: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor
) -> Tensor:
    """h of each pair, [pairs].

    `policy` and `reference` [responses] are log-probabilities of all responses of a batch,
    `chosen` and `rejected` [pairs] are places among them. The reference gets no gradient.
    """
    ratios = policy - reference.detach()
    return ratios[chosen] - ratios[rejected]


def dpo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-log σ(β h): direct preference optimisation (Rafailov et al. 2023, Eq. 7).

    What Eq. 6 must mean (decision 12). `smoothing` has no part in it.
    """
    del smoothing
    return -logsigmoid(beta * margins)


def paper_eq6(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-β log σ(h): Eq. 6 as printed but for its sign, which would make chosen captions unlikely.

    β scales the loss instead of the margin: with AdamW, which divides by the gradient's size, it
    has next to no effect.
    """
    del smoothing
    return -beta * logsigmoid(margins)


def ipo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """(h - 1/(2β))²: identity preference optimisation (Azar et al. 2024, Eq. 17; τ is β here).

    Its authors take mean log-probabilities: use it with `length_normalised`.
    """
    del smoothing
    return (margins - 1 / (2 * beta)).square()


def cdpo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-(1-ε) log σ(β h) - ε log σ(-β h): DPO where a share ε of the pairs is the wrong way round.

    Conservative DPO (Mitchell 2023); ε is `smoothing`, and 0 makes it `dpo`.
    """
    scaled = beta * margins
    return -(1 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)


LOSSES: dict[str, PairLoss] = {"dpo": dpo, "paper_eq6": paper_eq6, "ipo": ipo, "cdpo": cdpo}
"""What a recipe of kind "dpo" can minimise, by name."""


class StartingPolicy:
    """A model that is about to be trained, as a teacher: valid until its first step only."""

    def __init__(self, model: CaptionModel) -> None:
        self._model = model.to(training_device())
        self.fingerprint = teacher.fingerprint_of(model.named_parameters())
        self.text_vocab_size = model.vocabulary.text_vocab_size

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_vocab_size] of every token of every response."""
        with evaluating(self._model):
            return self._model.text_logits(teacher.batch_of(self._model, rows))


class ReferenceCache:
    """log π_ref of each of a fixed list of examples, summed over its tokens.

    In a folder of `root` named by a hash of the reference's weights and the examples.
    """

    def __init__(self, root: Path, reference: teacher.Teacher, examples: Sequence[Example]) -> None:
        self._reference, self._examples = reference, examples
        self._cache = teacher.FrozenCache(
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
        logits = self._reference.text_logits(teacher.shared_rows(groups))
        targets = [i for example in examples for i in example.response_ids]
        tokens = target_log_probs(logits, torch.tensor(targets, device=logits.device)).cpu()
        ends = np.cumsum([len(example.response_ids) for example in examples])[:-1]
        parts = np.split(tokens.double().numpy(), ends)
        for example, part in zip(examples, parts, strict=True):
            self._cache.put(example, {"log_probs": part.sum()})


CACHE_FOLDER = "reference"
"""Of a run: the reference's log-probabilities, where the recipe names no other folder."""

TOP_K = 64
"""Tokens of the reference's distributions that validation's KL is computed from."""


@recipe_section
class PairLossSettings:
    """What is minimised over the pairs."""

    name: Annotated[str, one_of(LOSSES)] = "dpo"
    """One of `LOSSES`: "dpo", "paper_eq6", "ipo" or "cdpo"."""
    beta: PositiveFloat = 0.1
    """Cost of leaving the reference; §3.2 leaves it open (decision 12)."""
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """"cdpo" only: the share of pairs thought to be the wrong way round."""
    length_normalised: bool = False
    """Mean instead of summed log-probabilities: a long caption weighs no more than a short one."""
    likelihood_weight: NonNegativeFloat = 0.0
    """Weight of the chosen captions' own cross-entropy a token, mean over pairs, added to it; not
    in the paper."""

    @model_validator(mode="after")
    def _smoothing_is_of_cdpo(self) -> Self:
        if self.smoothing and self.name != "cdpo":
            raise ValueError(f"smoothing is {self.smoothing}, must be 0 for all but cdpo")
        return self


@recipe_section
class DpoSettings(PreferenceSettings):
    """A recipe of kind "dpo"."""

    batch: PairBatchSettings = field(default_factory=PairBatchSettings)
    loss: PairLossSettings = field(default_factory=PairLossSettings)
    check: CheckSettings = field(default_factory=CheckSettings)
    reference: Path | None = None
    """Folder of the reference's log-probabilities, to share between runs; in the run's if not
    given."""

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        require_start(self)
        return self


@dataclass(frozen=True, slots=True)
class PairObjective:
    """A preference loss, and how far the policy prefers the chosen responses."""

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
            loss = loss - settings.likelihood_weight * scores.mean[chosen].mean()
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
    """The plan of a dry run."""
    return plan_preference(settings)


def train_dpo(settings: DpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Optimise the policy by the pairs; the model folder is `output`/model."""
    every, source = read_preferences(settings.data.rows)
    rows = with_pairs(every, candidates=settings.batch.captions)
    trainer = StageTrainer(settings, output, kind="dpo", data=([row.clip for row in rows], source))
    rows = [rows[place] for place in trainer.places]
    root = settings.reference or output / CACHE_FOLDER
    act_mode = start_act_mode(settings)
    book = PairDataset(
        trainer.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode
    )
    start = StartingPolicy(trainer.model)
    task = dpo_task(settings, book, start, root)
    drift = reference_kl(trainer, book, start, root)
    captioner = RowCaptioner(trainer.model, trainer.prompter, trainer.limits, act_mode)
    check = CaptionCheck(captioner, rows, settings.check)
    return trainer.run(
        task,
        acoustic_prompt_source=act_mode,
        resume=resume,
        extra_metrics=lambda: {**drift(), **check()},
    )


def dpo_task(
    settings: DpoSettings, book: PairDataset, start: StartingPolicy, root: Path
) -> TrainingTask[Pairs]:
    """The pairs of a batch with the reference's log-probabilities, which are computed first."""
    cache = ReferenceCache(root, start, book.examples(book.all_samples()))
    cache.fill()

    def targets(samples: Sequence[Sample]) -> Pairs:
        return replace(book.pairs_of(samples), reference=cache.lookup(book.examples(samples)))

    return TrainingTask(
        rows_of=lambda sample: [book.row_of(sample)],
        objective=PairObjective(settings.loss),
        targets=targets,
    )


def reference_kl(
    trainer: StageTrainer, book: PairDataset, start: StartingPolicy, root: Path
) -> Callable[[], Mapping[str, float]]:
    """What measures how far the policy is from the reference: {"validation_kl": KL(π_ref ‖ π) a
    response token of validation rows}, or nothing where there are none."""
    examples = book.examples(trainer.validation_samples())
    if not examples:
        return dict
    cache = teacher.TeacherCache(root, start, examples, top_k=TOP_K)
    with first_process_first():
        cache.fill(examples)

    def targets(samples: Sequence[Sample]) -> teacher.Distributions | None:
        return cache.lookup(book.examples(samples))

    task = TrainingTask(
        rows_of=lambda sample: [book.row_of(sample)],
        objective=CaptionObjective(kl_weight=1.0, ce_weight=0.0),
        targets=targets,
    )
    means = trainer.validator(task, trainer.model)
    return lambda: {"validation_kl": means()["validation_kl"]}


DPO = Trainer(DpoSettings, plan, train_dpo)
