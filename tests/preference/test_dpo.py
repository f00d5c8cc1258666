"""DPO: its losses by hand, from recipe to model folder, and the reference's cache."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from aligncap.alignment.examples import DataSettings, Example
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import TaskBatch, ValidationSettings
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.model import AdapterSettings, CaptionModel
from aligncap.captioner.prompts import SharedPromptRow, collate
from aligncap.errors import DataError, RecipeError
from aligncap.preference import dpo
from aligncap.preference.examples import PairBatchSettings, Pairs
from aligncap.preference.reward import CheckSettings, bradley_terry
from aligncap.training.settings import FitSettings
from support import recipe_runs
from support.captioner import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary
from support.recipe_runs import assert_goes_on_alike
from support.rows import trace

close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def test_margins_are_differences_of_log_ratios_and_the_reference_gets_no_gradient() -> None:
    policy = torch.tensor([-3.0, -5.0, -4.0], requires_grad=True)
    reference = torch.tensor([-4.0, -5.5, -3.0], requires_grad=True)
    # Ratios 1, 0.5, -1: the first against the third, the second against the first.
    found = dpo.log_ratio_margins(policy, reference, torch.tensor([0, 1]), torch.tensor([2, 0]))
    close(found, torch.tensor([2.0, -0.5]))
    found.sum().backward()
    assert reference.grad is None
    close(policy.grad, torch.tensor([0.0, 1.0, -1.0]))


MARGINS = torch.tensor([0.0, 1.0, -2.0])


@pytest.mark.parametrize(
    ("found", "by_hand"),
    # σ(0.5) = 0.622459, σ(1) = 0.731059, σ(-1) = 0.268941, σ(-2) = 0.119203.
    [
        (dpo.dpo(MARGINS, 0.5), [0.693147, 0.474077, 1.313262]),  # margins become 0, 0.5, -1
        (dpo.cdpo(MARGINS, 0.5, 0.0), [0.693147, 0.474077, 1.313262]),
        # 0.9 · 0.474077 + 0.1 · 0.974077; 0.9 · 1.313262 + 0.1 · 0.313262.
        (dpo.cdpo(MARGINS, 0.5, 0.1), [0.693147, 0.524077, 1.213262]),
        (dpo.paper_eq6(MARGINS, 0.5), [0.346574, 0.156631, 1.063464]),  # 0.5 times -log σ(margin)
        (dpo.ipo(MARGINS, 0.5), [1.0, 0.0, 9.0]),  # 1/(2β) = 1: (0-1)², (1-1)², (-2-1)²
        (bradley_terry(torch.tensor([2.0]), torch.tensor([1.0])), [0.313262]),
    ],
)
def test_each_loss_by_hand(found: torch.Tensor, by_hand: list[float]) -> None:
    close(found, torch.tensor(by_hand))


@given(st.floats(-20, 20), st.floats(0.01, 5))
def test_all_but_ipo_fall_as_the_margin_rises(margin: float, beta: float) -> None:
    two = torch.tensor([margin, margin + 1.0], dtype=torch.float64)
    for name in ("dpo", "paper_eq6", "cdpo"):
        worse, better = dpo.LOSSES[name](two, beta, 0.0).tolist()
        assert better < worse
    lowest = torch.tensor([1 / (2 * beta)], dtype=torch.float64)
    assert dpo.LOSSES["ipo"](lowest, beta, 0.0).item() == pytest.approx(0.0, abs=1e-12)


def random_pairs(seed: int = 0) -> tuple[CaptionModel, list[SharedPromptRow], Pairs]:
    """A random model, three clips of three candidates, two pairs each, a made-up reference."""
    vocabulary = tiny_vocabulary()
    rows = random_rows(vocabulary, seed=seed, rows=3, responses=3)
    reference = np.random.default_rng(seed).normal(-20, 3, 9).astype(np.float32)
    pairs = Pairs(np.array([0, 0, 4, 4, 8, 8]), np.array([1, 2, 3, 5, 6, 7]), reference)
    return CaptionModel(tiny_lm("llama", seed=seed), vocabulary).eval(), rows, pairs


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("normalised", "likelihood"), [(False, 0.0), (True, 0.0), (False, 0.5)])
def test_shared_rows_give_the_loss_and_gradient_of_separate_rows(normalised, likelihood) -> None:
    """By another road: each response behind its own copy of the prompt, one plain forward each."""
    model, rows, pairs = random_pairs()
    settings = dpo.PairLossSettings(
        beta=0.3, length_normalised=normalised, likelihood_weight=likelihood
    )
    batch = TaskBatch(collate(rows, pad_id=7), pairs)  # padding never counts
    mine = dpo.PairObjective(settings).training_losses(model, batch)["loss"]
    sums = separate_log_probs(model.causal_lm, rows, model.vocabulary.text_vocab_size)
    lengths = torch.tensor([len(said) for row in rows for said in row.responses])
    ratios = (sums - torch.from_numpy(pairs.reference)) / (lengths if normalised else 1)
    theirs = torch.log1p(torch.exp(-0.3 * (ratios[pairs.chosen] - ratios[pairs.rejected]))).mean()
    theirs = theirs - likelihood * (sums / lengths)[[0, 4, 8]].mean()
    close(mine, theirs)
    close(gradients(model, mine), gradients(model, theirs), rtol=1e-4)


FIT = FitSettings(
    precision="float32",
    steps=40,
    learning_rate=5e-3,
    log_every=5,
    save_every=20,
    schedule="constant",
)


def settings_of(preferences: Path, start: Path, **changes: object) -> dpo.DpoSettings:
    given = {
        "data": DataSettings(rows=(preferences,)),
        "training": FIT,
        "model": ModelSettings(start=start),
        "batch": PairBatchSettings(rows=6),
        "validation": ValidationSettings(every=20, rows=9),
        "check": CheckSettings(rows=3),
    }
    return dpo.DpoSettings(**given | changes)


run = partial(recipe_runs.run, dpo.train_dpo)


def test_the_policy_comes_to_prefer_what_was_chosen(tmp_path: Path, changed: Any) -> None:
    """On clips never heard, the codes must come to say which caption is the right one."""
    summary = run(changed(training=replace(FIT, log_every=1)), tmp_path)
    # The start is its own reference: the first margins are 0, and the loss is log 2.
    first = trace(tmp_path)[0]
    assert (first["loss"], first["margin"]) == pytest.approx((0.693147, 0.0), abs=1e-4)
    assert summary["validation_accuracy"] > 0.9
    assert summary["validation_loss"] < 0.3
    assert min(summary["validation_margin"], summary["validation_kl"]) > 0
    # "loud" is what the facts contradict, and "sad and slow" is not always right.
    assert {"validation_contradicted", "validation_clues", "validation_emotion"} <= set(summary)
    meta = read_meta(tmp_path / "model")
    assert (meta.provenance["kind"], meta.weights) == ("dpo", "full")


def test_an_adapter_is_its_own_reference_too(tmp_path, changed, start) -> None:
    """Of a student that is base + adapter, π_ref is with the adapter, not the base."""
    lora = ModelSettings(start=start, lora=AdapterSettings(rank=4))
    brief = replace(FIT, steps=6, log_every=1, save_every=6)
    run(changed(model=lora, training=brief), tmp_path / "first")
    adapted = tmp_path / "first" / "model"
    assert read_meta(adapted).weights == "adapter"
    again = changed(
        model=replace(lora, start=adapted),
        training=replace(brief, steps=1),
        check=CheckSettings(rows=0),
    )
    run(again, tmp_path / "second")
    assert trace(tmp_path / "second")[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    # What comes of it stands on the same base, and opens again.
    assert read_meta(tmp_path / "second" / "model").base == str(start)
    assert load_torch(tmp_path / "second" / "model")
    for name, value in {"rank": 8, "alpha": 64, "dropout": 0.5, "targets": ("o_proj",)}.items():
        other = ModelSettings(start=adapted, lora=AdapterSettings(**{"rank": 4, name: value}))
        with pytest.raises(RecipeError, match=rf"set model\.lora\.{name} to go on"):
            run(replace(again, model=other), tmp_path / name)


@pytest.mark.parametrize("lost", [(), (dpo.CACHE_FOLDER,)])
def test_a_killed_run_goes_on_with_the_same_losses(tmp_path, changed, lost) -> None:
    settings = changed(
        training=replace(FIT, steps=9, save_every=5, log_every=2),
        validation=ValidationSettings(every=4, rows=6, best="loss"),
    )
    assert_goes_on_alike(dpo.train_dpo, settings, tmp_path, lost=lost)


def test_early_stop_keeps_the_best(tmp_path: Path, changed: Any) -> None:
    """The reference is left further behind with each step, so the first validation is the best."""
    settings = changed(
        training=replace(FIT, steps=60, learning_rate=1e-4),
        validation=ValidationSettings(every=2, rows=9, best="kl", patience=2),
        check=CheckSettings(rows=0),
    )
    summary = run(settings, tmp_path / "run")
    validated = [line["step"] for line in trace(tmp_path / "run") if "validation_kl" in line]
    assert (validated, summary["best_step"]) == ([2, 4, 6], 2)
    brief = replace(settings.training, steps=2)
    run(replace(settings, training=brief, validation=ValidationSettings()), tmp_path / "brief")
    name = "causal_lm.model.layers.0.mlp.up_proj.weight"
    kept, two = (
        load_torch(tmp_path / one / "model").get_parameter(name) for one in ("run", "brief")
    )
    stopped = load_file(tmp_path / "run" / "checkpoint-6" / "weights.safetensors")[name]
    assert torch.equal(kept, two)
    assert not torch.equal(kept, stopped)
    # Resumed, it knows that it had stopped.
    assert run(settings, tmp_path / "run", resume=True)["best_step"] == 2
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
        dpo.PairLossSettings(**change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": ModelSettings()}, RecipeError, r"give model\.start"),
        (
            {"validation": ValidationSettings(every=1, rows=3, best="reward")},
            RecipeError,
            "choose another validation",
        ),
        (
            {"validation": ValidationSettings(rows=0, best="loss"), "check": CheckSettings(rows=0)},
            RecipeError,
            "tell no validation_loss",
        ),
        ({"batch": PairBatchSettings(captions=1)}, DataError, "raise batch.captions"),
    ],
)
def test_what_is_missing_is_named(tmp_path, changed, change, error, message) -> None:
    with pytest.raises(error, match=message):
        run(changed(**change), tmp_path)


class Counted(dpo.StartingPolicy):
    """Counts the rows that it scores."""

    rows = 0

    def text_logits(self, rows: Any) -> Any:
        self.rows += len(rows)
        return super().text_logits(rows)


def test_the_reference_is_computed_once_for_each_model(tmp_path: Path) -> None:
    """Of two models that share a cache folder, each has its own log-probabilities."""
    vocabulary = tiny_vocabulary()
    rows = random_rows(vocabulary, seed=3, rows=2, responses=2)
    examples = [Example(row.prompt_ids, said) for row in rows for said in row.responses]
    for seed in (0, 1):
        model = CaptionModel(tiny_lm("llama", seed=seed), vocabulary).eval()
        expected = separate_log_probs(model.causal_lm, rows, vocabulary.text_vocab_size).detach()
        policy = Counted(model)
        for missing in (4, 0):
            cache = dpo.ReferenceCache(tmp_path, policy, examples)
            assert cache.fill() == missing
            np.testing.assert_allclose(cache.lookup(examples[::-1]), expected.flip(0), rtol=1e-4)
        assert policy.rows == 2  # responses share their prompts
        assert cache.lookup([]).shape == (0,)
