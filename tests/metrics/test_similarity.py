"""Sentence similarity by a tiny encoder made here, beside the same computed text by text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from aligncap.errors import DataError, MissingModelError
from aligncap.metrics.scores import MetricOptions, open_metric
from aligncap.metrics.similarity import fingerprint, pooling_of
from support.rows import clip

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "woman", "sad", "fast", "speaks"]


def make_encoder(folder: Path, *, seed: int = 0) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(WORDS), intermediate_size=32, max_position_embeddings=24, **sizes
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("models") / "tiny encoder")


def embedding(folder: Path, text: str, *, cls: bool = False) -> np.ndarray:
    """One text alone, so that nothing is padded."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return (states[0] if cls else states.mean(dim=0)).double().numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_it_is_the_mean_cosine_of_each_text_alone(encoder):
    texts = ("a man speaks", "a sad woman speaks fast a man", "woman")
    hypothesis, *references = (embedding(encoder, text) for text in texts)
    expected = np.mean([cosine(hypothesis, reference) for reference in references])
    metric = open_metric("similarity", MetricOptions(encoder=encoder))
    clips = [clip(texts[0], *texts[1:]), clip("sad", "sad"), clip(" ", "sad")]
    statistics = metric.measure(clips)
    assert statistics.clip_values == pytest.approx([expected, 1.0, 0.0], abs=1e-6)
    assert statistics.value == pytest.approx((expected + 1) / 3, abs=1e-6)


def test_a_folder_pools_as_it_says(tmp_path):
    folder = make_encoder(tmp_path / "cls")
    (folder / "1_Pooling").mkdir()
    settings = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True}
    settings |= {"pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    metric = open_metric("similarity", MetricOptions(encoder=folder))
    expected = cosine(*(embedding(folder, text, cls=True) for text in ("a man", "sad woman")))
    assert metric.measure([clip("a man", "sad woman")]).value == pytest.approx(expected, abs=1e-6)
    assert metric.variant.endswith("|pool:cls")


def test_the_signature_names_the_encoder_by_its_weights(encoder, tmp_path):
    metric = open_metric("similarity", MetricOptions(encoder=encoder))
    hashed = fingerprint(encoder)
    assert metric.variant == f"similarity:cosine|encoder:tiny_encoder@{hashed[:8]}|pool:mean"
    assert fingerprint(make_encoder(tmp_path / "same")) == hashed
    assert fingerprint(make_encoder(tmp_path / "other", seed=1)) != hashed


def test_any_text_has_a_place_and_a_long_one_is_cut(encoder):
    metric = open_metric("similarity", MetricOptions(encoder=encoder))
    texts = ["🙂", "\x00", "声音", "a\u0301\u202e", "[SEP] [PAD]"]
    clips = [*(clip(text, text) for text in texts), clip("a man " * 50, "a man " * 60)]
    assert metric.measure(clips).clip_values == pytest.approx([1.0] * 6)


POOLING, LAYERS = "1_Pooling/config.json", "modules.json"
TWO = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (POOLING, {"pooling_mode": "lasttoken"}, "pools by lasttoken; known here"),
        (POOLING, TWO, "pools by pooling_mode_cls_token and pooling_mode_max_tokens"),
        (LAYERS, [{"type": "models.Dense"}], "ends in a layer Dense, which cannot be run"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, file, content, message):
    (tmp_path / "1_Pooling").mkdir()
    names = ("models.Transformer", "models.Pooling", "models.Normalize")
    layers = [{"type": f"sentence_transformers.{name}"} for name in names]
    (tmp_path / LAYERS).write_text(json.dumps(layers))
    assert pooling_of(tmp_path) == "mean"
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        pooling_of(tmp_path)


def test_without_an_encoder(tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    for folder, line in {
        None: "give its folder by --encoder",
        tmp_path: "no sentence encoder; --encoder names a folder",
        tmp_path / "bert": "cannot be opened as an encoder",
    }.items():
        with pytest.raises(MissingModelError, match=line):
            open_metric("similarity", MetricOptions(encoder=folder))
