"""The grammar parser on NLTK and jieba, as the paper has it (§3.1, decision 6).

`finding.find_clues` does not use them: NLTK takes seconds to import and jieba half a second,
against a third of a millisecond a caption. Here they are used where there is time for them: word
tokenisation, parts of speech, WordNet lemmas and RegexpParser chunks for English, jieba's
segmentation and parts of speech for Chinese. NLTK's tagger and WordNet need downloaded data;
without it a lexicon-first tagger with endings as back-off stands in for the one, our own rules for
the other.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from aligncap.clues import chinese, english
from aligncap.clues.chunks import Chunk, chunks_of, heads_in
from aligncap.clues.finding import detect_language
from aligncap.clues.grammar import clues_in, kinds_of, without_repeats
from aligncap.clues.vocabulary import Word, vocabulary
from aligncap.errors import MissingModelError
from aligncap.values import Clue

PAPER_TAGS = frozenset({"MD", "UH", "RB", "RBR", "RBS", "JJ", "JJR", "JJS"})
"""The parts of speech that can be clues (decision 6)."""

JIEBA_FLAGS = frozenset({"a", "ad", "an", "d", "i", "l", "z", "y", "e", "o"})
"""jieba's counterparts: adjectives, adverbs, idioms, states, particles and interjections."""

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
    words = english.known_words(_nltk_tokens(text))
    return tuple(without_repeats(clues_in(words, _nltk_chunks(words), "en")))


def find_clues_with_jieba(text: str) -> tuple[Clue, ...]:
    """The clues of a Chinese caption, its words bounded where jieba's are.

    MissingModelError where jieba (the `zh` extra) is not installed.
    """
    words = list(_match_tokens([token for token, _ in _jieba_tokens(text)]))
    return tuple(without_repeats(clues_in(words, chunks_of(kinds_of(words), "zh"), "zh")))


def candidates(text: str, *, kept: Collection[str] | None = None) -> tuple[str, ...]:
    """The lemmas whose part of speech can be a clue, before the vocabulary filters them.

    `kept` are Penn tags for English (PAPER_TAGS) and jieba flags for Chinese (JIEBA_FLAGS). What is
    here and not in the vocabulary is where the vocabulary might grow.
    """
    if detect_language(text) == "zh":
        flags = JIEBA_FLAGS if kept is None else kept
        return tuple(dict.fromkeys(w for w, flag in _jieba_tokens(text) if flag in flags))
    tags = PAPER_TAGS if kept is None else kept
    found = (_lemma(w, tag) for w, tag in tagged(_nltk_tokens(text)) if tag in tags)
    return tuple(dict.fromkeys(found))


def tagged(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """English tokens with Penn tags: NLTK's tagger where its data is, else lexicon and endings."""
    if _has_data("taggers/averaged_perceptron_tagger_eng"):
        from nltk.tag import pos_tag

        return list(pos_tag(list(tokens)))
    return [(token, _lexicon_tag(token)) for token in tokens]


def _lexicon_tag(token: str) -> str:
    (word,) = english.known_words([token]) or [Word(text=token)]
    if word.kind in "ACD":
        if token.endswith("ly"):
            return "RB"
        return {"er": "JJR", "st": "JJS"}.get(token[-2:], "JJ") if word.kind != "D" else "RB"
    fixed = {"N": "RB", "H": "NN", "b": "VB", "d": "DT", "i": "IN", "&": "CC", "p": "PRP"}
    return fixed.get(word.kind) or english.tag(token)


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


def _lemma(token: str, tag: str) -> str:
    if _has_data("corpora/wordnet.zip") or _has_data("corpora/wordnet"):
        from nltk.stem import WordNetLemmatizer

        return str(WordNetLemmatizer().lemmatize(token, "r" if tag.startswith("RB") else "a"))
    (word,) = english.known_words([token]) or [Word(text=token)]
    return word.text


@lru_cache
def _has_data(resource: str) -> bool:
    from nltk.data import find

    try:
        find(resource)
    except (LookupError, OSError, ValueError):
        return False
    return True


def _jieba_tokens(text: str) -> list[tuple[str, str]]:
    if find_spec("jieba") is None:
        raise MissingModelError("jieba is not installed: pip install 'aligncap[zh]'")
    posseg: Any = import_module("jieba.posseg")
    import_module("jieba").setLogLevel("ERROR")  # it reports the loading of its dictionary
    return [(pair.word, pair.flag) for pair in posseg.cut(text)]


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
            yield from chinese.words_of(tokens[at])
            at += 1
