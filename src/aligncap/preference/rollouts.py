"""Rollouts of PPO: what the policy says of some clips, what it was worth, and what follows.

The prompt of a clip is encoded once for all its rollouts, when they are drawn and when they are
scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from aligncap.alignment.objective import LessonBatch
from aligncap.alignment.stages import Stage
from aligncap.alignment.teacher import Teacher, batch_of
from aligncap.captioner.batches import SharedPromptRow, collate
from aligncap.captioner.model import target_log_probs
from aligncap.captioner.runtime import DecodeOptions, Sampling
from aligncap.preference.advantages import (
    advantages_of,
    next_coefficient,
    token_rewards,
    whitened,
)
from aligncap.preference.caption_check import Captioning
from aligncap.preference.phases import (
    Floats,
    Phase,
    drop_phases,
    load_phase,
    phase_path,
    save_phase,
)
from aligncap.preference.policy import PolicyWithValue
from aligncap.preference.ppo_settings import PpoSettings
from aligncap.preference.rewards import RewardOf
from aligncap.preference.rows import PreferenceRow
from aligncap.preference.start import start_act_mode
from aligncap.training import evaluating, latest_checkpoint, seed_of

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
        stage: Stage,
        policy: PolicyWithValue,
        rows: Sequence[PreferenceRow],
        *,
        reference: Teacher,
        reward: RewardOf,
    ) -> None:
        self._settings, self._policy, self._rows = settings, policy, rows
        self._reference, self._reward = reference, reward
        act_mode = start_act_mode(settings)
        self._captioning = Captioning(stage.model, stage.prompter, settings.limits, act_mode)
        self._folder, self._output = stage.output / PHASES_FOLDER, stage.output
        self._plan = stage.plan(
            lambda draw: len(self._captioning.prompt_ids(draw.row, rows[draw.row]))
        )
        self._phase: tuple[int, Phase] | None = None

    def batch_at(self, number: int) -> LessonBatch[PpoTokens]:
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
        return LessonBatch(collate(rows, pad_id=0), known)

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
        settings, captioning = self._settings, self._captioning
        limits = settings.limits
        places = [draw.row for draw in self._plan.draws_at(turn)]
        prompts = [captioning.prompt_ids(place, self._rows[place]) for place in places]
        # Drawn from the policy as it is: another temperature would be another policy's.
        options = DecodeOptions(
            captions=settings.batch.captions,
            min_length=limits.min_tokens,
            max_length=limits.max_tokens,
            sampling=Sampling(seed=seed_of(settings.training.seed, 2, turn)),
        )
        found = captioning.runtime().generate(prompts, options)
        said = [tuple(one.ids for one in hypotheses) for hypotheses in found]
        scores = [
            self._reward(self._rows[place], [captioning.text_of(ids) for ids in responses])
            for place, responses in zip(places, said, strict=True)
        ]
        stops = frozenset(captioning.model.vocabulary.stop_ids(settings.limits.stop_characters))
        cut = [float(ids[-1] not in stops) for ids in chain.from_iterable(said)]
        rows = tuple(SharedPromptRow(p, s) for p, s in zip(prompts, said, strict=True))
        return rows, np.array(list(chain.from_iterable(scores)), dtype=np.float64), np.array(cut)
