"""The recipe of kind "ppo".

A round of PPO's rollouts, and how it is kept.

A phase depends on the weights, its number and the seed only, and is
kept on disk until no checkpoint needs it any more: a run that was killed between two updates of a
phase goes on with the very same one.

Rollouts of PPO: what the policy says of some clips, what it was worth, and what follows.

The prompt of a clip is encoded once for all its rollouts, when they are drawn and when they are
scored.

RLHF by PPO (decision 13): the policy says captions, is told what they were worth, and learns.

The reward is a Bradley–Terry model or what signal and labels say; the reference is the policy as
it began, and what leaving it costs is steered so that the policy stays near. One `fit` step is one
minibatch; batch `number` belongs to round number // (epochs · minibatches).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from aligncap.alignment.examples import BatchSettings
from aligncap.alignment.init_model import ModelSettings, plan_model
from aligncap.alignment.teacher import AdapterOffTeacher, FrozenTeacher, Teacher, batch_of
from aligncap.alignment.trainer import StageSettings, StageTrainer, TaskBatch
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.captioner.runtimes import DecodeOptions, Sampling
from aligncap.preference.dpo import PolicyWithValue
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.examples import (
    PreferenceRow,
    has_own_reference,
    read_preferences,
    require_start,
    start_act_mode,
)
from aligncap.preference.losses import (
    advantages_of,
    clipped_policy_loss,
    clipped_value_loss,
    next_coefficient,
    token_rewards,
    whitened,
)
from aligncap.preference.reward import (
    HEAD_FILE,
    CaptionCheck,
    CheckSettings,
    RewardOf,
    RewardSettings,
    RowCaptioner,
    open_reward,
)
from aligncap.recipes import Count, Share, Trainer, recipe_section
from aligncap.storage import atomic_file
from aligncap.training.checkpoints import latest_checkpoint
from aligncap.training.devices import training_device
from aligncap.training.dry_run import Needed, weight_bytes
from aligncap.training.loop import evaluating
from aligncap.training.settings import seed_of


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


Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Phase:
    """Rollouts of some clips, N tokens of R responses in reading order."""

    rows: tuple[SharedPromptRow, ...]
    """The clips' prompts, and the responses that were drawn."""
    log_probs: Floats
    """[N]; of the policy that drew them."""
    values: Floats
    """[N]"""
    advantages: Floats
    """[N], whitened over the phase."""
    returns: Floats
    """[N]; what the value head is to say."""
    scores: Floats
    """[R]; the reward of each response, without what distance to the reference costs."""
    kl: float
    """log π - log π_ref of a response, mean over them, in nats."""
    coefficient: float
    """What a nat cost."""
    next_coefficient: float
    """What it costs in the next phase."""
    unfinished: float
    """Share of responses that were cut off."""

    def tokens_of(self, places: Sequence[int]) -> NDArray[np.int64]:
        """Where the tokens of these rows are among the N."""
        lengths = [sum(map(len, row.responses)) for row in self.rows]
        starts = [0, *accumulate(lengths)]
        return np.concatenate([np.arange(starts[p], starts[p + 1]) for p in places])


def save_phase(phase: Phase, path: Path) -> None:
    """Write a phase, whole or not at all."""
    arrays: dict[str, Any] = {
        field.name: getattr(phase, field.name) for field in fields(phase) if field.name != "rows"
    }
    arrays["prompts"], arrays["prompt_lengths"] = _flat([row.prompt_ids for row in phase.rows])
    said = [response for row in phase.rows for response in row.responses]
    arrays["responses"], arrays["response_lengths"] = _flat(said)
    arrays["counts"] = np.array([len(row.responses) for row in phase.rows])
    with atomic_file(path, "wb") as file:
        np.savez(file, **arrays)


def load_phase(path: Path) -> Phase:
    """The phase that `save_phase` wrote; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    prompts = _ragged(arrays.pop("prompts"), arrays.pop("prompt_lengths"))
    said = iter(_ragged(arrays.pop("responses"), arrays.pop("response_lengths")))
    counts = arrays.pop("counts").tolist()
    rows = tuple(
        SharedPromptRow(prompt, tuple(next(said) for _ in range(count)))
        for prompt, count in zip(prompts, counts, strict=True)
    )
    values: dict[str, Any] = {
        name: array if array.ndim else float(array) for name, array in arrays.items()
    }
    return Phase(rows=rows, **values)


def drop_phases(folder: Path, *, before: int) -> None:
    """Remove the phases that come before one, which no checkpoint can go back to."""
    for path in folder.glob("phase-*.npz"):
        if int(path.stem.rpartition("-")[2]) < before:
            path.unlink(missing_ok=True)


def phase_path(folder: Path, number: int) -> Path:
    """Where a phase is kept."""
    return folder / f"phase-{number}.npz"


def _flat(
    lists: Sequence[Sequence[int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(one) for one in lists], dtype=np.int64)
    return np.array([i for one in lists for i in one], dtype=np.int64), lengths


def _ragged(flat: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[tuple[int, ...]]:
    return [tuple(part.tolist()) for part in np.split(flat, np.cumsum(lengths)[:-1])]


PHASES_FOLDER = "rollouts"
"""Of a run: the rounds of rollouts that a checkpoint may still need."""


@dataclass(frozen=True, slots=True)
class PpoTokens:
    """What a minibatch learns from, of its N tokens; and what its round was like."""

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    about: Mapping[str, float]
    """Scalars of the round, logged as they are."""


class Rollouts:
    """Makes the rounds of one run, and cuts them into minibatches."""

    def __init__(
        self,
        settings: PpoSettings,
        trainer: StageTrainer,
        policy: PolicyWithValue,
        rows: Sequence[PreferenceRow],
        *,
        reference: Teacher,
        reward: RewardOf,
    ) -> None:
        self._settings, self._policy, self._rows = settings, policy, rows
        self._reference, self._reward = reference, reward
        act_mode = start_act_mode(settings)
        self._captioner = RowCaptioner(trainer.model, trainer.prompter, settings.limits, act_mode)
        self._folder, self._output = trainer.output / PHASES_FOLDER, trainer.output
        self._sampler = trainer.sampler(
            lambda draw: len(self._captioner.prompt_ids(draw.row, rows[draw.row]))
        )
        self._phase: tuple[int, Phase] | None = None

    def batch_at(self, number: int) -> TaskBatch[PpoTokens]:
        """Minibatch `number` (from 0) of the run."""
        ppo, seed = self._settings.ppo, self._settings.training.seed
        turn, place = divmod(number, ppo.updates)
        phase = self._phase_at(turn)
        epoch, part = divmod(place, ppo.minibatches)
        chance = np.random.default_rng(seed_of(seed, 3, turn, epoch))
        parts = np.array_split(chance.permutation(len(phase.rows)), ppo.minibatches)
        chosen = sorted(parts[part].tolist())
        tokens = phase.tokens_of(chosen)
        log_probs, values, advantages, returns = (
            torch.from_numpy(array[tokens]).float()
            for array in (phase.log_probs, phase.values, phase.advantages, phase.returns)
        )
        about = {
            "reward": float(phase.scores.mean()),
            "kl": phase.kl,
            "kl_coefficient": phase.coefficient,
            "unfinished": phase.unfinished,
            "tokens": len(phase.log_probs) / len(phase.scores),
        }
        rows = [phase.rows[i] for i in chosen]
        known = PpoTokens(log_probs, values, advantages, returns, about)
        return TaskBatch(collate(rows, pad_id=0), known)

    def _phase_at(self, turn: int) -> Phase:
        if self._phase is None or self._phase[0] != turn:
            path = phase_path(self._folder, turn)
            if path.exists():
                # Begun before the run was stopped: its weights may be gone already.
                phase = load_phase(path)
            else:
                with evaluating(self._policy):
                    phase = self._roll_out(turn)
                save_phase(phase, path)
            self._policy.coefficient.fill_(phase.next_coefficient)
            self._phase = turn, phase
            self._forget()
        return self._phase[1]

    def _forget(self) -> None:
        found = latest_checkpoint(self._output)
        if found is not None:
            done = int(found.name.rpartition("-")[2]) * self._settings.training.accumulation
            drop_phases(self._folder, before=done // self._settings.ppo.updates)

    def _roll_out(self, turn: int) -> Phase:
        ppo = self._settings.ppo
        rows, scores, unfinished = self._say(turn)
        batch = batch_of(self._policy.captioner, rows)
        said = self._policy(batch)
        of_reference = target_log_probs(self._reference.text_logits(rows), batch.target_ids)
        log_probs, values, reference = (
            tensor.detach().double().cpu().numpy()
            for tensor in (said.log_probs, said.values, of_reference)
        )
        lengths = [len(response) for row in rows for response in row.responses]
        ratios: Floats = log_probs - reference
        kl = float(ratios.sum() / len(lengths))
        coefficient = float(self._policy.coefficient)
        rewards = token_rewards(
            scores - ppo.unfinished_penalty * unfinished, ratios, lengths, coefficient=coefficient
        )
        advantages = advantages_of(rewards, values, lengths, discount=ppo.discount, decay=ppo.decay)
        return Phase(
            rows=rows,
            log_probs=log_probs,
            values=values,
            advantages=whitened(advantages),
            returns=advantages + values,
            scores=scores,
            kl=kl,
            coefficient=coefficient,
            next_coefficient=next_coefficient(
                coefficient, kl, target=ppo.kl_target, rate=ppo.kl_rate
            ),
            unfinished=float(unfinished.mean()),
        )

    def _say(self, turn: int) -> tuple[tuple[SharedPromptRow, ...], Floats, Floats]:
        """Rows of prompts and responses drawn, the reward of each, and 1 where one was cut off."""
        settings, captioner = self._settings, self._captioner
        limits = settings.limits
        places = [draw.row for draw in self._sampler.samples_at(turn)]
        prompts = [captioner.prompt_ids(place, self._rows[place]) for place in places]
        # Drawn from the policy as it is: another temperature would be another policy's.
        options = DecodeOptions(
            captions=settings.batch.captions,
            min_length=limits.min_tokens,
            max_length=limits.max_tokens,
            sampling=Sampling(seed=seed_of(settings.training.seed, 2, turn)),
        )
        found = captioner.runtime().generate(prompts, options)
        said = [tuple(one.ids for one in hypotheses) for hypotheses in found]
        scores = [
            self._reward(self._rows[place], [captioner.text_of(ids) for ids in responses])
            for place, responses in zip(places, said, strict=True)
        ]
        stops = frozenset(captioner.model.vocabulary.stop_ids(settings.limits.stop_characters))
        cut = [float(ids[-1] not in stops) for ids in chain.from_iterable(said)]
        rows = tuple(SharedPromptRow(p, s) for p, s in zip(prompts, said, strict=True))
        return rows, np.array(list(chain.from_iterable(scores)), dtype=np.float64), np.array(cut)


@dataclass(frozen=True, slots=True)
class PpoObjective:
    """Clipped policy loss + value_weight · clipped value loss."""

    settings: PpoLossSettings

    def training_losses(
        self, policy: PolicyWithValue, batch: TaskBatch[PpoTokens]
    ) -> dict[str, Tensor]:
        """{"loss", "policy_loss", "value_loss", "clipped", "entropy"} and what the round was."""
        settings, known = self.settings, batch.targets
        said = policy(to_torch(batch.shared, policy.device))
        old, values, advantages, returns = (
            tensor.to(policy.device)
            for tensor in (known.log_probs, known.values, known.advantages, known.returns)
        )
        policy_loss, clipped = clipped_policy_loss(
            said.log_probs, old, advantages, clip=settings.clip
        )
        value_loss = clipped_value_loss(said.values, values, returns, clip=settings.value_clip)
        return {
            "loss": policy_loss + settings.value_weight * value_loss,
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "clipped": clipped,
            "entropy": said.entropy.mean(),
            **{name: torch.tensor(value) for name, value in known.about.items()},
        }


def plan(settings: PpoSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`), with the reference and the reward model."""
    needed, beside, notes = [], 0, []
    if settings.reward.model is not None:
        folder = settings.reward.model
        trained = (folder / HEAD_FILE).is_file()
        hint = "" if trained else "train it with a recipe of kind 'reward'"
        needed.append(Needed("reward model", str(folder), hint))
        judge = plan_model(ModelSettings(start=folder), None).model if trained else None
        if judge is None:
            notes.append(f"{folder}: the reward model is not here, so its bytes are not counted")
        else:
            beside = weight_bytes(judge)

    def frozen(policy: CaptionModel) -> int:
        return beside + (weight_bytes(policy) if has_own_reference(settings) else 0)

    return plan_preference(
        settings,
        pairs=False,
        wrap=lambda captioner: PolicyWithValue(captioner, coefficient=0.0),
        frozen=frozen,
        more=needed,
        notes=notes,
    )


def train_ppo(settings: PpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Follow the reward that the recipe names; the model folder is `output`/model."""
    return follow(settings, output, reward=open_reward(settings.reward), resume=resume)


def follow(
    settings: PpoSettings, output: Path, *, reward: RewardOf, resume: bool
) -> Mapping[str, object]:
    """`run` for a reward of one's own, such as a judge."""
    rows, source = read_preferences(settings.data.rows)
    trainer = StageTrainer(settings, output, kind="ppo", data=([row.clip for row in rows], source))
    trainer.model.to(training_device())
    policy = PolicyWithValue(trainer.model, coefficient=settings.ppo.kl_coefficient)
    rollouts = Rollouts(
        settings,
        trainer,
        policy.to(training_device()),
        rows,
        reference=open_reference(settings, trainer),
        reward=reward,
    )
    if latest_checkpoint(output) is None:
        drop_phases(output / PHASES_FOLDER, before=2**62)
    objective = PpoObjective(settings.ppo)
    act_mode = start_act_mode(settings)
    captioner = RowCaptioner(trainer.model, trainer.prompter, settings.limits, act_mode)
    validate: Callable[[], Mapping[str, float]] = CaptionCheck(
        captioner, rows, settings.check, reward=reward
    )
    return trainer.train(
        policy,
        lambda batch: objective.training_losses(policy, batch),
        rollouts.batch_at,
        validate=validate,
        acoustic_prompt_source=act_mode,
        resume=resume,
    )


def open_reference(settings: PpoSettings, trainer: StageTrainer) -> Teacher:
    """π_ref: the model under a fresh adapter, or else a frozen copy of the start."""
    if not has_own_reference(settings):
        return AdapterOffTeacher(trainer.model)
    assert settings.model.start is not None
    start = load_torch(
        settings.model.start, device=str(training_device()), dtype=settings.model.dtype
    )
    return FrozenTeacher(start)


PPO = Trainer(PpoSettings, plan, train_ppo)
