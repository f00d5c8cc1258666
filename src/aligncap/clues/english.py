"""English captions as a sequence of known words: tokens, lemmas and phrases."""

import re
from collections.abc import Iterator
from functools import lru_cache

from aligncap.clues.vocabulary import Vocabulary, Word, vocabulary

TOKEN = re.compile(r"[^\W\d_]+|'(?:s|re|t)\b|[,;:.!?()—–…\n\"]|\d+")

SUFFIXES = (
    ("iness", "y"), ("ness", ""), ("ically", "ic"), ("ably", "able"), ("ibly", "ible"),
    ("ily", "y"), ("fully", "ful"), ("ly", ""), ("ly", "le"), ("ly", "l"),
    ("ies", "y"), ("ied", "y"), ("ier", "y"), ("iest", "y"),
    ("es", ""), ("es", "e"), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("er", ""), ("er", "e"), ("est", ""), ("est", "e"),
)  # fmt: skip
"""Endings that inflection and derivation put in place of another, the most telling first."""

COMPARATIVES = {"er", "est"}

ENDINGS = (
    (("ly",), "RB"),
    (("ful", "ous", "ish", "ive", "less", "able", "ible", "like"), "JJ"),
    (("ing",), "VBG"),
    (("ed",), "VBD"),
    (("s",), "NNS"),
)
KINDS = {"RB": "D", "JJ": "a"}
"""Unknown adverbs and adjectives may stand inside a chunk; other unknown words end it."""

COMMA = Word(text=",", kind=",")
STOP = Word(text=".", kind=";")


def words_of(text: str) -> list[Word]:
    """The words of an English sentence; what the vocabulary does not know is of kind "o"."""
    return known_words(_tokens(text))


def known_words(tokens: list[str]) -> list[Word]:
    """Lower-case tokens as words of the vocabulary, phrases joined."""
    return list(_match(tokens, vocabulary("en")))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for form in TOKEN.findall(text.lower().replace("’", "'")):
        if form == "'t" and tokens and tokens[-1].endswith("n"):
            stem = tokens.pop()[:-1]
            # "can't" is "ca" + "n't": put back the letter that the contraction swallowed.
            tokens += [{"ca": "can", "wo": "will"}.get(stem, stem), "n't"]
        else:
            tokens.append(form)
    return tokens


def _match(tokens: list[str], known: Vocabulary) -> Iterator[Word]:
    at = 0
    while at < len(tokens):
        token = tokens[at]
        for phrase in known.phrases.get(token, ()):
            if _begins(tokens, at, phrase):
                yield known.words[" ".join(phrase)]
                at += len(phrase)
                break
        else:
            yield _word(token)
            at += 1


def _begins(tokens: list[str], at: int, phrase: tuple[str, ...]) -> bool:
    if at + len(phrase) > len(tokens):
        return False
    return all(
        tokens[at + n] == part or tokens[at + n] == part + "s" for n, part in enumerate(phrase) if n
    )


@lru_cache(maxsize=20_000)
def _word(form: str) -> Word:
    if form == ",":
        return COMMA
    if not form[0].isalnum() and form[0] != "'":
        return STOP
    words = vocabulary("en").words
    for lemma in lemmas(form):
        if lemma in words:
            return words[lemma]
    return Word(text=form, kind=KINDS.get(tag(form), "o"))


def tag(form: str) -> str:
    """The part of speech (Penn Treebank) of a word that the vocabulary lacks, by its ending."""
    for endings, name in ENDINGS:
        if len(form) > 5 and form.endswith(endings):
            return name
    return "NN"


def lemmas(token: str) -> Iterator[str]:
    """The forms that `token` may be inflected or derived from, itself first.

    Rules instead of WordNet: a wrong guess does no harm, since only words of the vocabulary count.
    """
    yield token
    words = vocabulary("en").words
    for ending, instead in SUFFIXES:
        if token.endswith(ending) and len(token) - len(ending) >= 3:
            stem = token[: -len(ending)]
            lemma = stem + instead
            # "speaker" is no more than "speak": only what can be compared has a comparative.
            if ending in COMPARATIVES and lemma in words and words[lemma].kind not in "AC":
                continue
            yield lemma
            if not instead and len(stem) > 3 and stem[-1] == stem[-2]:
                yield stem[:-1]
