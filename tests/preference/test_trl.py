"""The DPO loss and its gradient against trl's own trainer, on ids of our choice."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aligncap.alignment.trainer import TaskBatch
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import collate
from aligncap.preference.dpo import LOSSES, PairLossSettings, PairObjective
from preference.test_dpo import random_pairs

pytest.importorskip("trl", reason="needs trl, of the dev extra, as an oracle")
pytestmark = pytest.mark.filterwarnings("ignore")  # trl's and datasets' own, many


class AllText:
    """trl's softmax runs over every row, so ours must: a vocabulary without speech."""

    def __init__(self, size: int) -> None:
        self.size = self.text_vocab_size = size


@pytest.fixture(scope="module")
def rival(repository: Path) -> ModuleType:
    """The benchmark's bridge to trl."""
    path = repository / "benchmarks" / "trl_rival.py"
    spec = importlib.util.spec_from_file_location("trl_rival", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def both(rival: ModuleType, name: str, theirs: str, *, normalised: bool) -> dict[str, Any]:
    """Loss and gradient of ours and of trl's on the same weights, rows and reference."""
    tiny, rows, pairs = random_pairs(seed=5)
    size = tiny.causal_lm.get_input_embeddings().weight.shape[0]
    model = CaptionModel(tiny.causal_lm, AllText(size))  # type: ignore[arg-type]
    settings = PairLossSettings(name=name, beta=0.2, length_normalised=normalised)
    loss = PairObjective(settings).training_losses(
        model, TaskBatch(collate(rows, pad_id=0), pairs)
    )["loss"]
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.causal_lm.named_parameters()}
    model.zero_grad()
    trainer = rival.open_trainer(model.causal_lm, beta=0.2, loss=theirs)
    said = [(place, s) for place, row in enumerate(rows) for s in row.responses]
    assert pairs.reference is not None
    known = pairs.reference.tolist()
    places = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    inputs = rival.inputs_of(
        trainer,
        [row.prompt_ids for row in rows],
        [(said[c][0], said[c][1], said[r][1]) for c, r in places],
        [(known[c], known[r]) for c, r in places],
    )
    their_loss = trainer.compute_loss(trainer.model, inputs)
    their_loss.backward()
    their_gradients = {n: p.grad for n, p in model.causal_lm.named_parameters()}
    return {"loss": (loss, their_loss), "gradients": (gradients, their_gradients)}


@pytest.mark.parametrize(
    ("name", "theirs", "normalised"),
    [("dpo", "sigmoid", False), ("dpo", "sigmoid_norm", True), ("ipo", "ipo", True)],
)
def test_loss_and_gradient_are_those_of_trl(
    rival: ModuleType, name: str, theirs: str, normalised: bool
) -> None:
    assert name in LOSSES
    found = both(rival, name, theirs, normalised=normalised)
    torch.testing.assert_close(*found["loss"], atol=1e-5, rtol=1e-5)
    mine, other = found["gradients"]
    for parameter, gradient in mine.items():
        torch.testing.assert_close(gradient, other[parameter], atol=1e-5, rtol=1e-4)
