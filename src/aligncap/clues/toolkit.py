"""The paper's grammar parser to the letter (§3.1, decision 6): NLTK's words, tags and lemmas.

Words by NLTK's tokenizer, kept where their part of speech is one of `KEPT_TAGS`; lower-case; the
lemma of WordNet; each once; filtered by the vocabulary of emotional clues. Chinese the same way by
jieba's words and tags. A list of words is all that it is: what negates or heads a clue, and what an
adjective is said of, it does not see (`grammar` does), so a word counts in its first sense.

NLTK's tagger and WordNet are data of their own and are not part of this package.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

from aligncap.clues.grammar import detect_language, without_repeats
from aligncap.clues.vocabulary import LONGEST_TEXT, Word, meanings, plain_text, vocabulary
from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.values import LANGUAGES, Clue

KEPT_TAGS = frozenset({"MD", "UH", "RB", "RBR", "RBS", "JJ", "JJR", "JJS"})
"""Of the Penn Treebank: modals, interjections, adverbs and adjectives."""

KEPT_CHINESE_TAGS = ("a", "d", "z", "i", "e", "l", "vn", "an", "b")
"""How jieba's tags of such words begin: adjectives, adverbs, states, idioms, interjections."""

WORDNET_TAGS = {"J": "a", "R": "r"}
"""First letters of tags and WordNet's letters for the same; other words are nouns to it."""

NLTK_DATA = ("averaged_perceptron_tagger_eng", "wordnet")

Tagged = tuple[str, str]
"""A word and its part of speech."""


def find_clues_with_toolkit(
    text: str,
    language: str | None = None,
    *,
    tag: Callable[[list[str]], list[Tagged]] | None = None,
    lemma: Callable[[str, str], str] | None = None,
) -> tuple[Clue, ...]:
    """The emotional clues of a caption in their order (e_1 … e_n of Eq. 1), by NLTK or jieba.

    `tag` gives words their tags and `lemma(word, letter)` a word's lemma; NLTK's where not given.
    MissingModelError where a library or its data is not here, UnknownNameError for a language.
    """
    chosen = language or detect_language(text)
    if chosen not in LANGUAGES:
        raise UnknownNameError("caption language", chosen, LANGUAGES)
    plain = plain_text(text[:LONGEST_TEXT])
    if chosen == "zh":
        words = [word for word, kind in _jieba(plain) if kind.startswith(KEPT_CHINESE_TAGS)]
    else:
        words = list(_english(plain, tag or _nltk_tags, lemma or _nltk_lemma))
    known = vocabulary(chosen).words
    found = (_clue(known[word]) for word in dict.fromkeys(words) if word in known)
    return tuple(without_repeats(clue for clue in found if clue is not None))


def _english(
    text: str,
    tag: Callable[[list[str]], list[Tagged]],
    lemma: Callable[[str, str], str],
) -> Iterable[str]:
    from nltk.tokenize import NLTKWordTokenizer

    for word, kind in tag(NLTKWordTokenizer().tokenize(text)):
        if kind in KEPT_TAGS:
            lower = word.lower().replace("-", " ")
            yield lemma(lower, WORDNET_TAGS.get(kind[0], "n"))


def _clue(word: Word) -> Clue | None:
    """A word of the vocabulary in its first sense; None where it has none by itself."""
    if not word.senses:
        return None
    sense = word.senses[0]
    polarity = meanings()[sense.trait, sense.meaning].polarity
    return Clue(word.text, sense.trait, sense.meaning, polarity, degree=sense.degree)


def _nltk_tags(words: list[str]) -> list[Tagged]:
    try:
        from nltk import pos_tag

        tagged: list[Tagged] = pos_tag(words)
    except (LookupError, ModuleNotFoundError) as error:
        raise _missing() from error
    return tagged


@lru_cache(maxsize=20_000)
def _nltk_lemma(word: str, letter: str) -> str:
    try:
        from nltk.stem import WordNetLemmatizer

        found: str = WordNetLemmatizer().lemmatize(word, letter)
    except (LookupError, ModuleNotFoundError) as error:
        raise _missing() from error
    return found


def _jieba(text: str) -> list[Tagged]:
    try:
        posseg: Any = import_module("jieba.posseg")
    except ModuleNotFoundError as error:
        raise MissingModelError(
            "the nltk parser reads Chinese with jieba, which is not installed; run: pip install "
            "jieba"
        ) from error
    import_module("jieba").setLogLevel("ERROR")  # it reports the loading of its dictionary
    return [(pair.word, pair.flag) for pair in posseg.cut(text)]


def _missing() -> MissingModelError:
    return MissingModelError(
        "the nltk parser needs NLTK and its data, which are not here; run: pip install nltk && "
        f"python -m nltk.downloader {' '.join(NLTK_DATA)}"
    )
