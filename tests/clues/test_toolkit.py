"""The parser on NLTK and jieba, which is also the oracle of our own lexers and chunk patterns."""

import pytest

from aligncap.clues import find_clues
from aligncap.clues.toolkit import (
    PAPER_TAGS,
    candidates,
    find_clues_with_jieba,
    find_clues_with_nltk,
    tagged,
)
from aligncap.values import Clue
from clues.sentences import CHINESE, ENGLISH


def said(clues: tuple[Clue, ...]) -> set[tuple[str, str, bool]]:
    return {(clue.trait, clue.meaning, clue.negated) for clue in clues}


def test_nltk_finds_what_our_own_parser_finds() -> None:
    for text in ENGLISH:
        assert said(find_clues_with_nltk(text)) == said(find_clues(text)), text


def test_jieba_finds_what_our_own_parser_finds() -> None:
    pytest.importorskip("jieba")
    for text in CHINESE:
        assert said(find_clues_with_jieba(text)) == said(find_clues(text)), text


def test_candidates_are_lemmas_of_the_papers_parts_of_speech() -> None:
    found = candidates("The deeply gloomy, unearthly voice slowly and slowly fades.")
    assert {"gloomy", "unearthly", "slow"} <= set(found)
    assert "voice" not in found
    assert len(found) == len(set(found))


def test_chinese_candidates_are_adjectives() -> None:
    pytest.importorskip("jieba")
    found = candidates("声音低沉，情绪十分悲伤")
    assert "低沉" in found
    assert "悲伤" in found
    assert "声音" not in found


@pytest.mark.parametrize(
    ("word", "tag"),
    [("sad", "JJ"), ("sadly", "RB"), ("voice", "NN"), ("not", "RB"), ("mountainous", "JJ")],
)
def test_parts_of_speech_with_or_without_nltks_data(word: str, tag: str) -> None:
    assert dict(tagged(["a", word]))[word] == tag
    assert (tag in PAPER_TAGS) == (tag != "NN")


def test_nothing_in_nothing_out() -> None:
    assert find_clues_with_nltk("") == ()
    assert candidates("") == ()
