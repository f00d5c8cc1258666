"""PPO: its arithmetic by hand, a task whose optimum is known, and going on exactly after a kill."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import ValidationSettings
from aligncap.captioner.checkpoint import CaptionLimits, load_torch
from aligncap.captioner.model import AdapterSettings, CaptionModel
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, collate, to_torch
from aligncap.captioner.runtimes import ResponseRules
from aligncap.errors import RecipeError
from aligncap.preference import ppo
from aligncap.preference.examples import PreferenceRow
from aligncap.preference.ppo import (
    Phase,
    PolicyWithValue,
    PpoLossSettings,
    PpoSettings,
    RolloutBatchSettings,
    advantages_of,
    clipped_policy_loss,
    clipped_value_loss,
    load_phase,
    next_coefficient,
    save_phase,
    token_rewards,
    whitened,
)
from aligncap.preference.reward import EMPTY_REWARD, CheckSettings, EvidenceReward
from aligncap.training.settings import FitSettings
from aligncap.values import SpeechTokens
from support import recipe_runs
from support.captioner import log_probability, random_rows, tiny_lm, tiny_vocabulary
from support.preferences import preference_rows
from support.recipe_runs import assert_goes_on_alike
from support.rows import trace


def test_a_token_costs_its_distance_and_the_last_one_brings_the_score() -> None:
    found = token_rewards(
        np.array([1.0, -2.0]), np.array([0.5, -0.25, 1.0]), [2, 1], coefficient=0.2
    )
    # -0.2·0.5; -0.2·-0.25 + 1; -0.2·1 - 2.
    np.testing.assert_allclose(found, [-0.1, 1.05, -2.2])


def test_advantages_by_hand() -> None:
    """γ = 0.9, λ = 0.5; a response of three tokens, then one of a single token."""
    rewards, values = np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.5, 0.4, 0.2, 1.0])
    # δ: 0.9·0.4-0.5 = -0.14, 0.9·0.2-0.4 = -0.22, 1-0.2 = 0.8; and 2-1 = 1, with nothing after.
    # A3 = 0.8, A2 = -0.22+0.45·0.8 = 0.14, A1 = -0.14+0.45·0.14 = -0.077.
    found = advantages_of(rewards, values, [3, 1], discount=0.9, decay=0.5)
    np.testing.assert_allclose(found, [-0.077, 0.14, 0.8, 1.0])


def test_with_all_decays_at_one_advantages_are_returns_less_values() -> None:
    chance = np.random.default_rng(0)
    rewards, values = chance.normal(size=7), chance.normal(size=7)
    found = advantages_of(rewards, values, [4, 3], discount=1.0, decay=1.0)
    to_come = np.concatenate([rewards[:4][::-1].cumsum()[::-1], rewards[4:][::-1].cumsum()[::-1]])
    np.testing.assert_allclose(found, to_come - values)


def test_whitened_by_hand() -> None:
    np.testing.assert_allclose(whitened(np.array([1.0, 3.0])), [-1.0, 1.0], atol=1e-6)


def test_the_policy_loss_is_clipped_where_it_would_gain_too_much() -> None:
    log_probs = torch.log(torch.tensor([1.5, 0.5, 1.5, 1.1])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 2.0])
    loss, clipped = clipped_policy_loss(log_probs, torch.zeros(4), advantages, clip=0.2)
    # min(1.5, 1.2) = 1.2; min(-0.5, -0.8) = -0.8; min(-1.5, -1.2) = -1.5; 2.2.
    assert loss.item() == pytest.approx(-(1.2 - 0.8 - 1.5 + 2.2) / 4)
    assert clipped.item() == 0.5
    loss.backward()
    assert log_probs.grad is not None
    # What was clipped pulls no further; the others by -ρA/4.
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, 0.0, 1.5 / 4, -2.2 / 4]))


def test_the_value_loss_takes_the_worse_of_moved_and_held() -> None:
    values, old = torch.tensor([2.0, 0.1]), torch.tensor([0.0, 0.0])
    # Held at 0.2: (0.2-3)² = 7.84 > (2-3)²; 0.1 moves freely: (0.1-1)² = 0.81.
    found = clipped_value_loss(values, old, torch.tensor([3.0, 1.0]), clip=0.2)
    assert found.item() == pytest.approx(0.5 * (7.84 + 0.81) / 2)


@pytest.mark.parametrize(
    ("kl", "expected"),
    # Twice the target is clipped to +0.2; half of it to -0.2; 6.6 is an error of 0.1.
    [(12.0, 0.204), (3.0, 0.196), (6.6, 0.202), (6.0, 0.2)],
)
def test_the_controller_by_hand(kl: float, expected: float) -> None:
    assert next_coefficient(0.2, kl, target=6.0, rate=0.1) == pytest.approx(expected)


FIT = FitSettings(steps=60, learning_rate=2e-3, log_every=4, save_every=60, schedule="constant")
BEST = "She sounds happy and fast."


def names_the_best(row: PreferenceRow, texts: Sequence[str]) -> list[float]:
    """1 for one caption, 0 for all others: of the three that the start says, the second."""
    return [float(text == BEST) for text in texts]


def settings_of(preferences: Path, start: Path, **changes: object) -> PpoSettings:
    given: dict[str, object] = {
        "data": DataSettings(rows=(preferences,)),
        "training": FIT,
        "model": ModelSettings(start=start),
        "batch": RolloutBatchSettings(rows=6, captions=6),
        "validation": ValidationSettings(every=30, rows=9),
        "check": CheckSettings(rows=3),
        "ppo": PpoLossSettings(kl_coefficient=0.02, kl_target=2.0),
        **changes,
    }
    return PpoSettings(**given)  # type: ignore[arg-type]


learn = partial(ppo.maximise, reward=names_the_best)
run = partial(recipe_runs.run, learn)


def test_the_reward_rises_to_its_optimum_near_the_reference(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """The start says the best caption now and then; to say it always is -log p(it) nats away."""
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=96),
        batch=RolloutBatchSettings(rows=6, captions=8),
    )
    summary = run(settings, tmp_path / "run")
    lines = [line for line in trace(tmp_path / "run") if "reward" in line]
    assert lines[0]["reward"] < 0.4
    # Each line is a few rollouts by chance, with a bad one now and then: not the last alone.
    assert median(line["reward"] for line in lines[-8:]) > 0.75
    assert summary["validation_reward"] == 1.0
    # Nobody can always say it for less than this, and who learns nothing else pays little more.
    least = -mean_log_probability(load_torch(start), BEST)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert 0.5 * least < lines[-1]["kl"] < 2 * least
    assert max(line["kl"] for line in lines) < 4 * least
    assert lines[-1]["unfinished"] == 0.0


def mean_log_probability(model: CaptionModel, text: str) -> float:
    """log π of a caption up to its full stop, mean over some clips, as the decoder scores it."""
    builder = PromptBuilder(model.vocabulary)
    rules = ResponseRules.of(model.vocabulary)
    said = model.vocabulary.encode_text(text)
    scores = []
    for row in preference_rows(9):
        assert row.clip.speech is not None
        prompt = builder.student(SpeechTokens(row.clip.speech), language="en")
        scores.append(log_probability(model.causal_lm, prompt, said, rules))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("stopped_at", [5, 6])
def test_a_killed_run_goes_on_with_the_same_losses(
    tmp_path: Path, preferences: Path, start: Path, stopped_at: int
) -> None:
    """Killed between two updates of one round, and between two rounds."""
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=9, save_every=stopped_at, log_every=1),
        ppo=PpoLossSettings(epochs=1, minibatches=2, kl_coefficient=0.05),
        validation=ValidationSettings(every=4, rows=6),
    )
    # Of a round that had only begun, nothing need be left.
    lost = (ppo.PHASES_FOLDER,) if stopped_at == 6 else ()
    assert_goes_on_alike(learn, settings, tmp_path, lost=lost)


def test_under_lora_the_reference_is_the_model_below(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    settings = settings_of(
        preferences,
        start,
        model=ModelSettings(start=start, lora=AdapterSettings(rank=4)),
        training=replace(FIT, steps=8, log_every=4),
    )
    run(settings, tmp_path / "run")
    first, second = (line["kl"] for line in trace(tmp_path / "run") if "kl" in line)
    # A fresh adapter changes nothing: the first round is drawn from the reference itself.
    assert first == pytest.approx(0.0, abs=1e-4)
    assert abs(second) > 1e-4


def test_values_and_log_probabilities_come_from_one_pass() -> None:
    vocabulary = tiny_vocabulary()
    for kind in ("llama", "gpt2", "opt", "qwen2"):
        captioner = CaptionModel(tiny_lm(kind), vocabulary).eval()
        policy = PolicyWithValue(captioner, coefficient=0.1).eval()
        torch.nn.init.ones_(policy.value.weight)
        batch = to_torch(collate(random_rows(vocabulary, seed=2, rows=2, responses=2), pad_id=0))
        with torch.no_grad():
            said = policy(batch)
            torch.testing.assert_close(said.log_probs, captioner.token_log_probs(batch))
        assert said.values.shape == said.entropy.shape == said.log_probs.shape
        assert said.values.std() > 0
        assert (said.entropy > 0).all()


def test_a_round_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    rows = (SharedPromptRow((1, 2), ((3,), (4, 5))), SharedPromptRow((6,), ((7, 8), (9,))))
    tokens = np.arange(6.0)
    phase = Phase(
        rows, tokens, tokens + 1, tokens + 2, tokens + 3, np.arange(4.0), 0.5, 0.2, 0.3, 0
    )
    save_phase(phase, tmp_path / "phases" / "phase-0.npz")
    again = load_phase(tmp_path / "phases" / "phase-0.npz")
    assert again.rows == rows
    assert (again.kl, again.coefficient, again.next_coefficient) == (0.5, 0.2, 0.3)
    np.testing.assert_array_equal(again.returns, tokens + 3)
    np.testing.assert_array_equal(again.tokens_of([1]), [3, 4, 5])


def test_evidence_is_a_reward_that_cannot_be_flattered() -> None:
    sad = preference_rows(1)[0]
    right, wrong, nothing, empty = EvidenceReward()(
        sad, ["Sounds sad and quiet.", "Sounds happy and loud.", "Somebody speaks.", " "]
    )
    # Known are the emotion (worth 2) and that it is quiet (1); wrong ones cost 2 and 1.5.
    assert right == 1.0
    assert wrong == pytest.approx(-3.5 / 3)
    assert nothing == 0.0
    assert empty == EMPTY_REWARD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": RolloutBatchSettings(rows=1)}, "do not fill 2 minibatches"),
        ({"training": replace(FIT, accumulation=3)}, "must divide"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    preferences: Path, start: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        settings_of(preferences, start, **change)
    with pytest.raises(RecipeError, match="clip is 0"):
        PpoLossSettings(clip=0)


def test_a_response_cut_off_costs_the_penalty_and_advantages_are_whitened(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """In the first round values are 0 and the policy is the reference, so that a response's last
    token returns the reward alone: 0 of a finished one, less the penalty of one cut off."""
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=1, log_every=1, save_every=1),
        limits=CaptionLimits(min_tokens=1, max_tokens=8),
        ppo=PpoLossSettings(unfinished_penalty=0.75, decay=1.0),
    )
    output = tmp_path / "run"
    output.mkdir()
    ppo.maximise(settings, output, reward=lambda row, texts: [0.0] * len(texts), resume=False)
    phase = load_phase(output / ppo.PHASES_FOLDER / "phase-0.npz")
    said = [response for row in phase.rows for response in row.responses]
    stops = set(load_torch(start).vocabulary.stop_ids())
    expected = [0.0 if ids[-1] in stops else -0.75 for ids in said]
    assert 0 < phase.unfinished < 1
    assert phase.unfinished == -sum(expected) / 0.75 / len(said)
    last = np.cumsum([len(ids) for ids in said]) - 1
    np.testing.assert_allclose(phase.returns[last], expected, atol=1e-4)
    advantages = phase.returns - phase.values
    np.testing.assert_allclose(
        phase.advantages, (advantages - advantages.mean()) / advantages.std(), atol=1e-4
    )


def test_a_round_pays_for_its_distance_at_the_coefficient_of_the_round_before(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """With γ = λ = 1 a response's first token returns score - β (log π - log π_ref) of it all."""
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=2, log_every=1),
        ppo=PpoLossSettings(
            epochs=1, minibatches=1, decay=1.0, kl_coefficient=0.5, unfinished_penalty=0.0
        ),
    )
    run(settings, tmp_path / "run")
    first, second = (
        load_phase(tmp_path / "run" / ppo.PHASES_FOLDER / f"phase-{number}.npz")
        for number in (0, 1)
    )
    # The first round is no distance at all from the reference: K = 0.1, clipped to -0.2.
    assert (first.coefficient, second.coefficient) == (0.5, pytest.approx(0.5 * 0.98))
    lengths = np.array([len(ids) for row in second.rows for ids in row.responses])
    returned = second.returns[np.cumsum(lengths) - lengths].mean()
    assert abs(second.kl) > 1e-3
    assert returned == pytest.approx(
        second.scores.mean() - second.coefficient * second.kl, abs=1e-6
    )
