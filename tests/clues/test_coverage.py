"""How much of other people's captions the vocabulary covers; skipped where they are absent.

The lower bounds are a little under what was measured when the vocabulary was made.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aligncap.clues import emotion_of, find_clues


@pytest.fixture(scope="module")
def captions(repository: Path) -> Path:
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the captions of ../shared/data")
    return folder


def sample(path: Path, count: int) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return Random(0).sample(rows, min(count, len(rows)))


@pytest.mark.parametrize(
    ("language", "least", "least_named"),
    [("secap", 0.98, 0.82), ("en", 0.96, 0.88), ("zh", 0.96, 0.88)],
)
def test_captions_have_clues_and_name_an_emotion(captions, language, least, least_named) -> None:
    if language == "secap":
        rows = sample(captions / "speech/secap/manifest.jsonl", 1000)
        texts, language = [caption for row in rows for caption in row["captions"]], "zh"
    else:
        rows = sample(captions / "captions/mer2024_reference_captions.jsonl", 300)
        named = {"en": "english", "zh": "chinese"}[language]
        texts = [row["caption"] for row in rows if row["language"] == named]
    found = [find_clues(text, language) for text in texts]
    assert sum(map(bool, found)) > least * len(found)
    assert sum(emotion_of(clues) is not None for clues in found) > least_named * len(found)


STYLE = {"low": "low quiet slow", "normal": "normal", "high": "high loud fast"}
STYLE |= {"slow": STYLE["low"], "fast": STYLE["high"]}


def agreement(texts_and_labels: Iterable[tuple[str, str]], trait: str) -> tuple[int, float]:
    """In how many captions the trait is stated, and how often as the label has it."""
    known, hits = " ".join(STYLE.values()).split(), []
    for text, label in texts_and_labels:
        stated = [c.meaning for c in find_clues(text, "en") if c.trait == trait and not c.negated]
        hits += [meaning in STYLE[label].split() for meaning in stated if meaning in known][:1]
    return len(hits), sum(hits) / max(1, len(hits))


def test_stated_style_agrees_with_the_label_of_the_prompt(captions: Path) -> None:
    rows = sample(captions / "captions/vccm_textrol_style_prompts.jsonl", 600)
    # Our trait and the key of its label. Their "dur" is high for fast speech.
    for trait, key in {"pitch": "pitch", "volume": "energy", "pace": "dur"}.items():
        stated, right = agreement([(row["style_prompt"], row[key]) for row in rows], trait)
        assert stated > 250
        # Some prompts contradict their own label, as "a deep voice" under "pitch: normal" does.
        assert right > 0.9
    rows = sample(captions / "captions/librittsp_style_prompts.jsonl", 300)
    for trait, place in {"pitch": 1, "pace": 2, "volume": 3}.items():
        labelled = [(row["caption"], row["key"].split("_")[place][2:]) for row in rows]
        stated, right = agreement(labelled, trait)
        assert stated > 270
        assert right > 0.95
