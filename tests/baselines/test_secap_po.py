"""SECap-PO from end to end: its own beams, judged by evidence, paired, and learnt by our DPO."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.alignment.examples import SpeechSource, read_rows, write_rows
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.preference.examples import read_preferences
from aligncap.preference.store import PreferenceStore
from aligncap.recipes import run_recipe
from aligncap.tokenizers.cache import TokenCache
from aligncap.tokenizers.features import feature_tokens
from support.preferences import train_start, write_corpus
from support.rows import FEELINGS, trace

SECAP = """
kind = "ce"
data = {{rows = ["{rows}"]}}
training = {{steps = 40, learning_rate = 1e-2, warmup_steps = 0, log_every = 10}}
validation = {{rows = 4}}

[model]
start = "{start}"
freeze = true

[model.connector]
name = "qformer"
options = {{queries = 4, layers = 2, heads = 2, inner = 16}}
prompt = ["bos", "speech", "instruction"]
"""


class MadeVectors:
    """An encoder whose vectors are given."""

    name, fingerprint, frame_rate_hz = "made-vectors", "v" * 16, 12.5
    codebooks = codebook_size = 1
    feature_width = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up corpus with vectors, in which a place tells the feeling, instead of codes, and
    SECap trained on it."""
    root = tmp_path_factory.mktemp("secap")
    start = train_start(tmp_path_factory.mktemp("start"))
    write_corpus(root, root / "secap" / "model")
    rng, encoder = np.random.default_rng(0), MadeVectors()
    with TokenCache(root / "tokens", encoder) as cache:  # type: ignore[arg-type]
        source = SpeechSource.of(encoder, store=str(cache.path))  # type: ignore[arg-type]
        rows = []
        for row in list(read_rows(root / "rows.jsonl")):
            vectors = 0.1 * rng.standard_normal((row.tokens.codes.shape[1], 8))
            vectors[:, row.tokens.codes.max() // 4] += 2
            kept = cache.put(feature_tokens(vectors))
            rows.append(replace(row, speech=kept.codes, features=kept.features))
    write_rows(root / "rows.jsonl", source, rows)
    recipe = SECAP.format(rows=root / "rows.jsonl", start=start)
    (root / "secap.toml").write_text(recipe, "utf-8")
    run_recipe(root / "secap.toml", output=root / "secap")
    return root


def test_secap_po(corpus: Path) -> None:
    changes = ["candidates.method=beam", "candidates.count=3", "pairs.differ=false"]
    changes.append('learn.dpo=["model.freeze=true"]')
    summary = run_recipe(corpus / "prefer.toml", overrides=changes, output=corpus / "po")
    with PreferenceStore(corpus / "po" / "prefer.sqlite") as store:
        groups = list(store.groups())
    found = {one.method for _, _, candidates in groups for one in candidates}
    assert found == {"beam", "gold"}
    rows, source = read_preferences([corpus / "po" / "round-1" / "rows.jsonl"])
    assert (source.name, source.feature_width) == ("made-vectors", 8)
    pairs = [row for row in rows if row.pairs]
    assert pairs
    assert all(row.clip.features is not None for row in pairs)
    lines = [line for line in trace(corpus / "po" / "round-1" / "dpo") if "accuracy" in line]
    assert lines
    assert json.loads((corpus / "po" / "round-1" / "summary.json").read_text("utf-8"))
    # SECap's language model stays; what is trained is the connector.
    before, after = load_torch(corpus / "secap" / "model"), load_torch(Path(str(summary["model"])))
    assert read_meta(Path(str(summary["model"]))).connector.name == "qformer"
    old, new = before.connector.state_dict(), after.connector.state_dict()
    assert any(not torch.equal(one, new[name]) for name, one in old.items())
    old, new = before.causal_lm.state_dict(), after.causal_lm.state_dict()
    assert all(torch.equal(one, new[name]) for name, one in old.items())
    assert set(FEELINGS) == {row.emotion for row in rows}
