"""RLHF by PPO (decision 13): the policy says captions, is told what they were worth, and learns.

The reward is a Bradley–Terry model or what signal and labels say; the reference is the policy as
it began, and what leaving it costs is steered so that the policy stays near. One `fit` step is one
minibatch; batch `number` belongs to round number // (epochs · minibatches).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aligncap.alignment.dry_run import plan_model
from aligncap.alignment.objective import LessonBatch
from aligncap.alignment.settings import ModelSettings
from aligncap.alignment.stages import Stage
from aligncap.alignment.teacher import AdapterOffTeacher, FrozenTeacher, Teacher
from aligncap.captioner.batches import to_torch
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel
from aligncap.preference.advantages import clipped_policy_loss, clipped_value_loss
from aligncap.preference.caption_check import CaptionCheck, Captioning
from aligncap.preference.dry_run import plan_preference
from aligncap.preference.phases import drop_phases
from aligncap.preference.policy import PolicyWithValue
from aligncap.preference.ppo_settings import PpoLossSettings, PpoSettings
from aligncap.preference.reward_model import HEAD_FILE
from aligncap.preference.rewards import RewardOf, open_reward
from aligncap.preference.rollouts import PHASES_FOLDER, PpoTokens, Rollouts
from aligncap.preference.rows import read_preferences
from aligncap.preference.start import has_own_reference, start_act_mode
from aligncap.training import latest_checkpoint, training_device
from aligncap.training.dry_run import Needed, weight_bytes

SETTINGS = PpoSettings


@dataclass(frozen=True, slots=True)
class PpoObjective:
    """Clipped policy loss + value_weight · clipped value loss."""

    settings: PpoLossSettings

    def training_losses(
        self, policy: PolicyWithValue, batch: LessonBatch[PpoTokens]
    ) -> dict[str, Tensor]:
        """{"loss", "policy_loss", "value_loss", "clipped", "entropy"} and what the round was."""
        settings, known = self.settings, batch.beside
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
        cure = "" if trained else "train it with a recipe of kind 'reward'"
        needed.append(Needed("reward model", str(folder), cure))
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


def run(settings: PpoSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Follow the reward that the recipe names; the model folder is `output`/model."""
    return follow(settings, output, reward=open_reward(settings.reward), resume=resume)


def follow(
    settings: PpoSettings, output: Path, *, reward: RewardOf, resume: bool
) -> Mapping[str, object]:
    """`run` for a reward of one's own, such as a judge."""
    rows, source = read_preferences(settings.data.rows)
    stage = Stage(settings, output, kind="ppo", data=([row.clip for row in rows], source))
    stage.model.to(training_device())
    policy = PolicyWithValue(stage.model, coefficient=settings.ppo.kl_coefficient)
    rollouts = Rollouts(
        settings,
        stage,
        policy.to(training_device()),
        rows,
        reference=open_reference(settings, stage),
        reward=reward,
    )
    if latest_checkpoint(output) is None:
        drop_phases(output / PHASES_FOLDER, before=2**62)
    objective = PpoObjective(settings.ppo)
    act_mode = start_act_mode(settings)
    captioning = Captioning(stage.model, stage.prompter, settings.limits, act_mode)
    validate: Callable[[], Mapping[str, float]] = CaptionCheck(
        captioning, rows, settings.check, reward=reward
    )
    return stage.train(
        policy,
        lambda batch: objective.training_losses(policy, batch),
        rollouts.batch_at,
        validate=validate,
        act_mode=act_mode,
        resume=resume,
    )


def open_reference(settings: PpoSettings, stage: Stage) -> Teacher:
    """π_ref: the model under a fresh adapter, or else a frozen copy of the start."""
    if not has_own_reference(settings):
        return AdapterOffTeacher(stage.model)
    assert settings.model.start is not None
    start = load_torch(
        settings.model.start, device=str(training_device()), dtype=settings.model.dtype
    )
    return FrozenTeacher(start)
