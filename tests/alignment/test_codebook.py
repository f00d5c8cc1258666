"""Rows of vectors become rows of their codes; a model of text alone is given their tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from aligncap.alignment.codebook import CodebookSettings, make_codes
from aligncap.alignment.examples import SpeechSource, read_rows, read_source, write_rows
from aligncap.alignment.init_model import ModelSettings, init_model
from aligncap.alignment.kd import WarmupSettings, train_warmup
from aligncap.captioner.checkpoint import load_torch
from aligncap.errors import DataError
from aligncap.recipes import read_section
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.cache import TokenCache
from aligncap.tokenizers.features import feature_tokens
from aligncap.tokenizers.frozen import FrozenFeatures, FrozenWhisper, save_encoder
from aligncap.tokenizers.whisper import WhisperLayers
from support.rows import tiny_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen encoder, rows of its vectors, codes of them, and a model of their texts alone."""
    root = tmp_path_factory.mktemp("codebook")
    torch.manual_seed(0)
    encoder = FrozenWhisper(WhisperLayers(64, 1, 1), nn.LayerNorm(64))
    save_encoder(root / "encoder", encoder)
    opened, rng = FrozenFeatures(encoder), np.random.default_rng(0)
    with TokenCache(root / "tokens", opened) as cache:
        source = SpeechSource.of(opened, store=str(cache.path))
        rows = []
        for row in tiny_rows(20):
            vectors = rng.standard_normal((row.tokens.codes.shape[1], 64))
            kept = cache.put(feature_tokens(vectors))
            rows.append(replace(row, speech=kept.codes, features=kept.features))
        write_rows(root / "rows.jsonl", source, rows)
    settings = CodebookSettings(rows=(root / "rows.jsonl",), codebooks=2, entries=8)
    made = make_codes(settings, root / "codes", resume=False)
    assert 0 < float(str(made["kept"])) < 1
    table = {
        "data": {"rows": [str(root / "rows.jsonl")]},
        "model": {"new": {"hidden": 32, "layers": 1, "heads": 2, "text_vocabulary": 320}},
        "training": {"steps": 2, "learning_rate": 1e-3},
    }
    train_warmup(read_section(WarmupSettings, table, file="lm"), root / "lm", resume=False)
    return root


def test_rows_of_codes_are_those_of_the_vectors(run: Path) -> None:
    opened = open_tokenizer("frozen-codes", run / "codes" / "encoder")
    source = read_source(run / "codes" / "rows.jsonl")
    assert (source.name, source.fingerprint) == ("frozen-codes", opened.fingerprint)
    assert (source.codebooks, source.codebook_size, source.feature_width) == (2, 8, 0)
    vectors = list(read_rows(run / "rows.jsonl"))
    codes = list(read_rows(run / "codes" / "rows.jsonl"))
    for row, other in zip(vectors, codes, strict=True):
        assert row.features is not None
        assert other.speech is not None
        expected = opened.learnt.codes(row.features.read())  # type: ignore[attr-defined]
        np.testing.assert_array_equal(other.speech, expected)
        assert (row.id, row.captions, row.act) == (other.id, other.captions, other.act)


def test_a_model_of_text_alone_gets_the_tokens_of_any_tokenizer(run: Path) -> None:
    path = run / "codes" / "rows.jsonl"
    settings = ModelSettings(start=run / "lm" / "model", codebook=run / "codes" / "encoder")
    model, _ = init_model(
        settings, rows=list(read_rows(path)), source=read_source(path), output=run, seed=0
    )
    before = load_torch(run / "lm" / "model")
    text = before.vocabulary.text_vocab_size
    assert model.vocabulary.size == text + 2 + 2 * 8
    table, old = (one.bare.get_input_embeddings().weight.detach() for one in (model, before))
    torch.testing.assert_close(table[:text], old[:text])
    rows = table[text + 2 :]
    assert rows.std(0).min() > 0  # set by the codebooks: no two alike


def test_other_rows_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes((run / "rows.jsonl").read_bytes())
    settings = CodebookSettings(rows=(tmp_path / "rows.jsonl",))
    with pytest.raises(DataError, match="frozen-features"):
        make_codes(settings, tmp_path / "run", resume=False)
