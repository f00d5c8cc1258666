"""The paraphrase grammar: from a meaning and a plan to a caption, always the same one.

A plan is a style (`full`, `short`, `tts`), the number of a sentence frame, and the number of a
wording that chooses among synonyms. `plans_for` lists the plans that a meaning allows: a frame
needs what it has places for. So one of thousands of sentences can be asked for by name, by a
language model too, which writes what it hears in the plan that stands at the end of its prompt.

A frame is a template: text with `{slots}`, `[optional parts]` and `(this|that)` choices. A slot is
*content* (what is measured of the voice), the emotion, or a word to pick. An optional part is
written when the content in it is said.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aligncap.errors import DataError, UnknownNameError
from aligncap.values import EMOTIONS, LANGUAGES

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
"""The clue trait that an aspect belongs to (`values.TRAITS`); a sentence speaks of each once."""

PRIMARY = ("pitch", "loudness", "pace")
"""What people name far more often than the rest."""

CERTAINTIES = ("sure", "likely", "unsure")
INTENSITIES = ("weak", "normal", "strong")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a caption is to say."""

    emotion: str
    """A category of `values.EMOTIONS`."""
    intensity: str | None = None
    """"weak", "normal", "strong", or None where it is not known."""
    gender: str | None = None
    levels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Aspect → level; an aspect that is absent is not spoken of."""
    calm: bool = False
    """Neutral in the way of a calm person rather than of a reader."""
    certainty: str = "sure"
    """"sure", "likely" or "unsure": the last two are hedged."""
    second: str | None = None
    """Another emotion that it may be as well; then both are named, this one second."""

    def __post_init__(self) -> None:
        for emotion in (self.emotion, self.second or self.emotion):
            if emotion not in EMOTIONS:
                raise DataError(f"emotion {emotion!r}: must be one of {', '.join(EMOTIONS)}")
        if self.second == self.emotion:
            raise DataError(f"emotion {self.emotion!r}: the second must be another one")
        if self.gender not in (None, "female", "male"):
            raise DataError(f"gender {self.gender!r}: must be female, male or None")
        if self.intensity not in (None, *INTENSITIES):
            raise DataError(
                f"intensity {self.intensity!r}: must be {', '.join(INTENSITIES)} or None"
            )
        if self.certainty not in CERTAINTIES:
            raise DataError(
                f"certainty {self.certainty!r}: must be one of {', '.join(CERTAINTIES)}"
            )
        for aspect, level in self.levels.items():
            if level not in ASPECTS.get(aspect, ()):
                known = ", ".join(ASPECTS.get(aspect, ASPECTS))
                raise DataError(f"{aspect} {level!r}: must be one of {known}")

    @property
    def hedge(self) -> str:
        """How the emotion is put: one of CERTAINTIES, or "mixed"."""
        return "mixed" if self.second else self.certainty


STYLES: Mapping[str, str] = MappingProxyType({"full": "f", "short": "s", "tts": "t"})
"""Styles of captions and their letters: sentences, a phrase, a description for a synthesiser."""

WORDINGS = 24
"""Wordings of each frame."""

_PLAN = re.compile(r"([fst])(\d{1,3}) (\d{1,2})")


@dataclass(frozen=True, slots=True, order=True)
class Plan:
    """How a meaning is to be said."""

    style: str
    """One of STYLES."""
    frame: int
    wording: int

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UnknownNameError("style of captions", self.style, STYLES)
        if self.frame < 0 or not 0 <= self.wording < WORDINGS:
            raise DataError(f"plan {self}: frames count from 0, wordings from 0 to {WORDINGS - 1}")

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The plan that `str` wrote; DataError for any other text."""
        found = _PLAN.fullmatch(text)
        if found is None:
            raise DataError(f"plan {text!r}: is not written as 'f17 3'")
        letter, frame, wording = found.groups()
        style = next(name for name, own in STYLES.items() if own == letter)
        return cls(style, int(frame), int(wording))

    def __str__(self) -> str:
        """ "f17 3": what stands before the bar of a planned caption."""
        return f"{STYLES[self.style]}{self.frame} {self.wording}"


def split_plan(text: str) -> tuple[str, str]:
    """The plan and the caption of "f17 3|She sounds …"; "" for the plan where there is none."""
    plan, bar, caption = text.partition("|")
    return (plan, caption) if bar and _PLAN.fullmatch(plan) else ("", text)


CONTENT = frozenset(
    {
        "voice",
        "voice_is",
        "manner",
        "tail",
        "clause",
        "one_clause",
        "first_clause",
        "first_one",
        "marks",
    }
)
"""Slots for what is measured of the voice."""

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
    """One of several parts."""

    options: tuple["Parts", ...]


Part = str | Slot | Optional | Choice
Parts = tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A parsed template: `needs` are slots it cannot do without, `holds` all of them in order."""

    parts: Parts
    needs: frozenset[str]
    holds: tuple[str, ...]

    def render(self, pick: Pick, filled: Iterable[str], number: int) -> str:
        """The text, with slots from `pick`, those optional parts whose content is `filled`, and of
        each choice the option of that number, counted round."""
        written: list[str] = []
        _write(self.parts, written, pick, frozenset(filled), number)
        return "".join(written)


@cache
def parse(source: str) -> Template:
    """The template that a text describes; raises ValueError where brackets do not match."""
    parts, end = _parse(source, 0, "")
    if end != len(source):
        raise ValueError(f"{source!r}: {source[end]!r} at {end} closes nothing")
    needs = frozenset(_slots(parts, into_optional=False))
    return Template(parts, needs, tuple(_slots(parts, into_optional=True)))


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
    return Optional(options[0], frozenset(_slots(options[0], into_optional=False))), end + 1


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
    parts: Parts, written: list[str], pick: Pick, filled: frozenset[str], number: int
) -> None:
    for part in parts:
        if isinstance(part, str):
            written.append(part)
        elif isinstance(part, Slot):
            written.append(pick(part.name))
        elif isinstance(part, Choice):
            option = part.options[number % len(part.options)]
            _write(option, written, pick, filled, number)
        elif part.slots & CONTENT and part.slots & CONTENT <= filled:
            _write(part.parts, written, pick, filled, number)


Item = tuple[str, str]
"""An aspect of the voice and its level."""

Words = Mapping[str, tuple[str, ...]]
"""Name of a slot, role or kind of word → templates to choose from."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A sentence frame: what it is a template of, and the hedges it is made for."""

    template: Template
    hedges: frozenset[str]
    gendered: bool = False
    """Whether it reads well only where the gender is known."""
    moved: bool = False
    """Whether it is for emotions other than neutral: nobody is "overcome with calm"."""
    evidence: str = ""
    """"sign" where it gives the voice as a sign of the emotion ("sad: her voice is low"),
    "contrast" where it sets one against the other ("sad, though her voice is loud"), else ""."""


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """Everything a language has to offer."""

    frames: Mapping[str, tuple[Frame, ...]]
    """By style; a plan counts them from 0."""
    phrases: Mapping[Item, Words]
    """What can be said of a level, by role."""
    emotions: Mapping[str, Words]
    hedges: Mapping[str, Words]
    """Emotion slot → hedge → templates."""
    people: Mapping[str | None, Words]
    words: Words
    room: Mapping[str, tuple[str, int]]
    """Content slot → the role whose phrases it holds, and how many of them."""
    join: Mapping[str, Callable[[Sequence[str]], str]]
    """Content slot → how its phrases become one."""
    inflected: Callable[[str, str | None], str | None]
    """Slots such as "she speak", for a gender; None for a slot it does not know."""
    finish: Callable[[str], str]
    reads_well: Callable[[str], bool]


MADE_FOR = re.compile(r"<([a-z ]+)> ")
"""Before a frame that is not for every meaning: "<likely gendered sign> "."""

EVIDENCE = ("sign", "contrast")

OUTRIGHT = frozenset({"adj", "pred", "noun", "adv", "idiom", "tone"})
"""Slots that name the emotion outright: a frame with one of them is for what is sure."""


def _frame(source: str) -> Frame:
    given = MADE_FOR.match(source)
    template = parse(source[given.end() if given else 0 :])
    made_for = set(given[1].split()) if given else set()
    hedges = made_for - {"gendered", "moved", *EVIDENCE}
    if not hedges:
        hedges = {"sure"} if OUTRIGHT & set(template.holds) else {*CERTAINTIES, "mixed"}
    evidence = next((one for one in EVIDENCE if one in made_for), "")
    return Frame(template, frozenset(hedges), "gendered" in made_for, "moved" in made_for, evidence)


def _words(table: Mapping[str, Sequence[str]]) -> Words:
    return {name: tuple(some) for name, some in table.items()}


def _phrases(data: Mapping[str, Any]) -> dict[Item, Words]:
    """The phrases of each level, by role; those of qualities from the templates they share."""
    phrases = {
        (aspect, level): _words(roles)
        for aspect, levels in data["levels"].items()
        for level, roles in levels.items()
    }
    templates = _words(data["qualities"]["templates"])
    for aspect, levels in data["qualities"]["words"].items():
        for level, words in levels.items():
            choice = f"({'|'.join(words)})"
            own = _words(data["qualities"].get("own", {}).get(level, {}))
            phrases[aspect, level] = {
                role: tuple(one.replace("QUALITY", choice) for one in some) + own.get(role, ())
                for role, some in templates.items()
            } | {role: some for role, some in own.items() if role not in templates}
    return phrases


def _listed(words: Sequence[str], last: str, between: str = ", ") -> str:
    """ "a, b and c"."""
    *most, end = words
    return f"{between.join(most)}{last}{end}" if most else end


FEWEST_WORDS, MOST_WORDS = 2, 36
_MAY_REPEAT = frozenset(
    re.findall(
        r"\w+", "a an the and in at of to is as with her his she he they their for or it be on"
    )
)
_VERBS = {
    "be": ("is", "are"),
    "rush": ("rushes", "rush"),
    "have": ("has", "have"),
    "go": ("goes", "go"),
    "hurry": ("hurries", "hurry"),
}
_PAIR = re.compile(r"\b(between|both|either|half|part)\b")


def _english_verb(slot: str, gender: str | None) -> str | None:
    """ "she speak" → "she speaks", "he speaks" or "they speak"; "one speak" → "speaks"."""
    who, _, verb = slot.partition(" ")
    if who not in ("she", "one", "they") or not verb:
        return None
    singular, plural = _VERBS.get(verb, (f"{verb}s", verb))
    form = singular if who == "one" or gender else plural
    return (
        form
        if who != "she"
        else f"{ {'female': 'she', 'male': 'he', None: 'they'}[gender] } {form}"
    )


def _english_finish(text: str) -> str:
    """A sentence: articles that fit, a capital, a full stop."""
    # "a uniform", "a euphoric", but "an uninterested": there un- is a syllable of its own.
    text = re.sub(r",(?=[,;:.]|$)", "", text.replace(",,", ","))
    text = re.sub(r"\ba(?= (?!use|usu|uni(?![mn])|eu|one)[aeiou])", "an", text)
    return f"{text[0].upper()}{text[1:]}."


def _english_reads_well(text: str) -> bool:
    """Neither too short nor too long, and no word (nor its cousin) said twice."""
    words = re.findall(r"[a-z']+", text.lower())
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return False
    pairs = frozenset(_PAIR.findall(text.lower())) | {"half", "part"}
    stems = [word[:5] for word in words if word not in _MAY_REPEAT and word not in pairs]
    return len(set(stems)) == len(stems)


FEWEST_CHARACTERS, MOST_CHARACTERS = 3, 48


def _chinese_reads_well(text: str) -> bool:
    """Neither too short nor too long, and no word said twice."""
    characters = re.sub(r"[，。、；：]", "", text)
    if not FEWEST_CHARACTERS <= len(characters) <= MOST_CHARACTERS:
        return False
    two_voices = "嗓音" in text and "声音" in text
    if two_voices or any(text.count(mark) > 1 for mark in "很偏挺颇较亮难"):
        return False
    pairs = [p for p in re.findall(r"(?=([\u4e00-\u9fff]{2}))", text) if p not in ("又像", "一半")]
    return len(set(pairs)) == len(pairs)


_ROOM = {
    "voice": ("voice", 2),
    "voice_is": ("voice", 3),
    "manner": ("manner", 2),
    "tail": ("tail", 1),
    "clause": ("clause", 2),
    "one_clause": ("clause", 1),
    "first_clause": ("clause", 2),
    "first_one": ("clause", 1),
    "marks": ("mark", 3),
}


def _and(words: Sequence[str]) -> str:
    return _listed(words, " and ")


def _manner(words: Sequence[str]) -> str:
    """Adverbs before phrases: "quickly and quietly", "quietly at a fast pace"."""
    ordered = sorted(words, key=lambda word: " " in word)
    phrases = sum(" " in word for word in ordered)
    return (" " if phrases == 1 and len(ordered) == 2 else " and ").join(ordered)


_ENGLISH_JOINS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "voice": ", ".join,
    "voice_is": _and,
    "manner": _manner,
    "tail": _and,
    "clause": _and,
    "one_clause": _and,
    "first_clause": _and,
    "first_one": _and,
    "marks": _and,
}
_CHINESE_JOINS: Mapping[str, Callable[[Sequence[str]], str]] = {
    "voice": "、".join,
    "voice_is": "、".join,
    "manner": "、".join,
    "tail": "，".join,
    "clause": "，".join,
    "one_clause": "，".join,
    "first_clause": "，".join,
    "first_one": "，".join,
    "marks": lambda words: _listed(words, "与", "、"),
}


def _hedges(table: Mapping[str, Any], *, english: bool) -> dict[str, Words]:
    """How the emotion is said, by slot; English has "sounds" with a pronoun before it as well."""
    hedges = {slot: _words(some) for slot, some in table.items()}
    if english:
        hedges["she_sounds"] = {
            hedge: tuple(
                f"{{she {one[5:]}" if one.startswith("{one ") else f"{{she}} {one}" for one in some
            )
            for hedge, some in hedges["sounds"].items()
        }
    return hedges


@cache
def open_grammar(language: str) -> Grammar:
    """The grammar of a language ("en", "zh"), from its tables; en.toml explains them."""
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    path = Path(__file__).parent / "paraphrase" / f"{language}.toml"
    data = tomllib.loads(path.read_text("utf-8"))
    english = language == "en"
    return Grammar(
        frames={style: tuple(map(_frame, data["frames"][style])) for style in STYLES},
        phrases=_phrases(data),
        emotions={name: _words(some) for name, some in data["emotions"].items()},
        hedges=_hedges(data["hedges"], english=english),
        people={
            None if who == "unknown" else who: _words(some) for who, some in data["people"].items()
        },
        words=_words(data["words"]),
        room=_ROOM,
        join=_ENGLISH_JOINS if english else _CHINESE_JOINS,
        inflected=_english_verb if english else lambda _slot, _gender: None,
        finish=_english_finish if english else "{}。".format,
        reads_well=_english_reads_well if english else _chinese_reads_well,
    )
