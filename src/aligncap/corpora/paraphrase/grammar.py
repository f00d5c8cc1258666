"""What a language offers the planner: phrases, sentence plans and rules that join them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from random import Random

from aligncap.corpora.paraphrase.template import Template, parse
from aligncap.errors import UnknownNameError

LANGUAGES = {
    "en": "aligncap.corpora.paraphrase.english",
    "zh": "aligncap.corpora.paraphrase.chinese",
}

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


@cache
def open_grammar(language: str) -> Grammar:
    """The grammar of a language ("en", "zh")."""
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    build: Callable[[], Grammar] = import_module(LANGUAGES[language]).grammar
    return build()
