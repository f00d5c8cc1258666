"""The parser on NLTK and jieba, which is also the oracle of our own lexers and chunk patterns."""

import pytest

from aligncap.clues import find_clues
from aligncap.values import Clue
from clues.sentences import CHINESE, ENGLISH
from clues.toolkit import (
    find_clues_with_jieba,
    find_clues_with_nltk,
)


def said(clues: tuple[Clue, ...]) -> set[tuple[str, str, bool]]:
    return {(clue.trait, clue.meaning, clue.negated) for clue in clues}


def test_nltk_finds_what_our_own_parser_finds() -> None:
    for text in ENGLISH:
        assert said(find_clues_with_nltk(text)) == said(find_clues(text)), text


def test_jieba_finds_what_our_own_parser_finds() -> None:
    pytest.importorskip("jieba")
    for text in CHINESE:
        assert said(find_clues_with_jieba(text)) == said(find_clues(text)), text


def test_nothing_in_nothing_out() -> None:
    assert find_clues_with_nltk("") == ()
