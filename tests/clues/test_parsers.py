"""The paper's grammar parser by name, with tags and lemmas handed in."""

from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.clues import PARSERS, acoustic_prompt, find_clues, open_parser
from aligncap.clues.toolkit import find_clues_with_toolkit
from aligncap.errors import DataError, UnknownNameError
from aligncap.experiments.parsers import captions_of, compare
from aligncap.values import Clue

TAGS = {"She": "PRP", "speaks": "VBZ", "sadly": "RB", "sad": "JJ", "slowly": "RB", "and": "CC",
        "in": "IN", "a": "DT", "happier": "JJR", "voice": "NN", "angry": "JJ", "anger": "NN",
        "well": "UH", "is": "VBZ", "not": "RB", ".": "."}  # fmt: skip
LEMMAS = {("happier", "a"): "happy", ("sadly", "r"): "sadly", ("slowly", "r"): "slowly"}


def words_of(text: str) -> list[str]:
    """The words of the clues that the paper's parser finds."""
    found = find_clues_with_toolkit(
        text,
        "en",
        tag=lambda words: [(word, TAGS[word]) for word in words],
        lemma=lambda word, letter: LEMMAS.get((word, letter), word),
    )
    return [clue.word for clue in found]


def test_only_the_papers_parts_of_speech_are_kept_each_lemma_once() -> None:
    assert words_of("She speaks in a happier, sad, angry voice, sad and sad.".replace(",", "")) == [
        "happy",
        "sad",
        "angry",
    ]
    assert words_of("She speaks in anger.") == []  # a noun, which the filter leaves out
    # It reads words, not what they are said of: a negation is not seen.
    assert words_of("She is not angry .") == ["angry"]
    assert [one.word for one in find_clues("She is not angry.", "en") if one.negated] == ["angry"]


def test_chinese_by_jieba() -> None:
    pytest.importorskip("jieba")
    found = find_clues_with_toolkit("她很悲伤，声音低沉。", "zh")
    assert {"悲伤", "低沉"} >= {clue.word for clue in found} != set()
    assert acoustic_prompt(found, "zh").startswith("感到")


def test_parsers_are_opened_by_name() -> None:
    assert open_parser("own")("A sad voice.", "en") == find_clues("A sad voice.", "en")
    assert {open_parser(name).__name__ for name in PARSERS} == {
        "find_clues",
        "find_clues_with_toolkit",
    }
    with pytest.raises(UnknownNameError, match="did you mean 'nltk'"):
        open_parser("nlkt")
    with pytest.raises(UnknownNameError, match="caption language"):
        find_clues_with_toolkit("A sad voice.", "de")


def test_the_comparison_counts_by_hand(tmp_path: Path) -> None:
    first, second = tmp_path / "manifest.jsonl", tmp_path / "prompts.jsonl"
    first.write_text('{"id": "a", "captions": ["It is not sad.", "A loud, sad voice."]}\n')
    second.write_text('{"caption": "A loud, sad voice."}\n{"style_prompt": "他很悲伤。"}\n')
    texts = [text for path in (first, second) for text in captions_of(path)]
    assert texts == ["It is not sad.", "A loud, sad voice.", "A loud, sad voice.", "他很悲伤。"]

    def deaf(text: str, language: str) -> list[Clue]:
        """No volume is found, and no denial is seen."""
        found = find_clues(text, language)
        return [replace(one, negated=False) for one in found if one.trait != "volume"]

    found = compare(texts, find_clues, deaf, ["en"])
    assert list(found) == ["en"]
    one = found["en"]
    assert (one.captions, one.alike) == (2, 0)
    assert (one.both, one.ours, one.other) == ({"emotion": 1}, {"volume": 1}, {"emotion": 1})
    second.write_text("no JSON\n")
    with pytest.raises(DataError, match="line 1"):
        list(captions_of(second))
