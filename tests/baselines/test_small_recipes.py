"""The baselines' small recipes as they are shipped, on a dozen short clips in a few steps: rows,
the language model, SECap, its further terms, SECap-PO, HTSAT-BART."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aligncap.alignment.examples import read_rows
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.preference.store import PreferenceStore
from support.pipeline import Way, write_recordings
from support.rows import trace

pytestmark = pytest.mark.slow

FEW = ("training.steps=6", "training.warmup_steps=1", "training.log_every=1", "batch.rows=4")
FEW += ("limits.max_tokens=40", "validation.rows=2", "training.save_every=6")


@pytest.fixture(scope="module")
def way(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, example_clips: list[Path]
) -> Way:
    """All of the way, walked once."""
    way = Way(tmp_path_factory.mktemp("small"), repository / "recipes" / "baselines" / "small", {})
    write_recordings(way["mine"], example_clips[:6])
    corpus = way["corpus"]
    way.run("corpus", "folder", way["mine"], "-o", corpus, "--split", "random")
    way.train(
        *("rows", f'data=["{corpus}/train.jsonl"]', f'validation=["{corpus}/validation.jsonl"]'),
        f'tokens="{way["tokens"]}"',
    )
    rows = f'data.rows=["{way["rows"]}/rows.jsonl"]'
    size = ("model.new.hidden=32", "model.new.layers=2", "model.new.heads=2")
    tiny = "model.connector.options={queries = 4, layers = 2, heads = 2, inner = 16}"
    # It writes what the corpus says, or no beam would differ from another.
    learnt = ("training.steps=80", "training.learning_rate=1e-2", "training.log_every=20")
    way.train("lm", *FEW, rows, *size, "model.new.text_vocabulary=320", *learnt)
    start = f'model.start="{way["lm"]}/model"'
    for name in ("secap", "secap-terms"):
        way.train(name, *FEW, rows, start, tiny)
    way.train("htsat-bart", *FEW, rows, *size, "model.new.text_vocabulary=320")
    dpo = (*FEW, "check.rows=1", "batch.captions=5")
    way.train(
        *("secap-prefer", f'start="{way["secap"]}/model"', f'data.rows="{way["rows"]}/rows.jsonl"'),
        *(f'data.manifests=["{corpus}/manifest.jsonl"]', f'data.facts="{way["rows"]}/facts.jsonl"'),
        *(f'learn.recipes="{way.recipes}"', f"learn.dpo={json.dumps(dpo)}"),
        *("pairs.least_margin=0.0", "pairs.differ=false", 'data.languages=["en"]'),
    )
    return way


def weights_of(folder: Path, part: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = getattr(load_torch(folder), part).state_dict()
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_captions_have_no_plans(way: Way) -> None:
    rows = list(read_rows(way["rows"] / "rows.jsonl"))
    texts = [text for row in rows for some in row.captions.values() for text in some]
    assert texts
    assert not any("|" in text for text in texts)


@pytest.mark.parametrize("name", ["secap", "secap-terms"])
def test_only_the_connector_learns(way: Way, name: str) -> None:
    before, after = (weights_of(way[one] / "model", "causal_lm") for one in ("lm", name))
    assert same(before, after)
    losses = [line["ce"] for line in trace(way[name]) if "ce" in line]
    assert losses[-1] < losses[0]
    if name == "secap-terms":
        assert {"contrastive", "club"} <= set(trace(way[name])[0])


def test_secap_po_is_secaps_beams_and_moves_its_connector(way: Way) -> None:
    store = way["secap-prefer"] / "prefer.sqlite"
    with PreferenceStore(store) as opened:
        methods = {one.method for clip in opened.clips() for one in _candidates(opened, clip)}
    assert methods == {"beam"}
    trained = way["secap-prefer"] / "round-1" / "dpo" / "model"
    assert not same(*(weights_of(one, "connector") for one in (way["secap"] / "model", trained)))
    assert same(*(weights_of(one, "causal_lm") for one in (way["secap"] / "model", trained)))


def _candidates(store: PreferenceStore, clip: Any) -> list[Any]:
    found = store.candidates(clip.utterance, "en", None)
    return [one for one in found if one.method != "gold"]


@pytest.mark.parametrize("name", ["secap", "htsat-bart", "secap-prefer/round-1/dpo"])
def test_each_captions_a_file(way: Way, name: str) -> None:
    model = way[name] / "model"
    printed = way.run(
        *("caption", way["mine"] / "clip05.wav", "--model", model, "--format", "jsonl")
    )
    assert json.loads(printed)["caption"]
    assert read_meta(model).connector.name in ("qformer", "linear")
