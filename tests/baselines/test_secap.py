"""SECap's parts and losses by hand, and its training at tiny size."""

import math
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from aligncap.alignment.trainer import TaskBatch
from aligncap.baselines.htsat_bart import FRAMES, HtsatConnector, masked, stretched
from aligncap.baselines.secap import (
    Club,
    QFormerConnector,
    SecapSettings,
    SecapTexts,
    club_losses,
    secap_task,
)
from aligncap.captioner.connectors import open_connector
from aligncap.captioner.prompts import (
    ConnectorMeta,
    SharedPromptBatch,
    SharedPromptRow,
    collate,
)
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.recipes import read_section


def fixed_club() -> Club:
    """q(y | x) with mean x and variance exp(tanh(0)) = 1."""
    club = Club(1, 1, 2)
    for parameter in club.parameters():
        parameter.data.zero_()
    club.mean[0].weight.data[:] = torch.tensor([[1.0], [-1.0]])
    club.mean[2].weight.data[:] = torch.tensor([[1.0, -1.0]])
    return club


def test_club_by_hand() -> None:
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    # Squared distances of y_j to x_i: own 1 and 0, of all 1, 4; 1, 0: means 2.5 and 0.5.
    assert fixed_club().bound(x, y).item() == pytest.approx(((2.5 - 1) + (0.5 - 0)) / 2 / 2)
    assert fixed_club().negative_log_likelihood(x, y).item() == pytest.approx((1 + 0) / 2 / 2)


def test_each_gradient_of_club_reaches_one_side_only() -> None:
    torch.manual_seed(0)
    club, speech = Club(3, 2, 4), torch.randn(5, 3, requires_grad=True)
    fit, bound = club_losses(club, speech, torch.randn(5, 2))
    (to_speech,) = torch.autograd.grad(bound, speech, retain_graph=True)
    assert to_speech.abs().max() > 0
    assert torch.autograd.grad(bound, list(club.parameters()), allow_unused=True) == (None,) * 8
    assert torch.autograd.grad(fit, speech, allow_unused=True, retain_graph=True) == (None,)
    assert all(one.abs().max() > 0 for one in torch.autograd.grad(fit, list(club.parameters())))


def test_the_bound_is_high_for_what_depends_and_falls_where_nothing_does() -> None:
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(256, 1, generator=chance)
    alone = torch.randn(256, 1, generator=chance)
    club = fixed_club()
    assert club.bound(x, x).item() > 0.8
    assert abs(club.bound(x, alone).item()) < 0.2


class Guess(nn.Module):
    """A model that gives each token the same logits, where SecapTraining has one."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.audio_llama_project = nn.Linear(2, 2)

    @property
    def model(self) -> "Guess":
        return self

    connector = model

    def text_logits(self, batch: SharedPromptBatch[torch.Tensor]) -> torch.Tensor:
        self.audio_llama_project(torch.zeros(1, 3, 2))
        return torch.tensor([0.0, 2.0, 0.0, 0.0]).expand(len(batch.target_ids), 4)


def test_labels_are_smoothed_in_training_only() -> None:
    row = SharedPromptRow(prompt_ids=(0,), responses=((1, 1),))
    batch = TaskBatch(collate([row], pad_id=0), SecapTexts([(1, 1)], [[]]))
    recipe = {
        "data": {"rows": ["rows.jsonl"]},
        "training": {"steps": 1, "learning_rate": 1e-3},
        "label_smoothing": 0.2,
    }
    trainer: Any = MagicMock()
    objective: Any = secap_task(read_section(SecapSettings, recipe, file="x"), trainer).objective
    total = math.log(math.exp(2) + 3)
    # Of a target .8 and a quarter of the .2 are on its own token, whose logit is 2.
    losses = objective.training_losses(Guess().train(), batch)
    assert losses["loss"].item() == pytest.approx(total - 2 * (0.8 + 0.05))
    losses = objective.validation_losses(Guess().eval(), batch)
    assert losses["ce"].item() == pytest.approx(total - 2)


@pytest.fixture(scope="module")
def qformer() -> QFormerConnector:
    torch.manual_seed(0)
    sizes = {"queries": 3, "layers": 2, "heads": 2, "inner": 8}
    return QFormerConnector(6, 10, **sizes).eval()


def test_padding_changes_nothing(qformer: QFormerConnector) -> None:
    features = torch.randn(2, 7, 6)
    both = qformer(features, torch.tensor([7, 4]))
    assert both.shape == (2, 3, 10)
    alone = qformer(features[1:, :4], torch.tensor([4]))
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-6)


def test_the_published_size_is_the_default() -> None:
    with torch.device("meta"):
        meta = ConnectorMeta(name="qformer", width=1024, vectors=32)
        connector = open_connector(meta, 4096)
    assert isinstance(connector, QFormerConnector)
    layers = connector.audio_Qformer.encoder.layer
    crossing = [number for number, one in enumerate(layers) if hasattr(one, "crossattention")]
    assert crossing == [0, 2, 4, 6, 8, 10]
    assert connector.audio_query_tokens.shape == (1, 32, 768)
    # Self-attention 4 (d² + d) and its norm, FFN 8 d² + 5 d and its norm, of 12 layers; cross of 6.
    d = 768
    attention, inner = 4 * (d * d + d) + 2 * d, 8 * d * d + 5 * d + 2 * d
    expected = 12 * (attention + inner) + 6 * attention + 2 * d + 32 * d
    expected += 1024 * d + d + d * 4096 + 4096
    assert sum(one.numel() for one in connector.parameters()) == expected


def test_what_a_connector_does_not_know_is_named() -> None:
    with pytest.raises(UnknownNameError, match="queries"):
        open_connector(ConnectorMeta(name="qformer", width=4, options={"querys": 3}), 8)
    with pytest.raises(UnknownNameError, match="connector"):
        open_connector(ConnectorMeta(name="bridge", width=4), 8)
    with pytest.raises(RecipeError, match="width"):
        ConnectorMeta(name="qformer")


def test_a_spectrogram_is_stretched_by_itself() -> None:
    ramp = torch.linspace(0, 1, 100)[:, None].expand(-1, 4)
    found = stretched(ramp)
    assert found.shape == (FRAMES, 4)
    # A bicubic stretch of a line is nearly that line, away from its ends.
    expected = torch.linspace(0, 1, FRAMES)[:, None].expand(-1, 4)
    torch.testing.assert_close(found[40:-40], expected[40:-40], rtol=0, atol=1e-3)
    assert stretched(torch.ones(2000, 4)).shape == (FRAMES, 4)


def test_spec_augment_masks_stripes_at_most_and_leaves_the_given_one() -> None:
    torch.manual_seed(0)
    given = torch.ones(3, FRAMES, 64)
    found = masked(given)
    assert bool((given == 1).all())
    for clip in found:
        frames, bands = (clip == 0).all(1).sum(), (clip == 0).all(0).sum()
        assert 0 < frames <= 126
        assert bands <= 14
    assert not torch.equal(found[0], found[1])


def test_htsat_gives_thirty_two_steps_each_thirty_two_times() -> None:
    torch.manual_seed(0)
    sizes = {"embed": 8, "third_depth": 2, "first_heads": 1}
    connector = HtsatConnector(64, 6, **sizes).eval()
    with torch.no_grad():
        found = connector(torch.randn(2, 300, 64), torch.tensor([300, 120]))
    assert found.shape == (2, connector.vectors, 6)
    steps = found.unflatten(1, (32, 32))
    assert bool((steps == steps[:, :, :1]).all())
    assert len(torch.unique(steps[0, :, 0], dim=0)) == 32


def test_of_a_frozen_htsat_nothing_moves_in_training():
    sizes = {"embed": 8, "third_depth": 2, "first_heads": 1}
    connector = HtsatConnector(64, 6, **sizes, frozen=1).train()
    before = {name: value.clone() for name, value in connector.htsat.state_dict().items()}
    spectra, lengths = torch.randn(2, 300, 64) + 3, torch.tensor([300, 120])
    connector(spectra, lengths).sum().backward()
    assert connector.training
    assert connector.enc_to_dec_proj.weight.grad is not None
    for name, value in connector.htsat.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
