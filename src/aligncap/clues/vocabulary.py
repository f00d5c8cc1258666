"""The vocabulary of emotional clues (§3.1), read from the tables in `data/`.

`meanings.toml` lists what a clue can mean; `en.toml` and `zh.toml` list the words. A word is of one
kind, written as one letter so that a sentence becomes a string that chunk patterns can match:

    C clue          carries its meaning wherever it stands ("angry", "颤抖")
    A adjective     its meaning depends on a head, with or without a default ("low", "soft", "高")
    H head          what an adjective is said of ("pitch", "voice", "语速")
    N negator       D degree        n breaker ("hide": turns a negation around)
    & conjunction   , comma         ; clause end        b copula
    d determiner    i link          f filler            p pronoun
    a unknown adjective             o anything else
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from aligncap.errors import UnknownNameError
from aligncap.values import LANGUAGES, Clue

DEGREES = {"mild": 0.5, "plain": 1.0, "strong": 1.5}
"""How much of an emotion the three columns of the word tables stand for."""

FUNCTION_KINDS = {
    "not_negators": "o",
    "negators": "N",
    "breakers": "n",
    "or_words": "&",
    "and_words": "&",
    "but_words": ";",
    "copulas": "b",
    "determiners": "d",
    "links": "i",
    "fillers": "f",
    "others": "o",
    "weighing": "o",
}
"""Sections of [grammar] and the kind of their words; the first that lists a word decides."""


LONGEST_TEXT = 20_000
"""Characters of a text that are read; what is longer is no caption."""

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
APOSTROPHE = "['`‘’‚‛ʼ′]"
SAME_TEXT = (
    (re.compile(rf"{APOSTROPHE}{{2}}|[“”„‟«»]"), '"'),
    (re.compile(APOSTROPHE), "'"),
    (re.compile(r"-l[rsc]b-", re.IGNORECASE), "("),
    (re.compile(r"-r[rsc]b-", re.IGNORECASE), ")"),
    (re.compile(r"--+"), "—"),
    (re.compile(r"(?<=[a-z])(?<!-or)(?<!-the)-less\b", re.IGNORECASE), "less"),
    (re.compile(r"[^\S\n]+"), " "),
    (re.compile(r" ?\bn ?' ?t\b", re.IGNORECASE), "n't"),
    (re.compile(r" ?' ?(?=(?:s|t|re|ve|ll|d|m)\b)", re.IGNORECASE), "'"),
    (re.compile(r"\b(does|did|is|was|are|were|do|has|had|would)nt\b", re.IGNORECASE), r"\1n't"),
)
"""Ways of writing the same text, as tokenisers do among others, and the one that is parsed."""


def plain_text(text: str) -> str:
    """A caption as the parser reads it: quotes and spaces of one kind, letters of one width, the
    Penn Treebank's tokens ("does n't", "-LRB-") joined again, nothing invisible."""
    # What gives letters one width makes a blank and an accent of "´".
    text = unicodedata.normalize("NFKC", INVISIBLE.sub("", text).replace("´", "'"))
    for pattern, written in SAME_TEXT:
        text = pattern.sub(written, text)
    return text


@dataclass(frozen=True, slots=True)
class ClueMeaning:
    """A synonym group: what words of one trait have in common."""

    polarity: int
    en: str
    zh: str
    opposite: tuple[str, ...] = ()
    arousal: float | None = None
    valence: float | None = None


@dataclass(frozen=True, slots=True)
class Sense:
    """One thing that a word can say of a voice."""

    trait: str
    meaning: str
    degree: float = 1.0


@dataclass(slots=True)
class Word:
    """What one word or phrase can be; filled while the tables are read, not changed after."""

    text: str
    kind: str = "o"
    senses: list[Sense] = field(default_factory=list)
    readings: dict[str, Sense] = field(default_factory=dict)
    """Its sense beside a head of that class."""
    factor: float | None = None
    """How much it weakens (< 1) or strengthens (> 1) the clue it stands beside."""
    head: str = ""
    """The class of head it is, "" if none."""
    gender: str = ""
    """The gender of the person a pronoun stands for."""
    joins: bool = False
    """A conjunction of alternatives ("or", "nor"), which carries a negation on."""
    after: bool = False
    """A degree that follows its clue ("极了")."""
    weighs: bool = False
    """Stands before feelings of which it is either or both ("somewhere between", "又像")."""


@dataclass(frozen=True, slots=True)
class ClueVocabulary:
    """Every word of one language."""

    language: str
    words: Mapping[str, Word]
    """Single words and, in Chinese, phrases."""
    phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    """English phrases by their first word, longest first; keys of `words` join them by spaces."""
    first: Mapping[str, int]
    """The length of the longest Chinese word that begins with a character; absent if none does."""
    last: Mapping[str, int]
    """The length of the longest Chinese word that ends in a character; absent if none does."""


def read_table(name: str) -> dict[str, Any]:
    """A table of `data/`: "meanings.toml", "en.toml" or "zh.toml"."""
    # Beside this file: importlib.resources would take as long to import as all of the clues.
    return tomllib.loads(Path(__file__).with_name("data").joinpath(name).read_text("utf-8"))


@lru_cache(maxsize=1)
def meanings() -> Mapping[tuple[str, str], ClueMeaning]:
    """Every (trait, meaning) that a clue can have."""
    return {
        (trait, name): ClueMeaning(**{**row, "opposite": tuple(row.get("opposite", ()))})
        for trait, rows in read_table("meanings.toml").items()
        for name, row in rows.items()
    }


def opposites(trait: str, meaning: str) -> tuple[str, ...]:
    """The meanings of the same trait that cannot hold together with this one."""
    found = meanings().get((trait, meaning))
    return found.opposite if found else ()


def clue_of(trait: str, meaning: str, *, language: str = "en") -> Clue:
    """A clue of that meaning in its usual word; UnknownNameError if there is no such meaning."""
    found = meanings().get((trait, meaning))
    if found is None:
        raise UnknownNameError(
            f"meaning of {trait}", meaning, [m for t, m in meanings() if t == trait]
        )
    word = found.zh if language == "zh" else found.en
    return Clue(word=word, trait=trait, meaning=meaning, polarity=found.polarity)


@lru_cache(maxsize=len(LANGUAGES))
def vocabulary(language: str) -> ClueVocabulary:
    """The vocabulary of "en" or "zh"; UnknownNameError for any other language."""
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    table = read_table(f"{language}.toml")
    words: dict[str, Word] = {}
    _read_function_words(table["grammar"], words, language)
    _read_heads(table, words, language)
    _read_clues(table["words"], words, language)
    for gender, pronouns in table["pronouns"].items():
        for text in pronouns:
            word = _entry(words, text, language)
            word.kind, word.gender = "p", gender
    if language == "en":
        _add_verbs(words)
    english = language == "en"
    return ClueVocabulary(
        language=language,
        words=words,
        phrases=_phrases(words) if english else {},
        first={} if english else _longest(words, 0),
        last={} if english else _longest(words, -1),
    )


def _entry(words: dict[str, Word], text: str, language: str) -> Word:
    key = text.replace("-", " ").replace("'s", " 's") if language == "en" else text
    if key not in words:
        words[key] = Word(text=text)
    return words[key]


def _read_function_words(grammar: Mapping[str, Any], words: dict[str, Word], language: str) -> None:
    for section, kind in FUNCTION_KINDS.items():
        for text in grammar.get(section, ()):
            word = _entry(words, text, language)
            if word.kind == "o" and section != "not_negators":
                word.kind = kind
            word.joins = word.joins or section == "or_words"
            word.weighs = word.weighs or section == "weighing"
    for factor, texts in grammar["degrees"].items():
        for text in texts:
            word = _entry(words, text, language)
            word.after = factor == "after"
            word.factor = 1.5 if word.after else float(factor)
            if word.kind in "ofb;":
                word.kind = "D"


def _read_heads(table: Mapping[str, Any], words: dict[str, Word], language: str) -> None:
    for name, texts in table["heads"].items():
        for text in texts:
            word = _entry(words, text, language)
            word.kind, word.head = "H", name
    for head, rows in table["readings"].items():
        for target, adjectives in rows.items():
            trait, meaning = target.split(":")
            for text in _with_sets(adjectives, table["sets"]):
                word = _entry(words, text, language)
                if word.kind not in "HNn&":
                    word.kind = "A"
                word.readings.setdefault(head, Sense(trait, meaning))


def _with_sets(adjectives: Iterable[str], sets: Mapping[str, list[str]]) -> Iterable[str]:
    for text in adjectives:
        yield from sets[text[1:]] if text.startswith("@") else (text,)


def _read_clues(traits: Mapping[str, Any], words: dict[str, Word], language: str) -> None:
    for trait, groups in traits.items():
        for meaning, columns in groups.items():
            for column, texts in columns.items():
                sense = Sense(trait, meaning, DEGREES[column])
                for text in texts:
                    word = _entry(words, text, language)
                    word.kind = word.kind if word.kind in "ANH" else "C"
                    if sense not in word.senses:  # listed with a hyphen and without
                        word.senses.append(sense)


def _add_verbs(words: dict[str, Word]) -> None:
    """Let "warns" and "warned" be found where the table lists "warning"."""
    for key, word in list(words.items()):
        if word.kind == "C" and key.endswith("ing") and len(key) > 6 and " " not in key:
            stem = key[:-3]
            bare = stem[:-1] if stem[-1] == stem[-2] and stem[-1] not in "sl" else stem
            words.setdefault(bare, word)
            words.setdefault(stem + "e", word)


def _phrases(words: Iterable[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    grouped: dict[str, list[tuple[str, ...]]] = {}
    for key in words:
        first, *rest = key.split()
        if rest:
            grouped.setdefault(first, []).append((first, *rest))
    return {k: tuple(sorted(v, key=len, reverse=True)) for k, v in grouped.items()}


def _longest(words: Iterable[str], place: int) -> Mapping[str, int]:
    longest: dict[str, int] = {}
    for key in words:
        longest[key[place]] = max(longest.get(key[place], 0), len(key))
    return longest
