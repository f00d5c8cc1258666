"""The grammar parser on NLTK and jieba, as the paper has it (§3.1, decision 6): an oracle of
our own lexers and chunk patterns."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest

from aligncap.clues import find_clues, grammar
from aligncap.clues.grammar import Chunk, chunks_of, clues_in, heads_in, kinds_of, without_repeats
from aligncap.clues.vocabulary import Word, vocabulary
from aligncap.values import Clue
from clues.test_finding import CHINESE, SENTENCES

TAGS = {
    "A": "ADJ", "C": "CLUE", "H": "HEAD", "N": "NEG", "D": "ADV", "&": "AND", ",": "COMMA",
    ";": "STOP", "b": "BE", "d": "DET", "i": "LINK", "f": "FILL", "n": "HIDE", "p": "PRON",
    "a": "JJ", "o": "OTHER",
}  # fmt: skip
"""Kinds of words as the tags that the chunk grammar is written in."""

CHUNK_GRAMMAR = """
ATTRIBUTE:
    {<ADJ|CLUE>(<COMMA>?<AND>?<NEG|ADV>*<ADJ|CLUE|JJ>)*<FILL|DET>*<HEAD>+<FILL>*(<COMMA|AND>+<FILL>*<HEAD>+<FILL>*)*}
    {<ADJ|CLUE><LINK><HEAD>+}
PREDICATE: {<HEAD>+<FILL>*(<COMMA>?<AND>?<DET>?<HEAD>+<FILL>*)*<OTHER>?<NEG|ADV|DET|FILL|BE>*<ADJ>}
"""


def find_clues_with_nltk(text: str) -> tuple[Clue, ...]:
    """The clues of an English caption by NLTK's tokens and chunks; otherwise as `find_clues`."""
    words = grammar.known_english_words(_nltk_tokens(text))
    return tuple(without_repeats(clues_in(words, _nltk_chunks(words), "en")))


def find_clues_with_jieba(text: str) -> tuple[Clue, ...]:
    """The clues of a Chinese caption, its words bounded where jieba's are."""
    words = list(_match_tokens(_jieba_tokens(text)))
    return tuple(without_repeats(clues_in(words, chunks_of(kinds_of(words), "zh"), "zh")))


def _nltk_tokens(text: str) -> list[str]:
    from nltk.tokenize import NLTKWordTokenizer

    plain = text.lower().replace("’", "'").replace("-", " ")
    return [token for token in NLTKWordTokenizer().tokenize(plain) if token.strip("`'\"")]


def _nltk_chunks(words: Sequence[Word]) -> Iterator[Chunk]:
    from nltk.chunk import RegexpParser
    from nltk.tree import Tree

    if not words:
        return
    kinds = kinds_of(words)
    tree = RegexpParser(CHUNK_GRAMMAR).parse([(n, TAGS[kind]) for n, kind in enumerate(kinds)])
    for chunk in tree:
        if isinstance(chunk, Tree):
            at = [n for n, _ in chunk.leaves()]
            adjectives = tuple(n for n in at if kinds[n] == "A")
            yield Chunk(adjectives, heads_in(kinds, at[0], at[-1] + 1, "en"))


def _jieba_tokens(text: str) -> list[str]:
    posseg: Any = import_module("jieba.posseg")
    import_module("jieba").setLogLevel("ERROR")  # it reports the loading of its dictionary
    return [pair.word for pair in posseg.cut(text)]


def _match_tokens(tokens: Sequence[str]) -> Iterator[Word]:
    """The longest known words that begin and end where tokens do, else what is inside of them."""
    known = vocabulary("zh").words
    at = 0
    while at < len(tokens):
        for end in range(min(len(tokens), at + 6), at, -1):
            word = known.get("".join(tokens[at:end]))
            if word is not None:
                yield word
                at = end
                break
        else:
            yield from grammar.chinese_words(tokens[at])
            at += 1


def said(clues: tuple[Clue, ...]) -> set[tuple[str, str, bool]]:
    return {(clue.trait, clue.meaning, clue.negated) for clue in clues}


def test_nltk_and_jieba_find_what_our_own_parser_finds() -> None:
    for text in {"", *SENTENCES} - {*CHINESE}:
        assert said(find_clues_with_nltk(text)) == said(find_clues(text)), text
    pytest.importorskip("jieba")
    for text in CHINESE:
        assert said(find_clues_with_jieba(text)) == said(find_clues(text)), text
