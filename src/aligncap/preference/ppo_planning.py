"""What a dry run says of PPO: the policy with a value head, and frozen models beside it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aligncap.alignment.backbone_plan import plan_backbone
from aligncap.alignment.memory import Numbers, weight_bytes
from aligncap.alignment.planning import heard_tokens
from aligncap.alignment.settings import ModelSettings
from aligncap.captioner.meta import read_meta
from aligncap.captioner.sizes import ModelSize
from aligncap.preference.planning import begin_plan
from aligncap.preference.ppo_settings import PpoSettings
from aligncap.preference.reward_model import HEAD_FILE
from aligncap.training.needs import Needed

AS_STORED = Numbers(weights="float32", step="float32")
"""How a reward model is held, whatever the policy is held in."""


def plan_ppo(settings: PpoSettings) -> Mapping[str, object]:
    """The plan of PPO, in the shape of `alignment.planning`; captions are taken to be as long as
    they may be."""
    begun = begin_plan(settings, pairs=False)
    batch, longest = settings.batch, settings.limits.max_tokens
    begun = replace(begun, assumed={**begun.assumed, "caption_tokens": longest})
    reward, size = settings.reward.model, begun.size
    reward_size = None
    if reward is not None:
        needed, reward_size = _reward_model(reward)
        begun = replace(begun, needed=[*begun.needed, needed])
    if size is None:
        return begun.table(None)
    if reward is not None and reward_size is None:
        notes = [*begun.notes, f"{reward}: not here; reckoned with as large as the policy"]
        begun, reward_size = replace(begun, notes=notes), size
    # A minibatch has its share of the round's clips; the round is scored in one pass.
    work = begun.work(
        rows=-(-batch.rows // settings.ppo.minibatches),
        responses=batch.captions,
        response_tokens=longest,
    )
    head = size.hidden + 1
    need = replace(
        begun.need(
            size,
            work,
            head=head,
            own_reference=has_own_reference(settings),
            read_between=replace(work, rows=batch.rows),
        ),
        generation=begun.generation_bytes(size, prompts=batch.rows, captions=batch.captions),
        beside=weight_bytes(reward_size, Numbers(weights="float32", step="float32"))
        if reward_size
        else 0,
    )
    return begun.table(need, {"rollouts": _rollout_bytes(settings)}, head=head)


def has_own_reference(settings: PpoSettings) -> bool:
    """Whether π_ref is a frozen copy of the start, not the start under a fresh adapter.

    Of a start that has an adapter itself, switching it off would not give π_ref (decision 12).
    """
    start = settings.model.start
    assert start is not None  # the settings make sure
    return settings.model.lora is None or bool(read_meta(start).base)


def _reward_model(folder: Path) -> tuple[Needed, ModelSize | None]:
    """A reward model, and its size where it is here."""
    if not (folder / HEAD_FILE).is_file():
        cure = "train it with a recipe of kind 'reward'"
        return Needed("reward model", str(folder), cure), None
    told = plan_backbone(ModelSettings(start=folder), codebooks=1, codebook_size=1)
    return Needed("reward model", str(folder)), told.size


def _rollout_bytes(settings: PpoSettings) -> int:
    """Rounds that a checkpoint may still need: of each token its id and four numbers, of each
    prompt its ids, 8 bytes each (`phases`)."""
    batch, training = settings.batch, settings.training
    said = batch.rows * batch.captions * settings.limits.max_tokens
    each = 8 * (5 * said + batch.rows * heard_tokens(settings.estimate))
    rounds = -(-training.save_every * training.accumulation // settings.ppo.updates) + 1
    return rounds * each
