"""The reward model: what it reads, and that it ranks a set that can be ranked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import DataSettings
from aligncap.alignment.init_model import ModelSettings
from aligncap.alignment.trainer import ValidationSettings
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import SharedPromptRow, collate, to_torch
from aligncap.errors import MissingModelError, RecipeError
from aligncap.preference import reward
from aligncap.preference.examples import PairBatchSettings, write_preference_rows
from aligncap.preference.reward import (
    ModelReward,
    RewardModel,
    RewardSettings,
    open_reward,
    with_last_token,
)
from aligncap.training.settings import FitSettings
from captioner.tiny import random_rows, tiny_lm, tiny_vocabulary
from support.preferences import preference_rows
from support.rows import SOURCE


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_reward_is_of_the_last_token_behind_its_own_prompt(kind: str) -> None:
    """By another road: each response whole behind a copy of the prompt, the last hidden state."""
    vocabulary = tiny_vocabulary()
    model = RewardModel(CaptionModel(tiny_lm(kind), vocabulary)).eval()
    rows = random_rows(vocabulary, seed=3, rows=3, responses=2)
    with torch.no_grad():
        found = model(to_torch(collate([with_last_token(row) for row in rows], pad_id=0)))
        alone = []
        for row in rows:
            for said in row.responses:
                ids = torch.tensor([[*row.prompt_ids, *said]])
                state = model.body.bare.base_model(input_ids=ids).last_hidden_state[0, -1]
                alone.append(model.head(state)[0])
    torch.testing.assert_close(found, torch.stack(alone), atol=1e-5, rtol=1e-4)


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
    output = tmp_path / "run"
    output.mkdir()
    liked = [replace(row, pairs=((1, 0), (1, 2))) for row in preference_rows(30)]
    write_preference_rows(tmp_path / "rows.jsonl", SOURCE, liked)
    settings = reward.RewardModelSettings(
        data=DataSettings(rows=(tmp_path / "rows.jsonl",)),
        training=FitSettings(steps=30, learning_rate=2e-3, log_every=10),
        model=ModelSettings(start=start),
        batch=PairBatchSettings(rows=6),
        validation=ValidationSettings(every=30, rows=9),
    )
    summary = reward.train_reward_model(settings, output, resume=False)
    assert float(str(summary["validation_accuracy"])) == 1.0
    opened = open_reward(RewardSettings(name="model", model=output / "model"))
    scores = [opened(row, row.candidates) for row in preference_rows(6, seed=5)]
    assert all(one.index(max(one)) == 1 for one in scores)
    # In standard deviations from the usual candidate.
    assert np.mean(scores) == pytest.approx(0.0, abs=0.5)
    assert np.std(scores) == pytest.approx(1.0, abs=0.5)


def test_a_captioner_is_no_reward_model(start: Path) -> None:
    with pytest.raises(MissingModelError, match="reward_head"):
        ModelReward(start)
    with pytest.raises(RecipeError, match=r"needs reward\.model"):
        RewardSettings(name="model")


def test_a_row_needs_its_last_token_read() -> None:
    row = with_last_token(SharedPromptRow((1, 2), ((5,), (6, 7))))
    assert row.responses == ((5, 5), (6, 7, 7))
    assert row.length == 2 + 1 + 2
