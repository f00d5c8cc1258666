"""The reward model, and the check of greedy captions against numbers counted by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import ValidationSettings
from aligncap.captioner.checkpoint import CaptionLimits
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import collate, to_torch
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.errors import MissingModelError, RecipeError
from aligncap.preference import reward
from aligncap.preference.examples import PairBatchSettings, PreferenceRow, write_preference_rows
from aligncap.preference.reward import RewardModel, RewardSettings
from aligncap.training.settings import FitSettings
from support.captioner import random_rows, tiny_lm, tiny_vocabulary
from support.preferences import preference_rows
from support.recipe_runs import run
from support.rows import SOURCE


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_reward_is_of_the_last_token_behind_its_own_prompt(kind: str) -> None:
    """By another road: each response whole behind a copy of the prompt, the last hidden state."""
    vocabulary = tiny_vocabulary()
    model = RewardModel(CaptionModel(tiny_lm(kind), vocabulary)).eval()
    rows = random_rows(vocabulary, seed=3, rows=3, responses=2)
    with torch.no_grad():
        found = model(to_torch(collate([reward.with_last_token(row) for row in rows], pad_id=0)))
        states = [
            model.body.bare.base_model(input_ids=torch.tensor([[*row.prompt_ids, *said]]))
            for row in rows
            for said in row.responses
        ]
        alone = model.head(torch.stack([one.last_hidden_state[0, -1] for one in states]))[:, 0]
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


def test_rewards_are_standardised_over_the_rows_given() -> None:
    vocabulary = tiny_vocabulary()
    model = RewardModel(CaptionModel(tiny_lm("llama"), vocabulary))
    rows = random_rows(vocabulary, seed=4, rows=5, responses=3)
    model.standardise(rows)
    found = model.rewards(rows)
    assert found.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert found.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)


def test_it_ranks_what_can_be_ranked(tmp_path: Path, start: Path) -> None:
    """One wording is always liked best, whatever is heard: clips never seen must show it."""
    liked = [replace(row, pairs=((1, 0), (1, 2))) for row in preference_rows(30)]
    write_preference_rows(tmp_path / "rows.jsonl", SOURCE, liked)
    settings = reward.RewardModelSettings(
        data=DataSettings(rows=(tmp_path / "rows.jsonl",)),
        training=FitSettings(precision="float32", steps=30, learning_rate=2e-3, log_every=10),
        model=ModelSettings(start=start),
        batch=PairBatchSettings(rows=6),
        validation=ValidationSettings(every=30, rows=9),
    )
    summary = run(reward.train_reward_model, settings, tmp_path / "run")
    assert summary["validation_accuracy"] == 1.0
    opened = reward.open_reward(RewardSettings(name="model", model=tmp_path / "run" / "model"))
    scores = [opened(row, row.candidates) for row in preference_rows(6, seed=5)]
    assert all(one.index(max(one)) == 1 for one in scores)
    # In standard deviations from the usual candidate.
    assert np.mean(scores) == pytest.approx(0.0, abs=0.5)
    assert np.std(scores) == pytest.approx(1.0, abs=0.5)


def test_a_captioner_is_no_reward_model(start: Path) -> None:
    with pytest.raises(MissingModelError, match="reward_head"):
        reward.ModelReward(start)
    with pytest.raises(RecipeError, match=r"needs reward\.model"):
        RewardSettings(name="model")


def test_evidence_is_a_reward_that_cannot_be_flattered() -> None:
    texts = ["Sounds sad and quiet.", "Sounds happy and loud.", "Somebody speaks.", " "]
    found = reward.EvidenceReward()(preference_rows(1)[0], texts)
    # Known are the emotion (worth 2) and that it is quiet (1); wrong ones cost 2 and 1.5.
    assert found == pytest.approx([1.0, -3.5 / 3, 0.0, reward.EMPTY_REWARD])


SAID = {7: "She sounds sad and quiet.", 8: "She sounds angry and loud.", 9: "Somebody speaks."}


class Fixed:
    """Stands for a model: says of each clip what is written here, clip 7 first."""

    limits = CaptionLimits()

    def prompt_ids(self, place: int, row: PreferenceRow) -> tuple[int, ...]:
        return (place,)

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[tuple[CaptionHypothesis, ...]]:
        assert options.beam_size == 1
        return [
            (CaptionHypothesis(SAID[n], Hypothesis((n,) * (n - 5), -1.0, -1.0)),)
            for (n,) in prompts
        ]


def check(rows: list[PreferenceRow], **options: object) -> dict[str, float]:
    return reward.CaptionCheck(Fixed(), rows, reward.CheckSettings(rows=9), **options)()


def test_counts_by_hand() -> None:
    """Clips 7, 8 and 9 are for validation: happy, angry and sad, all of them quiet."""
    found = check(preference_rows(10), reward=lambda row, texts: [float(len(texts[0]))])
    assert found == pytest.approx(
        {
            # Of "quiet" and "loud" the signal contradicts one; of "she", "sad" … it cannot tell.
            "validation_contradicted": 0.5,
            "validation_clues": 2.0,  # she, sad, quiet; she, angry, loud; nothing
            "validation_tokens": (2 + 3 + 4) / 3,
            # Only of the second the emotion that is named is the labelled one.
            "validation_emotion": 1 / 3,
            "validation_reward": (25 + 26 + 16) / 3,
        }
    )


def test_what_is_not_known_is_not_told() -> None:
    bare = [replace(row, facts=None, emotion=None) for row in preference_rows(10)]
    assert set(check(bare)) == {"validation_clues", "validation_tokens"}
    assert check(preference_rows(5)) == {}
