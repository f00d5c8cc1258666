"""Templates: text with `{slots}`, `[optional parts]` and `(this|that)` choices.

A slot is either *content* (an aspect of the voice, which must be said exactly once) or a word
to pick. An optional part is written when the content in it is to be said; one that holds no
content is written half of the time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

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
