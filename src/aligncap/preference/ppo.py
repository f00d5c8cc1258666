"""RLHF by PPO (decision 13): the policy generates captions, and their rewards improve it.

The reward is a reward model's or the evidence judge's (`preference.reward`); the reference is the
policy as it began, and what leaving it costs is steered so that the policy stays near. The prompt
of a clip is encoded once for all its rollouts. One step of `fit` is one minibatch; minibatch
`number` belongs to round number // (epochs · minibatches) of rollouts. A round depends on the
weights, its number and the seed only, and is kept on disk until no checkpoint needs it any more: a
run that was killed between two updates of a round goes on with the very same one.

The arithmetic comes first, as pure functions over the N tokens of R responses in reading order;
`lengths` [R] are the tokens of each response. Ziegler et al. 2019 for the rewards and the
controller, Schulman et al. 2016 and 2017 for advantages and clipping.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor, nn

from aligncap.alignment.examples import BatchSettings
from aligncap.alignment.init_model import ModelSettings, plan_model
from aligncap.alignment.teacher import AdapterOffTeacher, FrozenTeacher, Teacher, batch_of
from aligncap.alignment.trainer import StageTrainer, TaskBatch
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.captioner.prefill import TorchBatch
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.captioner.runtimes import DecodeOptions, Sampling
from aligncap.errors import RecipeError
from aligncap.foreign import reading
from aligncap.preference import examples
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
from aligncap.training.checkpoints import checkpoints, latest_checkpoint
from aligncap.training.devices import training_device
from aligncap.training.dry_run import Needed, weight_bytes
from aligncap.training.loop import evaluating
from aligncap.training.settings import seed_of

Floats = NDArray[np.float64]


def token_rewards(
    scores: Floats, log_ratios: Floats, lengths: Sequence[int], *, coefficient: float
) -> Floats:
    """The reward of each token, [N]: -coefficient · (log π - log π_ref), at a response's last
    token plus its score (Ziegler et al. 2019, Eq. 2).

    `scores` [R] are of whole responses, `log_ratios` [N] of tokens.
    """
    rewards = -coefficient * log_ratios
    rewards[np.cumsum(lengths) - 1] += scores
    return rewards


def advantages_of(
    rewards: Floats, values: Floats, lengths: Sequence[int], *, discount: float, decay: float
) -> Floats:
    """Generalised advantage estimates, [N] (Schulman et al. 2016, Eq. 16).

    δ_t = r_t + γ V_{t+1} - V_t and A_t = δ_t + γλ A_{t+1} within each response, whose end is worth
    nothing further; γ is `discount`, λ is `decay`.
    """
    found = np.empty_like(rewards)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        ahead, value_ahead = 0.0, 0.0
        for place in range(stop - 1, start - 1, -1):
            delta = rewards[place] + discount * value_ahead - values[place]
            ahead = delta + discount * decay * ahead
            value_ahead = values[place]
            found[place] = ahead
    return found


def whitened(values: Floats) -> Floats:
    """The same with mean 0 and standard deviation 1."""
    found: Floats = (values - values.mean()) / (values.std() + 1e-8)
    return found


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """-min(ρ A, clip(ρ, 1-ε, 1+ε) A), mean over tokens, and the share of tokens that were clipped
    (Schulman et al. 2017, Eq. 7).

    ρ = π/π_old of each token; `log_probs`, `old_log_probs` and `advantages` are [N], ε is `clip`.
    """
    ratios = (log_probs - old_log_probs).exp()
    plain = ratios * advantages
    held = ratios.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(plain, held).mean(), (held < plain).float().mean()


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float
) -> Tensor:
    """½ max((V - R)², (V_clipped - R)²), mean over tokens; V moves from V_old by `clip` at most.

    All are [N]. From the implementation of Ziegler et al. 2019.
    """
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square()).mean()


def next_coefficient(coefficient: float, kl: float, *, target: float, rate: float) -> float:
    """The KL coefficient after a batch whose responses were `kl` nats from the reference.

    β ← β (1 + K clip((kl - target) / target, -0.2, 0.2)); K is `rate` (Ziegler et al. 2019, §2.2).
    """
    error = min(0.2, max(-0.2, (kl - target) / target))
    return coefficient * (1 + rate * error)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """The policy's outputs for the N tokens of a batch's responses."""

    log_probs: Tensor
    """[N]"""
    values: Tensor
    """[N]; the reward still to come, as seen before the token."""
    entropy: Tensor
    """[N], in nats."""


class PolicyWithValue(nn.Module):
    """A captioner with a value head on its hidden states.

    The KL coefficient is a buffer, so that checkpoints keep it.
    """

    coefficient: Tensor

    def __init__(self, captioner: CaptionModel, *, coefficient: float) -> None:
        super().__init__()
        self.captioner = captioner
        self.value = nn.Linear(captioner.width, 1)
        # Values begin at 0, which biases nothing.
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


@recipe_section
class RolloutBatchSettings(BatchSettings):
    """The size of a round of rollouts."""

    captions: Count = 4
    """Rollouts of a clip, which share its prompt."""


@recipe_section
class PpoLossSettings:
    """PPO's own settings."""

    epochs: Count = 2
    """Passes over each round of rollouts."""
    minibatches: Count = 2
    """Batches of each pass; each is one of `training.steps` (times accumulation)."""
    clip: PositiveFloat = 0.2
    """How far a token's probability may move from the one it was sampled with, as a share."""
    value_clip: PositiveFloat = 0.2
    value_weight: NonNegativeFloat = 0.1
    discount: Share = 1.0
    """γ: a caption is worth the same whether it is long or short."""
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
        """Minibatches of one round of rollouts."""
        return self.epochs * self.minibatches


@recipe_section
class PpoSettings(examples.PreferenceSettings):
    """A recipe of kind "ppo"."""

    batch: RolloutBatchSettings = field(default_factory=RolloutBatchSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    ppo: PpoLossSettings = field(default_factory=PpoLossSettings)
    check: CheckSettings = field(default_factory=CheckSettings)

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        examples.require_start(self)
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

    def models(self) -> list[Path]:
        """The start and the reward model."""
        return [*super().models(), *([self.reward.model] if self.reward.model else [])]


@dataclass(frozen=True, slots=True)
class Phase:
    """A round of rollouts: N tokens of R responses in reading order."""

    rows: tuple[SharedPromptRow, ...]
    """The clips' prompts, and the responses sampled for each."""
    log_probs: Floats
    """[N]; of the policy that sampled them."""
    values: Floats
    """[N]"""
    advantages: Floats
    """[N], whitened over the phase."""
    returns: Floats
    """[N]; targets of the value head."""
    scores: Floats
    """[R]; the reward of each response, without what distance to the reference costs."""
    kl: float
    """log π - log π_ref of a response, mean over them, in nats."""
    coefficient: float
    """KL coefficient: what a nat cost."""
    next_coefficient: float
    """That of the next phase."""
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
    prompts = [row.prompt_ids for row in phase.rows]
    responses = [response for row in phase.rows for response in row.responses]
    for name, lists in (("prompt", prompts), ("response", responses)):
        arrays[f"{name}s"] = np.array(list(chain.from_iterable(lists)), dtype=np.int64)
        arrays[f"{name}_lengths"] = np.array([len(one) for one in lists], dtype=np.int64)
    arrays["counts"] = np.array([len(row.responses) for row in phase.rows])
    with atomic_file(path, "wb") as file:
        np.savez(file, **arrays)


def load_phase(path: Path) -> Phase:
    """The phase that `save_phase` wrote; nothing is unpickled."""
    with reading(path, hint="remove it, and the round is sampled again"):
        with zipfile.ZipFile(path) as archive:
            # What we write is not compressed; what is may be of any size.
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as stored:
            return _phase_of({name: stored[name] for name in stored.files})


def _phase_of(arrays: dict[str, Any]) -> Phase:
    prompts, responses = (
        [
            tuple(part.tolist())
            for part in np.split(
                arrays.pop(f"{name}s"), np.cumsum(arrays.pop(f"{name}_lengths"))[:-1]
            )
        ]
        for name in ("prompt", "response")
    )
    waiting = iter(responses)
    rows = tuple(
        SharedPromptRow(prompt, tuple(islice(waiting, count)))
        for prompt, count in zip(prompts, arrays.pop("counts").tolist(), strict=True)
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


PHASES_FOLDER = "rollouts"
"""Of a run: the rounds of rollouts that a checkpoint may still need."""


@dataclass(frozen=True, slots=True)
class PpoTokens:
    """Targets of a minibatch's N tokens, and scalars of its round."""

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    round_means: Mapping[str, float]
    """Logged as they are."""


class Rollouts:
    """Makes the rounds of one run, and splits them into minibatches."""

    def __init__(
        self,
        settings: PpoSettings,
        trainer: StageTrainer,
        policy: PolicyWithValue,
        rows: Sequence[examples.PreferenceRow],
        *,
        reference: Teacher,
        reward: RewardOf,
    ) -> None:
        self._settings, self._policy, self._rows = settings, policy, rows
        self._reference, self._reward = reference, reward
        act_mode = examples.start_act_mode(settings)
        self._captioner = RowCaptioner(trainer.model, trainer.prompter, trainer.limits, act_mode)
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
        means = {
            "reward": float(phase.scores.mean()),
            "kl": phase.kl,
            "kl_coefficient": phase.coefficient,
            "unfinished": phase.unfinished,
            "tokens": len(phase.log_probs) / len(phase.scores),
        }
        rows = [phase.rows[i] for i in chosen]
        known = PpoTokens(log_probs, values, advantages, returns, means)
        return TaskBatch(collate(rows, pad_id=0), known)

    def _phase_at(self, turn: int) -> Phase:
        if self._phase is None or self._phase[0] != turn:
            path = self._folder / f"phase-{turn}.npz"
            if path.exists():
                # Begun before the run was stopped: its weights may be gone already.
                phase = load_phase(path)
            else:
                with evaluating(self._policy):
                    phase = self._roll_out(turn)
                save_phase(phase, path)
            self._policy.coefficient.fill_(phase.next_coefficient)
            self._phase = turn, phase
            # A run may go back to the oldest, where a later one is damaged.
            for checkpoint in checkpoints(self._output)[:1]:
                step = int(checkpoint.name.rpartition("-")[2])
                done = step * self._settings.training.accumulation
                drop_phases(self._folder, before=done // self._settings.ppo.updates)
        return self._phase[1]

    def _roll_out(self, turn: int) -> Phase:
        ppo = self._settings.ppo
        rows, scores, unfinished = self._sample(turn)
        batch = batch_of(self._policy.captioner, rows)
        outputs = self._policy(batch)
        of_reference = target_log_probs(self._reference.text_logits(rows), batch.target_ids)
        log_probs, values, reference = (
            tensor.detach().double().cpu().numpy()
            for tensor in (outputs.log_probs, outputs.values, of_reference)
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

    def _sample(self, turn: int) -> tuple[tuple[SharedPromptRow, ...], Floats, Floats]:
        """Prompts with sampled responses, each response's reward, and 1 where it was cut off."""
        settings, captioner = self._settings, self._captioner
        limits = captioner.limits
        places = [draw.row for draw in self._sampler.samples_at(turn)]
        prompts = [captioner.prompt_ids(place, self._rows[place]) for place in places]
        # From the policy as it is: another temperature would be another policy.
        options = DecodeOptions(
            captions=settings.batch.captions,
            min_length=limits.min_tokens,
            max_length=limits.max_tokens,
            sampling=Sampling(seed=seed_of(settings.training.seed, 2, turn)),
        )
        found = captioner.generate(prompts, options)
        sampled = [tuple(one.hypothesis.ids for one in hypotheses) for hypotheses in found]
        scores = [
            self._reward(self._rows[place], [one.text for one in hypotheses])
            for place, hypotheses in zip(places, found, strict=True)
        ]
        stops = frozenset(captioner.model.vocabulary.stop_ids(limits.stop_characters))
        cut = [float(ids[-1] not in stops) for ids in chain.from_iterable(sampled)]
        rows = tuple(SharedPromptRow(p, s) for p, s in zip(prompts, sampled, strict=True))
        return rows, np.array(list(chain.from_iterable(scores)), dtype=np.float64), np.array(cut)


@dataclass(frozen=True, slots=True)
class PpoObjective:
    """Clipped policy loss + value_weight · clipped value loss."""

    settings: PpoLossSettings

    def training_losses(
        self, policy: PolicyWithValue, batch: TaskBatch[PpoTokens]
    ) -> dict[str, Tensor]:
        """{"loss", "policy_loss", "value_loss", "clipped", "entropy"} and the round's means."""
        settings, known = self.settings, batch.targets
        outputs = policy(to_torch(batch.shared, policy.device))
        old, values, advantages, returns = (
            tensor.to(policy.device)
            for tensor in (known.log_probs, known.values, known.advantages, known.returns)
        )
        policy_loss, clipped = clipped_policy_loss(
            outputs.log_probs, old, advantages, clip=settings.clip
        )
        value_loss = clipped_value_loss(outputs.values, values, returns, clip=settings.value_clip)
        return {
            "loss": policy_loss + settings.value_weight * value_loss,
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "clipped": clipped,
            "entropy": outputs.entropy.mean(),
            **{name: torch.tensor(value) for name, value in known.round_means.items()},
        }


def plan(settings: PpoSettings, _: Path) -> Mapping[str, object]:
    """The plan of a dry run, with the reference and the reward model."""
    needed, reward_bytes, notes = [], 0, []
    if settings.reward.model is not None:
        folder = settings.reward.model
        trained = (folder / HEAD_FILE).is_file()
        hint = "" if trained else "train it with a recipe of kind 'reward'"
        needed.append(Needed("reward model", str(folder), hint))
        judge = plan_model(ModelSettings(start=folder), None).model if trained else None
        if judge is None:
            notes.append(f"{folder}: the reward model is not here, so its bytes are not counted")
        else:
            reward_bytes = weight_bytes(judge)

    def frozen(policy: CaptionModel) -> int:
        return reward_bytes + (weight_bytes(policy) if examples.has_own_reference(settings) else 0)

    return examples.plan_preference(
        settings,
        pairs=False,
        wrap=lambda captioner: PolicyWithValue(captioner, coefficient=0.0),
        frozen=frozen,
        more=needed,
        notes=notes,
    )


def train_ppo(settings: PpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Maximise the reward that the recipe names; the model folder is `output`/model."""
    return maximise(settings, output, reward=open_reward(settings.reward), resume=resume)


def maximise(
    settings: PpoSettings, output: Path, *, reward: RewardOf, resume: bool
) -> Mapping[str, object]:
    """`train_ppo` for any reward."""
    rows, source = examples.read_preferences(settings.data.rows)
    trainer = StageTrainer(settings, output, kind="ppo", data=([row.clip for row in rows], source))
    rows = [rows[place] for place in trainer.places]
    trainer.model.to(training_device())
    if trainer.model.connector is not None:
        raise RecipeError('PPO keeps prompts as ids, this model\'s hold vectors; use kind = "dpo"')
    reference: Teacher = AdapterOffTeacher(trainer.model)
    if examples.has_own_reference(settings):
        assert settings.model.start is not None
        start = load_torch(
            settings.model.start, device=str(training_device()), dtype=settings.model.dtype
        )
        reference = FrozenTeacher(start)
    policy = PolicyWithValue(trainer.model, coefficient=settings.ppo.kl_coefficient)
    rollouts = Rollouts(
        settings,
        trainer,
        policy.to(training_device()),
        rows,
        reference=reference,
        reward=reward,
    )
    if latest_checkpoint(output) is None:
        drop_phases(output / PHASES_FOLDER, before=2**62)
    objective = PpoObjective(settings.ppo)
    act_mode = examples.start_act_mode(settings)
    captioner = RowCaptioner(trainer.model, trainer.prompter, trainer.limits, act_mode)
    validate: Callable[[], Mapping[str, float]] = CaptionCheck(
        captioner, rows, settings.check, reward=reward
    )
    return trainer.train(
        policy,
        lambda batch: objective.training_losses(policy, batch),
        rollouts.batch_at,
        weight_of=lambda batch: len(batch.shared.target_ids),
        validate=validate,
        acoustic_prompt_source=act_mode,
        resume=resume,
    )


PPO = Trainer(PpoSettings, plan, train_ppo)
