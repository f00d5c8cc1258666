"""What the paraphrase grammar is made of: meanings, templates, and a language's grammar.

A template is text with `{slots}`, `[optional parts]` and `(this|that)` choices. A slot is either
*content* (an aspect of the voice, which must be said exactly once) or a word to pick. An optional
part is written when the content in it is to be said; one that holds no content is written half of
the time.

English and Chinese: their word tables, how parts are joined, what a sentence must not do.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from types import MappingProxyType

from aligncap.errors import DataError, UnknownNameError
from aligncap.values import EMOTIONS

ASPECTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pitch": ("high", "normal", "low"),
        "loudness": ("loud", "normal", "quiet"),
        "pace": ("fast", "normal", "slow"),
        "pitch_movement": ("rising", "falling"),
        "pitch_range": ("flat", "varied"),
        "loudness_movement": ("swelling", "fading"),
        "loudness_range": ("dynamic", "steady"),
        "pauses": ("halting", "fluent"),
        "clearness": ("clear", "hoarse"),
        "brightness": ("bright", "dull"),
        "steadiness": ("trembling", "steady"),
        "texture": ("breathy", "tense", "soft"),
    }
)
"""Aspects of a voice that a caption can describe, named as in `clues.Levels` → their levels."""

TRAIT_OF: Mapping[str, str] = MappingProxyType(
    {
        "pitch": "pitch",
        "loudness": "volume",
        "pace": "pace",
        "pitch_movement": "intonation",
        "pitch_range": "intonation",
        "loudness_movement": "volume",
        "loudness_range": "volume",
        "pauses": "pace",
        "clearness": "voice quality",
        "brightness": "voice quality",
        "steadiness": "voice quality",
        "texture": "voice quality",
    }
)
"""The clue trait that an aspect belongs to (`values.TRAITS`)."""

STATED: Mapping[str, float] = MappingProxyType(
    {aspect: 0.85 if aspect in ("pitch", "loudness", "pace") else 0.45 for aspect in ASPECTS}
)
"""How often an aspect is spoken of where its level is known: people name three far more often."""

CONFLICTS: frozenset[frozenset[tuple[str, str]]] = frozenset(
    frozenset(pair)
    for pair in (
        (("loudness_range", "steady"), ("loudness_movement", "swelling")),
        (("loudness_range", "steady"), ("loudness_movement", "fading")),
        (("pitch_range", "flat"), ("pitch_movement", "rising")),
        (("pitch_range", "flat"), ("pitch_movement", "falling")),
    )
)
"""What may both be measured but would contradict each other in one sentence."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a caption is to say."""

    emotion: str
    """A category of `values.EMOTIONS`."""
    intensity: str | None = None
    """"normal", "strong", or None where the corpus does not say."""
    gender: str | None = None
    levels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Aspect → level; an aspect that is absent is not spoken of."""
    calm: bool = False
    """Neutral in the way of a calm person rather than of a reader."""

    def __post_init__(self) -> None:
        if self.emotion not in EMOTIONS:
            raise DataError(f"emotion {self.emotion!r}: must be one of {', '.join(EMOTIONS)}")
        if self.gender not in (None, "female", "male"):
            raise DataError(f"gender {self.gender!r}: must be female, male or None")
        if self.intensity not in (None, "normal", "strong"):
            raise DataError(f"intensity {self.intensity!r}: must be normal, strong or None")
        for aspect, level in self.levels.items():
            if level not in ASPECTS.get(aspect, ()):
                known = ", ".join(ASPECTS.get(aspect, ASPECTS))
                raise DataError(f"{aspect} {level!r}: must be one of {known}")


Pick = Callable[[str], str]
"""Slot name → the text to put there."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a word or for content."""

    name: str


@dataclass(frozen=True, slots=True)
class Optional:
    """A part that is written only when its content is to be said."""

    parts: "Parts"
    slots: frozenset[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several parts, each as likely as the others."""

    options: tuple["Parts", ...]


Part = str | Slot | Optional | Choice
Parts = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What a sentence says: of the `content` slots those that are `filled`."""

    content: frozenset[str]
    filled: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A parsed template: `needs` are the slots it cannot do without, `holds` all of them."""

    parts: Parts
    needs: frozenset[str]
    holds: frozenset[str]

    def render(self, pick: Pick, said: Said, random: Callable[[], float]) -> str:
        """The text, with slots from `pick` and choices from `random`, uniform in [0, 1)."""
        if len(self.parts) == 1 and isinstance(self.parts[0], str):
            return self.parts[0]
        written: list[str] = []
        _write(self.parts, written, pick, said, random)
        return "".join(written)


@cache
def parse(source: str) -> Template:
    """The template that a text describes; raises ValueError where brackets do not match."""
    parts, end = _parse(source, 0, "")
    if end != len(source):
        raise ValueError(f"{source!r}: {source[end]!r} at {end} closes nothing")
    needs, holds = _slots(parts, into_optional=False), _slots(parts, into_optional=True)
    return Template(parts, frozenset(needs), frozenset(holds))


def _parse(source: str, at: int, stops: str) -> tuple[Parts, int]:
    parts: list[Part] = []
    text = at
    while at < len(source) and source[at] not in stops and source[at] not in ")]":
        if source[at] not in "{[(":
            at += 1
            continue
        if at > text:
            parts.append(source[text:at])
        part, at = _bracket(source, at)
        parts.append(part)
        text = at
    if at > text:
        parts.append(source[text:at])
    return tuple(parts), at


def _bracket(source: str, at: int) -> tuple[Part, int]:
    if source[at] == "{":
        end = source.index("}", at)
        return Slot(source[at + 1 : end]), end + 1
    close = {"[": "]", "(": ")"}[source[at]]
    options: list[Parts] = []
    end = at
    while end == at or source[end] == "|":
        parts, end = _parse(source, end + 1, "|" if close == ")" else "")
        options.append(parts)
        if end >= len(source) or source[end] not in (close, "|"):
            raise ValueError(f"{source!r}: the bracket at {at} is not closed")
    if close == ")":
        return Choice(tuple(options)), end + 1
    return Optional(options[0], frozenset(_slots(options[0], into_optional=True))), end + 1


def _slots(parts: Parts, *, into_optional: bool) -> Iterator[str]:
    for part in parts:
        match part:
            case Slot(name):
                yield name
            case Optional(inner) if into_optional:
                yield from _slots(inner, into_optional=into_optional)
            case Choice(options):
                for option in options:
                    yield from _slots(option, into_optional=into_optional)


def _write(
    parts: Parts, written: list[str], pick: Pick, said: Said, random: Callable[[], float]
) -> None:
    for part in parts:
        if isinstance(part, str):
            written.append(part)
        elif isinstance(part, Slot):
            written.append(pick(part.name))
        elif isinstance(part, Choice):
            option = part.options[int(random() * len(part.options))]
            _write(option, written, pick, said, random)
        elif isinstance(part, Optional):
            content = part.slots & said.content
            if content <= said.filled if content else random() < 0.5:
                _write(part.parts, written, pick, said, random)


Item = tuple[str, str]
"""An aspect of the voice and its level."""


@dataclass(frozen=True, slots=True, eq=False)
class Style:
    """A way to distribute what is said over roles: role → how many phrases it takes."""

    name: str
    weight: float
    capacity: Mapping[str, int]
    frames: tuple[Template, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """Everything a language has to offer."""

    phrases: Mapping[Item, Mapping[str, tuple[str, ...]]]
    styles: tuple[Style, ...]
    join: Mapping[str, Callable[[list[str], Random], str]]
    """Content slot → how its phrases become one."""
    role_of: Mapping[str, str]
    """Content slot → the role whose phrases it holds."""
    emotions: Mapping[str, Mapping[str, tuple[str, ...]]]
    people: Mapping[str | None, Mapping[str, tuple[str, ...]]]
    words: Mapping[str, tuple[str, ...]]
    emphasised: Mapping[str, str]
    """Kind of emotion word → template that makes it strong, with WORD in its place."""
    plain: Mapping[str, str]
    """Kind of emotion word → template where it is not strong."""
    inflected: Callable[[str, str | None], str | None]
    """Slots such as "she speak", for a gender; None for a slot it does not know."""
    finish: Callable[[str], str]
    reads_well: Callable[[str], bool]
    gender_stated: float
    """How often a known gender is said."""
    aspect_stated: Mapping[str, float]
    """Aspect → how often it is said where it is known."""
    normal_stated: float
    """How often, of these times, a level is said that is only normal."""
    most_levels: int
    """How many levels one sentence says at most."""


def styles_of(
    table: Iterable[tuple[str, float, Mapping[str, int]]], frames: Mapping[str, Iterable[str]]
) -> tuple[Style, ...]:
    """Styles from rows of name, weight and capacity, with the frames written for each name."""
    return tuple(
        Style(name, weight, capacity, tuple(parse(frame) for frame in frames[name]))
        for name, weight, capacity in table
    )


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
    path = Path(__file__).parent / "paraphrase" / f"{language}.toml"
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
