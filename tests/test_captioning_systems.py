"""A captioning system whose prompts hold vectors, added by a test in one file, on all the ways that
ours goes: training, captions, candidates, pairs, DPO."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aligncap.alignment.examples import read_rows, read_source
from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.preference.examples import read_preferences
from support.pipeline import Way, write_recordings
from support.rows import trace

TOY = '''
import torch
from torch import nn

from aligncap.captioner.connectors import Connector


class Ends(Connector):
    """The first and the last vector of a clip, each through two layers."""

    vectors = 2

    def __init__(self, width, hidden, *, inner=8):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, inner), nn.Tanh(), nn.Linear(inner, hidden))

    def forward(self, features, lengths):
        last = features[torch.arange(len(lengths)), lengths - 1]
        return self.layers(self.norm(torch.stack((features[:, 0], last), 1)))
'''

ROWS = """
kind = "token-rows"
data = ["{corpus}/train.jsonl"]
validation = ["{corpus}/validation.jsonl"]
tokens = "{root}/tokens"

[tokenizer]
name = "builtin-features"
"""

TRAIN = """
kind = "ce"

[data]
rows = ["{root}/rows/rows.jsonl"]
languages = {{en = 1.0}}

[model.connector]
name = "ends"
options = {{inner = 16}}

[model.new]
hidden = 32
layers = 2
heads = 2
text_vocabulary = 320

[training]
precision = "float32"
steps = 40
learning_rate = 1e-2
log_every = 5
warmup_steps = 2

[limits]
max_tokens = 12

[output]
name = "toy"
"""

DPO = """
kind = "dpo"

[data]
rows = ["{root}/preferences.jsonl"]

[model]
start = "{root}/toy/model"

[training]
precision = "float32"
steps = 4
learning_rate = 1e-3
log_every = 1

[check]
rows = 2

[output]
name = "toy-po"
"""


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory, example_clips: list[Path]) -> Iterator[Way]:
    """The toy system's way, walked once."""
    root = tmp_path_factory.mktemp("toy")
    way = Way(root, root / "recipes", {})
    package = root / "package"
    (package / "toy-1.dist-info").mkdir(parents=True)
    (package / "toy.py").write_text(TOY, "utf-8")
    (package / "toy-1.dist-info" / "METADATA").write_text("Name: toy\nVersion: 1\n", "utf-8")
    points = "[aligncap.connectors]\nends = toy:Ends\n"
    (package / "toy-1.dist-info" / "entry_points.txt").write_text(points, "utf-8")
    way.recipes.mkdir()
    for name, text in {"rows": ROWS, "toy": TRAIN, "toy-po": DPO}.items():
        filled = text.format(root=root, corpus=way["corpus"])
        (way.recipes / f"{name}.toml").write_text(filled, "utf-8")
    write_recordings(way["mine"], example_clips[:6])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package)
        way.run("corpus", "folder", way["mine"], "-o", way["corpus"], "--split", "random")
        way.train("rows")
        way.said["toy"] = json.dumps(way.train("toy"))
        way.run(
            *("prefer", "candidates", way["corpus"] / "train.jsonl"),
            *("--store", way["prefer.sqlite"], "--model", way["toy"] / "model"),
            *("--method", "sample", "--count", 8, "--temperature", 0.5),
        )
        way.run("prefer", "judge", way["prefer.sqlite"])
        way.run("prefer", "pairs", way["prefer.sqlite"], "--margin", 0.01, "--gold")
        way.run(
            *("prefer", "rows", way["prefer.sqlite"], way["preferences.jsonl"]),
            *("--rows", way["rows"] / "rows.jsonl"),
        )
        way.train("toy-po")
        yield way


def test_rows_name_the_vectors_and_a_cache_holds_them(way: Way) -> None:
    path = way["rows"] / "rows.jsonl"
    source, rows = read_source(path), list(read_rows(path))
    assert (source.codebooks, source.codebook_size) == (1, 1)
    assert source.feature_width > 100
    for row in rows:
        assert row.features is not None
        vectors = row.features.read()
        assert vectors.shape == (row.speech.shape[1], source.feature_width)
        assert np.abs(vectors).max() > 0.1
    assert len({row.features.key for row in rows}) == len(rows)
    assert path.stat().st_size < 2_000 * len(rows)


def test_gradients_reach_the_connector(way: Way) -> None:
    told = json.loads(way.said["toy"])
    assert "connector" in told["trained"]
    losses = [line["loss"] for line in trace(way["toy"]) if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    meta = read_meta(way["toy"] / "model")
    assert meta.connector.name == "ends"
    assert (meta.connector.vectors, dict(meta.connector.options)) == (2, {"inner": 16})


def test_it_captions_by_what_it_hears(way: Way) -> None:
    clip = way["mine"] / "clip03.wav"
    printed = way.run("caption", clip, "--model", way["toy"] / "model", "--format", "jsonl")
    assert json.loads(printed)["caption"]
    captioner = load(way["toy"] / "model")
    said = captioner.caption([way["mine"] / f"clip{n:02}.wav" for n in range(12)])
    assert len({one.text for one in said}) > 1  # a prompt without speech would give one


def test_candidates_and_pairs_carry_the_vectors_and_dpo_moves_the_connector(way: Way) -> None:
    rows, source = read_preferences([way["preferences.jsonl"]])
    assert source == read_source(way["rows"] / "rows.jsonl")
    known = {row.id: row for row in read_rows(way["rows"] / "rows.jsonl")}
    for row in rows:
        assert row.clip.features == known[row.clip.id].features
    accuracy = [line["accuracy"] for line in trace(way["toy-po"]) if "accuracy" in line]
    assert len(accuracy) == 4
    before, after = (load_torch(way[name] / "model").connector for name in ("toy", "toy-po"))
    moved = [
        float((one - other).detach().abs().max())
        for one, other in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert min(moved) > 0
