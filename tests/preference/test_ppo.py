"""PPO: its arithmetic by hand, a task whose optimum is known, and going on exactly after a kill."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import DataSettings, Sample
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import ValidationSettings
from aligncap.captioner.checkpoint import CaptionLimits, load_torch, read_meta, write_meta
from aligncap.captioner.model import AdapterSettings, CaptionModel
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, collate, to_torch
from aligncap.captioner.runtimes import ResponseRules
from aligncap.errors import RecipeError
from aligncap.preference import ppo
from aligncap.preference.examples import PreferenceRow
from aligncap.preference.reward import CheckSettings
from aligncap.training.settings import FitSettings
from aligncap.values import SpeechTokens
from support import recipe_runs
from support.captioner import KINDS, log_probability, random_rows, tiny_lm, tiny_vocabulary
from support.preferences import preference_rows
from support.recipe_runs import assert_goes_on_alike
from support.rows import trace


def test_a_token_costs_its_distance_and_the_last_one_brings_the_score() -> None:
    found = ppo.token_rewards(
        np.array([1.0, -2.0]), np.array([0.5, -0.25, 1.0]), [2, 1], coefficient=0.2
    )
    # -0.2·0.5; -0.2·-0.25 + 1; -0.2·1 - 2.
    np.testing.assert_allclose(found, [-0.1, 1.05, -2.2])


def test_advantages_by_hand() -> None:
    """γ = 0.9, λ = 0.5; a response of three tokens, then one of a single token."""
    rewards, values = np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.5, 0.4, 0.2, 1.0])
    # δ: 0.9·0.4-0.5 = -0.14, 0.9·0.2-0.4 = -0.22, 1-0.2 = 0.8; and 2-1 = 1, with nothing after.
    # A3 = 0.8, A2 = -0.22+0.45·0.8 = 0.14, A1 = -0.14+0.45·0.14 = -0.077.
    found = ppo.advantages_of(rewards, values, [3, 1], discount=0.9, decay=0.5)
    np.testing.assert_allclose(found, [-0.077, 0.14, 0.8, 1.0])
    # With γ = λ = 1 they are returns less values.
    found = ppo.advantages_of(rewards, values, [3, 1], discount=1.0, decay=1.0)
    np.testing.assert_allclose(found, [0.5, 0.6, 0.8, 1.0])


def test_whitened_by_hand() -> None:
    np.testing.assert_allclose(ppo.whitened(np.array([1.0, 3.0])), [-1.0, 1.0], atol=1e-6)


def test_the_policy_loss_is_clipped_where_it_would_gain_too_much() -> None:
    log_probs = torch.log(torch.tensor([1.5, 0.5, 1.5, 1.1])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 2.0])
    loss, clipped = ppo.clipped_policy_loss(log_probs, torch.zeros(4), advantages, clip=0.2)
    # min(1.5, 1.2) = 1.2; min(-0.5, -0.8) = -0.8; min(-1.5, -1.2) = -1.5; 2.2.
    assert loss.item() == pytest.approx(-(1.2 - 0.8 - 1.5 + 2.2) / 4)
    assert clipped.item() == 0.5
    loss.backward()
    # What was clipped pulls no further; the others by -ρA/4.
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, 0.0, 1.5 / 4, -2.2 / 4]))


def test_the_value_loss_takes_the_worse_of_moved_and_held() -> None:
    values, old = torch.tensor([2.0, 0.1]), torch.tensor([0.0, 0.0])
    # Held at 0.2: (0.2-3)² = 7.84 > (2-3)²; 0.1 moves freely: (0.1-1)² = 0.81.
    found = ppo.clipped_value_loss(values, old, torch.tensor([3.0, 1.0]), clip=0.2)
    assert found.item() == pytest.approx(0.5 * (7.84 + 0.81) / 2)


@pytest.mark.parametrize(
    ("kl", "expected"),
    # Twice the target is clipped to +0.2; half of it to -0.2; 6.6 is an error of 0.1.
    [(12.0, 0.204), (3.0, 0.196), (6.6, 0.202), (6.0, 0.2)],
)
def test_the_controller_by_hand(kl: float, expected: float) -> None:
    assert ppo.next_coefficient(0.2, kl, target=6.0, rate=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_log_probabilities_come_from_one_pass(kind: str) -> None:
    vocabulary = tiny_vocabulary()
    captioner = CaptionModel(tiny_lm(kind), vocabulary).eval()
    policy = ppo.PolicyWithValue(captioner, coefficient=0.1).eval()
    torch.nn.init.ones_(policy.value.weight)
    batch = to_torch(collate(random_rows(vocabulary, seed=2, rows=2, responses=2), pad_id=0))
    with torch.no_grad():
        said = policy(batch)
        torch.testing.assert_close(said.log_probs, captioner.token_log_probs(batch))
    assert said.values.shape == said.entropy.shape == said.log_probs.shape
    assert said.values.std() > 0
    assert (said.entropy > 0).all()


FIT = FitSettings(
    precision="float32",
    steps=60,
    learning_rate=2e-3,
    log_every=4,
    save_every=60,
    schedule="constant",
)
BEST = "She sounds happy and fast."


def names_the_best(row: PreferenceRow, texts: Sequence[str]) -> list[float]:
    """1 for one caption, 0 for all others: of the three that the start says, the second."""
    return [float(text == BEST) for text in texts]


def settings_of(preferences: Path, start: Path, **changes: object) -> ppo.PpoSettings:
    given = {
        "data": DataSettings(rows=(preferences,)),
        "training": FIT,
        "model": ModelSettings(start=start),
        "batch": ppo.RolloutBatchSettings(rows=6, captions=6),
        "validation": ValidationSettings(every=30, rows=9),
        "check": CheckSettings(rows=3),
        "ppo": ppo.PpoLossSettings(kl_coefficient=0.02, kl_target=2.0),
    }
    return ppo.PpoSettings(**given | changes)


learn = partial(ppo.maximise, reward=names_the_best)
run = partial(recipe_runs.run, learn)


def test_the_reward_rises_to_its_optimum_near_the_reference(tmp_path, changed, start) -> None:
    """The start says the best caption now and then; to say it always is -log p(it) nats away."""
    settings = changed(
        training=replace(FIT, steps=96), batch=ppo.RolloutBatchSettings(rows=6, captions=8)
    )
    summary = run(settings, tmp_path)
    lines = [line for line in trace(tmp_path) if "reward" in line]
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
    builder, said = PromptBuilder(model.vocabulary), model.vocabulary.encode_text(text)
    rules = ResponseRules.of(model.vocabulary)
    prompts = [
        builder.student(SpeechTokens(row.clip.speech), language="en") for row in preference_rows(9)
    ]
    return fmean(log_probability(model.causal_lm, prompt, said, rules) for prompt in prompts)


@pytest.mark.parametrize(
    ("stopped_at", "lost"),
    # Of a round that had only begun, nothing need be left.
    [pytest.param(5, (), id="in a round"), pytest.param(6, (ppo.PHASES_FOLDER,), id="between two")],
)
def test_a_killed_run_goes_on_with_the_same_losses(tmp_path, changed, stopped_at, lost) -> None:
    settings = changed(
        training=replace(FIT, steps=9, save_every=stopped_at, log_every=1),
        ppo=ppo.PpoLossSettings(epochs=1, minibatches=2, kl_coefficient=0.05),
        validation=ValidationSettings(every=4, rows=6),
    )
    assert_goes_on_alike(learn, settings, tmp_path, lost=lost)


def test_the_rollouts_of_the_oldest_kept_checkpoint_stay(tmp_path, changed) -> None:
    """Checkpoints 4 and 6 are there as the second round begins; 4 lies within the first."""
    settings = changed(
        training=replace(FIT, steps=7, save_every=2),
        ppo=ppo.PpoLossSettings(epochs=1, minibatches=6, kl_coefficient=0.05),
    )
    run(settings, tmp_path)
    phases = sorted(path.name for path in (tmp_path / ppo.PHASES_FOLDER).iterdir())
    assert phases == ["phase-0.npz", "phase-1.npz"]


def test_under_lora_the_reference_is_the_model_below(tmp_path, changed, start) -> None:
    lora = ModelSettings(start=start, lora=AdapterSettings(rank=4))
    run(changed(model=lora, training=replace(FIT, steps=8)), tmp_path)
    first, second = (line["kl"] for line in trace(tmp_path) if "kl" in line)
    # A fresh adapter changes nothing: the first round is drawn from the reference itself.
    assert first == pytest.approx(0.0, abs=1e-4)
    assert abs(second) > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": ppo.RolloutBatchSettings(rows=1)}, "do not fill 2 minibatches"),
        ({"training": replace(FIT, accumulation=3)}, "must divide"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changed, change, message) -> None:
    with pytest.raises(RecipeError, match=message):
        changed(**change)
    with pytest.raises(RecipeError, match="clip is 0"):
        ppo.PpoLossSettings(clip=0)


def test_a_response_cut_off_costs_the_penalty_and_advantages_are_whitened(
    tmp_path: Path, changed: Any, start: Path
) -> None:
    """In the first round values are 0 and the policy is the reference, so that a response's last
    token returns the reward alone: 0 of a finished one, less the penalty of one cut off."""
    settings = changed(
        training=replace(FIT, steps=1, log_every=1, save_every=1),
        limits=CaptionLimits(min_tokens=1, max_tokens=8),
        ppo=ppo.PpoLossSettings(unfinished_penalty=0.75, decay=1.0),
    )
    nothing = partial(ppo.maximise, reward=lambda row, texts: [0.0] * len(texts))
    recipe_runs.run(nothing, settings, tmp_path)
    phase = ppo.load_phase(tmp_path / ppo.PHASES_FOLDER / "phase-0.npz")
    said = [response for row in phase.rows for response in row.responses]
    stops = set(load_torch(start).vocabulary.stop_ids())
    expected = [0.0 if ids[-1] in stops else -0.75 for ids in said]
    assert 0 < phase.unfinished < 1
    assert phase.unfinished == -sum(expected) / 0.75 / len(said)
    last = np.cumsum([len(ids) for ids in said]) - 1
    np.testing.assert_allclose(phase.returns[last], expected, atol=1e-4)
    plain = phase.returns - phase.values
    np.testing.assert_allclose(phase.advantages, (plain - plain.mean()) / plain.std(), atol=1e-4)


def test_responses_end_where_the_captions_of_the_start_do(tmp_path, changed, start) -> None:
    other = tmp_path / "start"
    shutil.copytree(start, other)
    limits = CaptionLimits(min_tokens=1, max_tokens=4)
    write_meta(other, replace(read_meta(other), limits=limits))
    settings = changed(
        model=ModelSettings(start=other), training=replace(FIT, steps=1, log_every=1, save_every=1)
    )
    summary = run(settings, tmp_path / "run")
    phase = ppo.load_phase(tmp_path / "run" / ppo.PHASES_FOLDER / "phase-0.npz")
    said = [len(response) for row in phase.rows for response in row.responses]
    assert max(said) == 4
    assert summary["validation_tokens"] <= 4
    assert read_meta(Path(summary["model"])).limits == limits
    (row,) = settings.readings(OnePrompt(), Sample(0, "en", (), None))
    assert max(map(len, row.responses)) == 4 + 1


class OnePrompt:
    """A prompter whose rows are all the same."""

    def student_row(self, *_: object) -> SharedPromptRow:
        return SharedPromptRow((0,), ((1,),))


def test_a_round_pays_for_its_distance_at_the_coefficient_of_the_round_before(
    tmp_path: Path, changed: Any
) -> None:
    """With γ = λ = 1 a response's first token returns score - β (log π - log π_ref) of it all."""
    once = ppo.PpoLossSettings(
        epochs=1, minibatches=1, decay=1.0, kl_coefficient=0.5, unfinished_penalty=0.0
    )
    run(changed(training=replace(FIT, steps=2, log_every=1), ppo=once), tmp_path)
    first, second = (
        ppo.load_phase(tmp_path / ppo.PHASES_FOLDER / f"phase-{n}.npz") for n in (0, 1)
    )
    # The first round is no distance at all from the reference: K = 0.1, clipped to -0.2.
    assert (first.coefficient, second.coefficient) == (0.5, pytest.approx(0.5 * 0.98))
    lengths = np.array([len(ids) for row in second.rows for ids in row.responses])
    returned = second.returns[np.cumsum(lengths) - lengths].mean()
    expected = second.scores.mean() - second.coefficient * second.kl
    assert abs(second.kl) > 1e-3
    assert returned == pytest.approx(expected, abs=1e-6)
