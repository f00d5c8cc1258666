"""The contrastive stage of HTSAT-BART: a connector against the texts of a pretrained space."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aligncap.alignment.audio_tower import AudioTower, TowerSettings, begin_with, new_tower
from aligncap.alignment.clap import open_clap
from aligncap.alignment.examples import (
    BatchSettings,
    DataSettings,
    SpeechSource,
    read_rows,
    write_rows,
)
from aligncap.alignment.init_model import ConnectorSettings, ModelSettings, SizeSettings, init_model
from aligncap.alignment.joint import (
    ContrastSettings,
    JointSettings,
    SpaceSettings,
    SpaceValidation,
    train_joint,
)
from aligncap.alignment.space import JointSpace, SpaceShape, save_space
from aligncap.alignment.trainer import read_training_rows
from aligncap.baselines.htsat_bart import HtsatConnector
from aligncap.captioner.connectors import LinearConnector
from aligncap.captioner.model import seeded
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.errors import DataError, RecipeError
from aligncap.tokenizers.cache import TokenCache
from aligncap.tokenizers.features import feature_tokens
from aligncap.training.settings import FitSettings
from support.clap import laion_clap
from support.recipe_runs import run
from support.rows import FEELINGS, SOURCE, tiny_rows

WIDTH, HIDDEN = 6, 10
VECTORS = SimpleNamespace(
    name="vectors", fingerprint="v" * 16, frame_rate_hz=12.5, codebooks=1, codebook_size=1,
    feature_width=WIDTH,
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose vectors lie about a place of their feeling's own."""
    folder = tmp_path_factory.mktemp("rows")
    chance = np.random.default_rng(0)
    places = chance.standard_normal((len(FEELINGS), WIDTH))
    written = []
    with TokenCache(folder / "tokens", VECTORS) as cache:
        for number, row in enumerate(tiny_rows(60)):
            frames = places[number % len(FEELINGS)] + 0.5 * chance.standard_normal((5, WIDTH))
            kept = cache.put(feature_tokens(frames))
            written.append(replace(row, speech=kept.codes, features=kept.features))
        source = SpeechSource.of(VECTORS, store=str(cache.path.absolute()))
    write_rows(folder / "rows.jsonl", source, written)
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space of random weights, whose text tower is of use."""
    captions = [text for some in FEELINGS.values() for text in some]
    shape = SpaceShape(width=16, hidden=32, layers=1, heads=2, texts=330, source=SOURCE)
    folder = tmp_path_factory.mktemp("space") / "model"
    with seeded(0):
        save_space(folder, JointSpace(shape, train_text_tokenizer(captions, 330)).eval())
    return folder


def settings_of(rows: Path, texts: Path) -> JointSettings:
    connector = ConnectorSettings(name="linear")
    return JointSettings(
        data=DataSettings(rows=(rows,), languages={"en": 1.0}),
        training=FitSettings(precision="float32", steps=40, learning_rate=2e-2, log_every=20),
        model=SpaceSettings(tower=TowerSettings(space=texts, connector=connector, hidden=HIDDEN)),
        batch=BatchSettings(rows=12, captions=1),
        contrast=ContrastSettings(act_share=0.0),
        validation=SpaceValidation(every=40, rows=30),
    )


def test_clips_come_near_to_their_captions_and_the_next_stage_begins_with_it(
    rows: Path, texts: Path, tmp_path: Path
) -> None:
    before = {one.name: one.read_bytes() for one in texts.iterdir()}
    summary = run(train_joint, settings_of(rows, texts), tmp_path)
    assert summary["validation_emotion_1"] > 0.9
    assert {one.name: one.read_bytes() for one in texts.iterdir()} == before
    file = tmp_path / "model" / "connector.safetensors"
    learnt = load_file(file)
    first = LinearConnector(WIDTH, HIDDEN).state_dict()
    assert {name: one.shape for name, one in learnt.items()} == {
        n: v.shape for n, v in first.items()
    }
    # A BART of that width, as htsat-bart-pretrain makes one.
    data, source = read_training_rows([rows], needs_speech=True)
    new = SizeSettings(encoder_layers=1, layers=1, hidden=HIDDEN, heads=2, text_vocabulary=330)
    connector = ConnectorSettings(name="linear", weights=file, prompt=("speech",))
    model, _ = init_model(
        ModelSettings(new=new, connector=connector), rows=data, source=source, output=tmp_path,
        seed=1,
    )  # fmt: skip
    assert model.connector is not None
    for name, one in model.connector.state_dict().items():
        torch.testing.assert_close(one, learnt[name], rtol=0, atol=0)


def test_what_is_heard_is_the_mean_of_a_clips_own_vectors(rows: Path) -> None:
    clips = [row.tokens for row in list(read_rows(rows))[:3]]
    clips[1] = clips[1].of_frames(np.array([0, 3]))
    told = SimpleNamespace(width=4, embed_texts=lambda some: np.ones((len(some), 4), np.float32))
    torch.manual_seed(0)
    tower = AudioTower(LinearConnector(WIDTH, HIDDEN), HIDDEN, told)
    (w, b), (w1, b1), (w2, b2) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (tower.connector.project, tower.project[0], tower.project[2])
    )
    for clip, found in zip(clips, tower.embed_speech(clips), strict=True):
        assert clip.features is not None
        mean = clip.features.read().mean(0) @ w.T + b
        expected = np.maximum(mean @ w1.T + b1, 0) @ w2.T + b2
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


SIZES = {"embed": 8, "third_depth": 2, "first_heads": 1}


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap")
    heads = [1, 2, 4, 8]
    laion_clap(folder, hidden_size=64, depths=[2, 2, 2, 2], num_attention_heads=heads,
               num_hidden_layers=4, mlp_ratio=4.0)  # fmt: skip
    return folder


def test_htsat_begins_with_the_claps_and_is_trained_further(clap: Path) -> None:
    connector = ConnectorSettings(name="htsat", options=SIZES)
    settings = TowerSettings(space=clap, connector=connector, hidden=HIDDEN, from_clap=True)
    tower = new_tower(settings, 64, seed=0)
    theirs = open_clap(clap).htsat.state_dict()
    assert isinstance(tower.connector, HtsatConnector)
    own = tower.connector.htsat.state_dict()
    assert all(torch.equal(theirs[name], one) for name, one in own.items())
    assert theirs.keys() == own.keys()
    heard = tower.train().hear([feature_tokens(np.random.default_rng(0).random((40, 64)))])
    said = tower.read(["a sad voice"])
    assert heard.shape == said.shape == (1, 12)
    (heard * said).sum().backward()
    assert not said.requires_grad
    assert all(one.grad is not None for one in tower.connector.enc_to_dec_proj.parameters())
    assert tower.connector.htsat.audio_encoder.patch_embed.proj.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_one_line(clap: Path, texts: Path) -> None:
    other, opened = HtsatConnector(64, HIDDEN, **{**SIZES, "first_heads": 2}), open_clap(clap)
    with pytest.raises(DataError, match=r"relative_position_bias_table of its HTSAT is \(225, 1\)"):
        begin_with(other, opened, clap)
    with pytest.raises(RecipeError, match="from_clap needs an HTSAT"):
        begin_with(LinearConnector(WIDTH, HIDDEN), opened, clap)
    tower = TowerSettings(space=texts, connector=ConnectorSettings(name="linear"))
    with pytest.raises(RecipeError, match="give start or tower, not both"):
        SpaceSettings(start=texts, tower=tower)
    with pytest.raises(RecipeError, match="needs rows that hold features"):
        new_tower(tower, 0, seed=0)
