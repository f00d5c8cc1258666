"""English and Chinese: their word tables, how parts are joined, what a sentence must not do."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from aligncap.data.paraphrase.grammar import STATED, Grammar, Item, styles_of
from aligncap.errors import UnknownNameError

Words = Mapping[str, tuple[str, ...]]
"""Name of a slot, role or kind of word → templates to choose from."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The words of one language, as `data/en.toml` explains them."""

    frames: Words
    words: Words
    people: Mapping[str | None, Words]
    phrases: Mapping[Item, Words]
    emotions: Mapping[str, Words]


def read_tables(language: str) -> Tables:
    """The word tables of a language ("en", "zh")."""
    path = Path(__file__).parent / "data" / f"{language}.toml"
    data = tomllib.loads(path.read_text("utf-8"))
    phrases = {
        (aspect, level): _words(roles)
        for aspect, levels in data["levels"].items()
        for level, roles in levels.items()
    }
    templates = _words(data["qualities"]["templates"])
    for aspect, levels in data["qualities"]["words"].items():
        for level, words in levels.items():
            choice = f"({'|'.join(words)})"
            phrases[aspect, level] = {
                role: tuple(one.replace("QUALITY", choice) for one in some)
                for role, some in templates.items()
            }
    return Tables(
        frames=_words(data["frames"]),
        words=_words(data["words"]),
        people={
            None if who == "unknown" else who: _words(some) for who, some in data["people"].items()
        },
        phrases=phrases,
        emotions={emotion: _words(some) for emotion, some in data["emotions"].items()},
    )


def _words(table: Mapping[str, list[str]]) -> Words:
    return {name: tuple(some) for name, some in table.items()}


FEWEST_WORDS, MOST_WORDS = 8, 35

_ENGLISH_STYLES = (
    ("split", 0.66, {"voice": 2, "manner": 2, "tail": 2}),
    ("list", 0.19, {"mark": 4}),
    ("fact", 0.15, {"fact": 4}),
)
_MAY_REPEAT = frozenset(
    re.findall(
        r"\w+",
        "a an the and in at of to is as with her his their she he they for from that toward end",
    )
)
_TAILS = {"with": 0, "while": 2}
_VERBS = {"be": ("is", "are"), "say": ("says", "say")}


def _english() -> Grammar:
    """The English grammar."""
    tables = read_tables("en")
    return Grammar(
        phrases=tables.phrases,
        styles=styles_of(_ENGLISH_STYLES, tables.frames),
        join={
            "voice": lambda words, _rng: ", ".join(words),
            "voice_is": lambda words, _rng: " and ".join(words),
            "manner": _join_manner,
            "tail": _join_tail,
            "marks": lambda words, _rng: _listed(words),
            "facts": _join_facts,
        },
        role_of={
            "voice": "voice",
            "voice_is": "voice",
            "manner": "manner",
            "tail": "tail",
            "marks": "mark",
            "facts": "fact",
        },
        emotions=tables.emotions,
        people=tables.people,
        words=tables.words,
        emphasised={
            "adj": "{very}WORD",
            "noun": "{great}WORD",
        },
        plain={},
        inflected=_inflected,
        finish=_finish,
        reads_well=_english_reads_well,
        gender_stated=0.94,
        aspect_stated=STATED,
        normal_stated=0.6,
        most_levels=4,
    )


def _inflected(slot: str, gender: str | None) -> str | None:
    """ "she speak" → "she speaks", "he speaks" or "they speak"."""
    if not slot.startswith("she "):
        return None
    verb = slot.removeprefix("she ")
    singular, plural = _VERBS.get(verb, (f"{verb}s", verb))
    return {
        "female": f"she {singular}",
        "male": f"he {singular}",
        None: f"they {plural}",
    }[gender]


def _listed(words: list[str]) -> str:
    """ "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _join_manner(words: list[str], rng: Random) -> str:
    """Adverbs before phrases: "quickly and quietly", "quietly at a fast pace"."""
    ordered = sorted(words, key=lambda word: " " in word)
    phrases = sum(" " in word for word in ordered)
    joint = " " if len(ordered) == 2 and phrases == 1 and rng.random() < 0.5 else " and "
    return joint.join(ordered)


def _join_tail(words: list[str], _rng: Random) -> str:
    """Phrases with "with" first and clauses with "while" last, each word once."""
    ordered = sorted(words, key=lambda word: _TAILS.get(word.split()[0], 1))
    first, *rest = ordered
    if not rest:
        return first
    second = rest[0]
    if second.split()[0] == first.split()[0] and second.split()[0] in _TAILS:
        return f"{first} and {second.split(maxsplit=1)[1]}"
    return f"{first}{', ' if second.startswith('while ') else ' and '}{second}"


def _join_facts(words: list[str], _rng: Random) -> str:
    """ "the pitch is high, the pace slow and the volume low"."""
    (noun, adjective), *rest = (word.split("=") for word in words)
    return _listed([f"the {noun} is {adjective}", *(f"the {n} {a}" for n, a in rest)])


def _finish(text: str) -> str:
    """A sentence: articles that fit, a capital, a full stop."""
    # "a uniform", "a euphoric", but "an uninterested": there un- is a syllable of its own.
    text = re.sub(r"\ba(?= (?!use|usu|uni(?![mn])|eu|one)[aeiou])", "an", text)
    return f"{text[0].upper()}{text[1:]}."


def _english_reads_well(text: str) -> bool:
    """Long enough, not too long, and no word (nor its cousin) said twice."""
    words = re.findall(r"[a-z'-]+", text.lower())
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return False
    if "quite quiet" in text:
        return False
    stems = [word[:5] for word in words if word not in _MAY_REPEAT]
    return len(set(stems)) == len(stems)


FEWEST_CHARACTERS, MOST_CHARACTERS = 10, 45

_CHINESE_STYLES = (
    ("clause", 0.5, {"clause": 4}),
    ("split", 0.34, {"voice": 2, "manner": 1, "clause": 2}),
    ("list", 0.16, {"mark": 3}),
)
_ONCE = "很较偏挺颇"
"""Degrees that wear thin: `较` may come twice, each of the others once."""


def _chinese() -> Grammar:
    """The Chinese grammar."""
    tables = read_tables("zh")
    return Grammar(
        phrases=tables.phrases,
        styles=styles_of(_CHINESE_STYLES, tables.frames),
        join={
            "voice": lambda words, rng: rng.choice(("、", "而", "又")).join(words),
            "manner": lambda words, _rng: "、".join(words),
            "clauses": lambda words, _rng: "，".join(words),
            "marks": _join_marks,
        },
        role_of={"voice": "voice", "manner": "manner", "clauses": "clause", "marks": "mark"},
        emotions=tables.emotions,
        people=tables.people,
        words=tables.words,
        emphasised={"adj": "{very}WORD", "noun": "{much}WORD"},
        plain={"adj": "{some}WORD"},
        inflected=lambda _slot, _gender: None,
        finish=lambda text: f"{text}。",
        reads_well=_chinese_reads_well,
        gender_stated=0.97,
        aspect_stated=STATED,
        normal_stated=0.6,
        most_levels=4,
    )


def _join_marks(words: list[str], rng: Random) -> str:
    *most, last = words
    return (
        f"{'、'.join(most)}{rng.choice(('与', '以及', '和' if last[0] != '平' else '与'))}{last}"
        if most
        else last
    )


def _chinese_reads_well(text: str) -> bool:
    """Long enough, not too long, and no word said twice."""
    characters = re.sub(r"[，。、；：]", "", text)
    if not FEWEST_CHARACTERS <= len(characters) <= MOST_CHARACTERS:
        return False
    if any(text.count(mark) > (2 if mark == "较" else 1) for mark in _ONCE):
        return False
    pairs = re.findall(r"(?=([\u4e00-\u9fff]{2}))", text)
    return len(set(pairs)) == len(pairs)


LANGUAGES: Mapping[str, Callable[[], Grammar]] = {"en": _english, "zh": _chinese}


@cache
def open_grammar(language: str) -> Grammar:
    """The grammar of a language ("en", "zh")."""
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    return LANGUAGES[language]()
