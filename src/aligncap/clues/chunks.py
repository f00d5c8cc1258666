"""Chunk patterns over the kinds of words: which adjective is said of which head.

A sentence is written as a string of kinds (one letter a word, see `vocabulary`), and the patterns
run over that string, as NLTK's RegexpParser runs over tags.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

AND = "(?:&|,&)"
JOIN = "(?:,|&|,&)"
MORE = f"(?:{JOIN}?[ND]*[ACa])*"

# English: "low, rich voice"; "raises his voice"; "low in pitch". Further heads share the adjective
# only in a list that ends in "and" ("high pitch, speed and volume"), and not when they have a
# predicate of their own ("high pitch and the volume is low").
EN_HEADS = "H+(?:id?f?H+)?f*"
EN_MORE = f"(?:(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS}(?!o?b[NDd]*[AC]))?"
EN_ATTRIBUTE = re.compile(f"(?P<adjectives>[AC]{MORE})[fd]*(?P<heads>{EN_HEADS}{EN_MORE})")
EN_INVERSE = re.compile(f"(?P<adjectives>[AC])i(?P<heads>{EN_HEADS}{EN_MORE})")
EN_SHARED_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS}(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS})o?b+[NDdfb]*"
    f"(?P<adjectives>[ACa](?:{JOIN}?b?[ND]*[ACa])*)(?![fd]*H)"
)
EN_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS})o?[NDdfbi]*(?P<adjectives>[ACa](?:{JOIN}?b?[ND]*[ACa])*)(?![fd]*H)"
)
# Chinese: the predicate comes first, for it needs no copula ("语速快"), then "低沉的声音".
ZH_HEADS = "H(?:[if]*H)*"
ZH_PREDICATE = re.compile(
    f"(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)[if]*o?[NDdfbi]*"
    f"(?P<adjectives>[AC](?:{JOIN}?[NDbi]*[AC])*)"
)
ZH_ATTRIBUTE = re.compile(
    f"(?P<adjectives>[AC]{MORE})(?:i[fd]*)?(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)"
)
PATTERNS = {
    "en": (EN_ATTRIBUTE, EN_INVERSE, EN_SHARED_PREDICATE, EN_PREDICATE),
    "zh": (ZH_PREDICATE, ZH_ATTRIBUTE),
}
HEAD_GROUP = re.compile("H(?:[ifd]*H)*")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Adjectives and what they are said of, as positions in the sentence."""

    adjectives: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    """One entry a head: the positions it may stand at in a compound, the likeliest first."""


def chunks_of(kinds: str, language: str) -> Iterator[Chunk]:
    """The chunks of a sentence; of two that claim the same adjective the first is right."""
    if "H" not in kinds:
        return
    for pattern in PATTERNS[language]:
        for match in pattern.finditer(kinds):
            adjectives = [at for at in range(*match.span("adjectives")) if kinds[at] == "A"]
            yield Chunk(tuple(adjectives), heads_in(kinds, *match.span("heads"), language))


def heads_in(kinds: str, start: int, end: int, language: str) -> tuple[tuple[int, ...], ...]:
    """The heads between two positions.

    In "voice volume" and 声音的音量 the last noun is the head, in "tone of voice" the first run.
    """
    heads = []
    for group in HEAD_GROUP.finditer(kinds, start, end):
        text = group.group()
        run = len(text) if language == "zh" else len(text) - len(text.lstrip("H"))
        positions = [group.start() + n for n in range(run - 1, -1, -1) if text[n] == "H"]
        heads.append(tuple(positions))
    return tuple(heads)
