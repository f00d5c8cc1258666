"""The DPO loss and its gradient against trl's own trainer, on ids of our choice."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aligncap.alignment.trainer import TaskBatch
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import collate
from aligncap.preference.dpo import PairLossSettings, PairObjective
from preference.test_dpo import gradients, random_pairs
from support.scripts import load_script

pytest.importorskip("trl", reason="needs trl, of the dev extra, as an oracle")
pytestmark = pytest.mark.filterwarnings("ignore")  # trl's and datasets' own, many


@pytest.fixture(scope="module")
def rival() -> Any:
    """The benchmark's bridge to trl."""
    return load_script("benchmarks/trl_rival.py")


@pytest.mark.parametrize(
    ("name", "theirs", "normalised"),
    [("dpo", "sigmoid", False), ("dpo", "sigmoid_norm", True), ("ipo", "ipo", True)],
)
def test_loss_and_gradient_are_those_of_trl(rival, name, theirs, normalised) -> None:
    tiny, rows, pairs = random_pairs(seed=5)
    # trl's softmax runs over every row, so ours must: a vocabulary without speech.
    size = tiny.causal_lm.get_input_embeddings().weight.shape[0]
    model = CaptionModel(tiny.causal_lm, SimpleNamespace(size=size, text_vocab_size=size))
    settings = PairLossSettings(name=name, beta=0.2, length_normalised=normalised)
    batch = TaskBatch(collate(rows, pad_id=0), pairs)
    loss = PairObjective(settings).training_losses(model, batch)["loss"]
    mine = gradients(model.causal_lm, loss)
    trainer = rival.open_trainer(model.causal_lm, beta=0.2, loss=theirs)
    said = [(place, s) for place, row in enumerate(rows) for s in row.responses]
    known = pairs.reference.tolist()
    places = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    inputs = rival.inputs_of(
        trainer,
        [row.prompt_ids for row in rows],
        [(said[c][0], said[c][1], said[r][1]) for c, r in places],
        [(known[c], known[r]) for c, r in places],
    )
    their_loss = trainer.compute_loss(trainer.model, inputs)
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    other = gradients(model.causal_lm, their_loss)
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
