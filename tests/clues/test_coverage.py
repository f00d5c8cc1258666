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


def shares(texts: Iterable[str], language: str) -> tuple[float, float]:
    """The share of captions with a clue, and the share that names an emotion."""
    found = [find_clues(text, language) for text in texts]
    named = sum(emotion_of(clues) is not None for clues in found)
    return sum(map(bool, found)) / len(found), named / len(found)


def test_human_emotion_captions_in_chinese(captions: Path) -> None:
    rows = sample(captions / "speech/secap/manifest.jsonl", 1000)
    clue, emotion = shares([c for row in rows for c in row["captions"]], "zh")
    assert clue > 0.98
    assert emotion > 0.82


@pytest.mark.parametrize("language", ["english", "chinese"])
def test_descriptions_of_what_is_heard(captions: Path, language: str) -> None:
    rows = sample(captions / "captions/mer2024_reference_captions.jsonl", 300)
    texts = [row["caption"] for row in rows if row["language"] == language]
    clue, emotion = shares(texts, "en" if language == "english" else "zh")
    assert clue > 0.96
    assert emotion > 0.88


STYLE = {"low": "low quiet slow", "normal": "normal", "high": "high loud fast"}
VCCM = {"pitch": "pitch", "volume": "energy", "pace": "dur"}
"""Our trait and the key of its label. Their "dur" is high for fast speech."""


def agreement(texts_and_labels: Iterable[tuple[str, str]], trait: str) -> tuple[int, float]:
    """In how many captions the trait is stated, and how often as the label has it."""
    hits = []
    for text, label in texts_and_labels:
        words = STYLE[label].split()
        stated = [c.meaning for c in find_clues(text, "en") if c.trait == trait and not c.negated]
        stated = [m for m in stated if any(m in line.split() for line in STYLE.values())]
        if stated:
            hits.append(stated[0] in words)
    return len(hits), sum(hits) / max(1, len(hits))


@pytest.mark.parametrize(("trait", "key"), VCCM.items())
def test_stated_style_agrees_with_the_label_of_the_prompt(
    captions: Path, trait: str, key: str
) -> None:
    rows = sample(captions / "captions/vccm_textrol_style_prompts.jsonl", 600)
    stated, right = agreement([(row["style_prompt"], row[key]) for row in rows], trait)
    assert stated > 250
    # Some prompts contradict their own label, as "a deep voice" under "pitch: normal" does.
    assert right > 0.9


def test_stated_style_agrees_with_the_key_of_the_prompt(captions: Path) -> None:
    rows = sample(captions / "captions/librittsp_style_prompts.jsonl", 300)
    for trait, place in {"pitch": 1, "pace": 2, "volume": 3}.items():
        labelled = [(row["caption"], row["key"].split("_")[place][2:]) for row in rows]
        labelled = [(t, {"slow": "low", "fast": "high"}.get(k, k)) for t, k in labelled]
        stated, right = agreement(labelled, trait)
        assert stated > 270
        assert right > 0.95
