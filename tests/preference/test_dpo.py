"""DPO: its losses by hand, from recipe to model folder, and the reference's cache."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from aligncap.alignment.examples import DataSettings, Example
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import TaskBatch, ValidationSettings
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.model import AdapterSettings, CaptionModel
from aligncap.captioner.prompts import SharedPromptRow, collate
from aligncap.errors import DataError, RecipeError
from aligncap.preference.dpo import (
    CACHE_FOLDER,
    LOSSES,
    DpoSettings,
    PairLossSettings,
    PairObjective,
    ReferenceCache,
    StartingPolicy,
    cdpo,
    dpo,
    ipo,
    log_ratio_margins,
    paper_eq6,
    train_dpo,
)
from aligncap.preference.examples import PairBatchSettings, Pairs
from aligncap.preference.reward import CheckSettings, bradley_terry
from aligncap.training.settings import FitSettings
from support import recipe_runs
from support.captioner import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary
from support.recipe_runs import assert_goes_on_alike
from support.rows import trace

MARGINS = torch.tensor([0.0, 1.0, -2.0])


def test_margins_are_differences_of_log_ratios() -> None:
    policy, reference = torch.tensor([-3.0, -5.0, -4.0]), torch.tensor([-4.0, -5.5, -3.0])
    # Ratios 1, 0.5, -1: the first against the third, the second against the first.
    found = log_ratio_margins(policy, reference, torch.tensor([0, 1]), torch.tensor([2, 0]))
    torch.testing.assert_close(found, torch.tensor([2.0, -0.5]))


def test_the_reference_gets_no_gradient() -> None:
    policy = torch.tensor([-3.0, -5.0], requires_grad=True)
    reference = torch.tensor([-4.0, -5.5], requires_grad=True)
    one, other = torch.tensor([0]), torch.tensor([1])
    dpo(log_ratio_margins(policy, reference, one, other), 1.0).sum().backward()
    assert reference.grad is None
    # h = 1 - 0.5; the derivative of -log σ(h) is -σ(-h).
    slope = 1 / (1 + math.exp(0.5))
    torch.testing.assert_close(policy.grad, torch.tensor([-slope, slope]))


def test_each_loss_by_hand() -> None:
    """σ(0.5) = 0.622459, σ(1) = 0.731059, σ(-1) = 0.268941, σ(-2) = 0.119203."""
    # β = 0.5: margins become 0, 0.5, -1.
    torch.testing.assert_close(
        dpo(MARGINS, 0.5), torch.tensor([0.693147, 0.474077, 1.313262]), atol=1e-5, rtol=0
    )
    # 0.5 times -log σ of the margins as they are.
    torch.testing.assert_close(
        paper_eq6(MARGINS, 0.5), torch.tensor([0.346574, 0.156631, 1.063464]), atol=1e-5, rtol=0
    )
    # 1/(2β) = 1: (0-1)², (1-1)², (-2-1)².
    torch.testing.assert_close(ipo(MARGINS, 0.5), torch.tensor([1.0, 0.0, 9.0]))
    # 0.9 · 0.474077 + 0.1 · 0.974077 for the second.
    torch.testing.assert_close(
        cdpo(MARGINS, 0.5, 0.1)[1], torch.tensor(0.524077), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        bradley_terry(torch.tensor([2.0]), torch.tensor([1.0])),
        torch.tensor([0.313262]), atol=1e-5, rtol=0,
    )  # fmt: skip


@given(st.floats(-20, 20), st.floats(0.01, 5))
def test_all_but_ipo_fall_as_the_margin_rises(margin: float, beta: float) -> None:
    two = torch.tensor([margin, margin + 1.0], dtype=torch.float64)
    for name in ("dpo", "paper_eq6", "cdpo"):
        worse, better = LOSSES[name](two, beta, 0.0).tolist()
        assert better < worse
    lowest = torch.tensor([1 / (2 * beta)], dtype=torch.float64)
    assert LOSSES["ipo"](lowest, beta, 0.0).item() == pytest.approx(0.0, abs=1e-12)


def test_without_smoothing_conservative_dpo_is_dpo() -> None:
    torch.testing.assert_close(cdpo(MARGINS, 0.3, 0.0), dpo(MARGINS, 0.3))


def test_the_printed_sign_would_prefer_what_was_rejected() -> None:
    """Why Eq. 6 is not taken at its word: descending on it lowers the margin."""
    margin = torch.tensor([0.3], requires_grad=True)
    printed = 0.1 * torch.nn.functional.logsigmoid(margin)
    printed.sum().backward()
    assert margin.grad is not None
    assert margin.grad.item() > 0
    corrected = torch.tensor([0.3], requires_grad=True)
    paper_eq6(corrected, 0.1).sum().backward()
    assert corrected.grad is not None
    assert corrected.grad.item() == pytest.approx(-margin.grad.item())


FIT = FitSettings(steps=40, learning_rate=5e-3, log_every=5, save_every=20, schedule="constant")


def settings_of(preferences: Path, start: Path, **changes: object) -> DpoSettings:
    given: dict[str, object] = {
        "data": DataSettings(rows=(preferences,)),
        "training": FIT,
        "model": ModelSettings(start=start),
        "batch": PairBatchSettings(rows=6),
        "validation": ValidationSettings(every=20, rows=9),
        "check": CheckSettings(rows=3),
        **changes,
    }
    return DpoSettings(**given)  # type: ignore[arg-type]


run = partial(recipe_runs.run, train_dpo)


def random_pairs(seed: int = 0) -> tuple[CaptionModel, list[SharedPromptRow], Pairs]:
    """A random model, three clips of three candidates, two pairs each, a made-up reference."""
    vocabulary = tiny_vocabulary()
    rows = random_rows(vocabulary, seed=seed, rows=3, responses=3)
    chance = np.random.default_rng(seed)
    reference = chance.normal(-20, 3, 9).astype(np.float32)
    pairs = Pairs(np.array([0, 0, 4, 4, 8, 8]), np.array([1, 2, 3, 5, 6, 7]), reference)
    return CaptionModel(tiny_lm("llama", seed=seed), vocabulary).eval(), rows, pairs


def gradients(model: CaptionModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("normalised", [False, True])
def test_shared_rows_give_the_loss_and_gradient_of_separate_rows(normalised: bool) -> None:
    """By another road: each response behind its own copy of the prompt, one plain forward each."""
    model, rows, pairs = random_pairs()
    settings = PairLossSettings(beta=0.3, length_normalised=normalised)
    batch = TaskBatch(collate(rows, pad_id=0), pairs)
    found = PairObjective(settings).training_losses(model, batch)
    mine = gradients(model, found["loss"])
    assert pairs.reference is not None
    sums = separate_log_probs(model.causal_lm, rows, model.vocabulary.text_vocab_size)
    lengths = [len(said) for row in rows for said in row.responses]
    ratios = sums - torch.from_numpy(pairs.reference)
    if normalised:
        ratios = ratios / torch.tensor(lengths)
    losses = torch.stack(
        [
            torch.log1p(torch.exp(-0.3 * (ratios[c] - ratios[r])))
            for c, r in zip(pairs.chosen, pairs.rejected, strict=True)
        ]
    )
    theirs = gradients(model, losses.mean())
    torch.testing.assert_close(found["loss"], losses.mean(), atol=1e-5, rtol=1e-5)
    assert mine.keys() == theirs.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4)


def test_padding_never_counts() -> None:
    """A row's losses are the same alone, and beside a longer one."""
    model, rows, pairs = random_pairs(seed=1)
    assert pairs.reference is not None
    longer = SharedPromptRow(rows[1].prompt_ids * 3, rows[1].responses)
    objective = PairObjective(PairLossSettings())
    one = Pairs(pairs.chosen[:2], pairs.rejected[:2], pairs.reference[:3])
    alone = objective.training_losses(model, TaskBatch(collate(rows[:1], pad_id=0), one))
    both = Pairs(pairs.chosen[:2], pairs.rejected[:2], pairs.reference[:6])
    beside = TaskBatch(collate([rows[0], longer], pad_id=7), both)
    for name, value in objective.training_losses(model, beside).items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-5)


def test_the_policy_comes_to_prefer_what_was_chosen(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """On clips never heard, the codes must come to say which caption is the right one."""
    summary = run(settings_of(preferences, start), tmp_path / "run")
    assert summary["validation_accuracy"] > 0.9
    assert summary["validation_margin"] > 0
    assert summary["validation_kl"] > 0
    # "loud" is what the facts contradict, and "sad and slow" is not always right.
    assert {"validation_contradicted", "validation_clues", "validation_emotion"} <= set(summary)
    meta = read_meta(tmp_path / "run" / "model")
    assert (meta.provenance["kind"], meta.weights) == ("dpo", "full")
    assert summary["validation_loss"] < 0.3


def test_at_the_first_step_policy_and_reference_agree(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """The start is its own reference, so every margin is 0 and the loss is log 2."""
    settings = settings_of(preferences, start, training=replace(FIT, steps=1, log_every=1))
    run(settings, tmp_path / "run")
    line = trace(tmp_path / "run")[0]
    assert line["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert line["margin"] == pytest.approx(0.0, abs=1e-4)


def test_an_adapter_is_its_own_reference_too(
    tmp_path: Path, preferences: Path, start: Path
) -> None:
    """Of a student that is base + adapter, π_ref is with the adapter, not the base."""
    lora = ModelSettings(start=start, lora=AdapterSettings(rank=4))
    brief = replace(FIT, steps=6, log_every=1, save_every=6)
    run(settings_of(preferences, start, model=lora, training=brief), tmp_path / "first")
    adapted = tmp_path / "first" / "model"
    assert read_meta(adapted).weights == "adapter"
    again = settings_of(
        preferences,
        adapted,
        model=ModelSettings(start=adapted, lora=AdapterSettings(rank=4)),
        training=replace(brief, steps=1),
        check=CheckSettings(rows=0),
    )
    run(again, tmp_path / "second")
    assert trace(tmp_path / "second")[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    # What comes of it stands on the same base, and opens again.
    assert read_meta(tmp_path / "second" / "model").base == str(start)
    assert load_torch(tmp_path / "second" / "model")
    other = ModelSettings(start=adapted, lora=AdapterSettings(rank=8))
    with pytest.raises(RecipeError, match=r"set model\.lora\.rank"):
        run(replace(again, model=other), tmp_path / "third")


@pytest.mark.parametrize("cache_survives", [True, False])
def test_a_killed_run_goes_on_with_the_same_losses(
    tmp_path: Path, preferences: Path, start: Path, cache_survives: bool
) -> None:
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=9, save_every=5, log_every=2),
        validation=ValidationSettings(every=4, rows=6, best="loss"),
    )
    lost = () if cache_survives else (CACHE_FOLDER,)
    assert_goes_on_alike(train_dpo, settings, tmp_path, lost=lost)


def test_early_stop_keeps_the_best(tmp_path: Path, preferences: Path, start: Path) -> None:
    """A learning rate far too high: after the first validation it only gets worse."""
    settings = settings_of(
        preferences,
        start,
        training=replace(FIT, steps=60, learning_rate=1e-4, warmup_steps=0),
        validation=ValidationSettings(every=2, rows=9, best="kl", patience=2),
        check=CheckSettings(rows=0),
    )
    summary = run(settings, tmp_path / "run")
    # The reference is left further behind with each step, so the first validation is the best.
    lines = [line for line in trace(tmp_path / "run") if "validation_kl" in line]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert summary["best_step"] == 2
    stopped = load_file(tmp_path / "run" / "checkpoint-6" / "weights.safetensors")
    kept = load_torch(tmp_path / "run" / "model")
    brief = replace(settings.training, steps=2)
    run(replace(settings, training=brief, validation=ValidationSettings()), tmp_path / "brief")
    two = load_torch(tmp_path / "brief" / "model")
    name = "causal_lm.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(kept.get_parameter(name), two.get_parameter(name))
    assert not torch.equal(kept.get_parameter(name), stopped[name])
    # Resumed, it knows that it had stopped.
    again = run(settings, tmp_path / "run", resume=True)
    assert again["best_step"] == 2
    assert not (tmp_path / "run" / "checkpoint-8").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "dpp"}, "did you mean 'dpo'"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"smoothing": 0.1}, "0 for all but cdpo"),
        ({"likelihood_weight": -1.0}, "must be 0 or more"),
    ],
)
def test_a_setting_out_of_range_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        PairLossSettings(**change)


def test_what_is_missing_is_named(tmp_path: Path, preferences: Path, start: Path) -> None:
    with pytest.raises(RecipeError, match=r"give model\.start"):
        settings_of(preferences, start, model=ModelSettings())
    wrong = ValidationSettings(every=1, rows=3, best="reward")
    settings = settings_of(preferences, start, validation=wrong)
    with pytest.raises(RecipeError, match="choose another validation"):
        run(settings, tmp_path / "run")
    few = settings_of(preferences, start, batch=PairBatchSettings(captions=1))
    with pytest.raises(DataError, match="make pairs first"):
        run(few, tmp_path / "none")


def test_a_reference_with_other_weights_is_computed_anew(tmp_path: Path) -> None:
    """Of two models that share a cache folder, each has its own log-probabilities."""
    vocabulary = tiny_vocabulary()
    rows = random_rows(vocabulary, seed=3, rows=2, responses=2)
    examples = [Example(row.prompt_ids, said) for row in rows for said in row.responses]
    for seed in (0, 1):
        model = CaptionModel(tiny_lm("llama", seed=seed), vocabulary).eval()
        expected = separate_log_probs(model.causal_lm, rows, vocabulary.text_vocab_size)
        cache = ReferenceCache(tmp_path, StartingPolicy(model), examples)
        assert cache.fill() == len(examples)
        np.testing.assert_allclose(cache.lookup(examples), expected.detach(), rtol=1e-4)


EXAMPLES = [Example((1, 2), (3, 4)), Example((1, 2), (0,)), Example((5,), (2, 2, 1))]


@dataclass
class Frozen:
    """The same logits for every token: log-probabilities can be worked out by hand."""

    fingerprint: str
    logits: tuple[float, ...]
    text_vocab_size: int = 5
    asked: list[int] = field(default_factory=list)

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        tokens = sum(len(response) for row in rows for response in row.responses)
        self.asked.append(len(rows))
        return torch.tensor(self.logits).expand(tokens, -1)


def test_each_response_has_the_sum_of_its_tokens_computed_once(tmp_path: Path) -> None:
    frozen = Frozen("a", (0.0, 1.0, 2.0, 3.0, 4.0))
    cache = ReferenceCache(tmp_path, frozen, EXAMPLES)
    assert cache.fill() == 3
    logs = np.arange(5) - np.log(np.exp(np.arange(5)).sum())
    expected = [logs[3] + logs[4], logs[0], 2 * logs[2] + logs[1]]
    assert cache.lookup(EXAMPLES) == pytest.approx(expected, abs=1e-5)
    again = ReferenceCache(tmp_path, frozen, EXAMPLES)
    assert again.fill() == 0
    assert again.lookup(EXAMPLES[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert again.lookup([]).shape == (0,)
    assert frozen.asked == [2]


def test_other_weights_never_meet_these_numbers(tmp_path: Path) -> None:
    first = ReferenceCache(tmp_path, Frozen("a", (0.0,) * 5), EXAMPLES)
    first.fill()
    other = ReferenceCache(tmp_path, Frozen("b", (9.0, 0.0, 0.0, 0.0, 0.0)), EXAMPLES)
    assert other.folder != first.folder
    assert other.fill() == 3
    assert other.lookup(EXAMPLES)[1] > first.lookup(EXAMPLES)[1] + 1.0
