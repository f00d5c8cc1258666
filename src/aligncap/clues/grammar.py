"""The emotion grammar parser G_Parser of Eq. 1: from known words to typed clues.

A sentence is written as a string of kinds (one letter a word, see `vocabulary`), and chunk patterns
run over that string, as NLTK's RegexpParser does over tags. Chunks tie an adjective to its heads:
"a low, rich voice", "his pitch and volume are low", "低沉的声音", "语速有些快". What stands before
a clue then says whether it is negated and how strong it is.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligncap.clues.vocabulary import Sense, Word, meanings
from aligncap.values import Clue

JOIN = "(?:,|&|,&)"
ADJECTIVES = f"[AC](?:{JOIN}?[ND]*[AC])*"

# English: "low, rich voice"; "raises his voice"; "low in pitch". A second head shares the adjective
# ("high pitch and volume") unless it has a predicate of its own ("high pitch and volume is low").
EN_HEADS = r"H+(?:id?f?H+)?"
EN_MORE = f"(?:{JOIN}d?f*{EN_HEADS}f*(?!f?o?b[NDd]*[AC]))*"
EN_ATTRIBUTE = re.compile(f"(?P<adjectives>{ADJECTIVES})[fd]*(?P<heads>{EN_HEADS}f*{EN_MORE})")
EN_INVERSE = re.compile(f"(?P<adjectives>[AC])i(?P<heads>{EN_HEADS}f*{EN_MORE})")
EN_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS}f*(?:{JOIN}d?f*{EN_HEADS}f*)*)o?b*[NDdfb]*"
    f"(?P<adjectives>[AC](?:{JOIN}?b?[ND]*[AC])*)"
)
# Chinese: the predicate comes first, for it needs no copula ("语速快"), then "低沉的声音".
ZH_HEADS = r"H(?:[if]*H)*"
ZH_PREDICATE = re.compile(
    f"(?P<heads>{ZH_HEADS}(?:{JOIN}{ZH_HEADS})*)[if]*o?[NDdfbi]*"
    f"(?P<adjectives>[AC](?:{JOIN}?[NDbi]*[AC])*)"
)
ZH_ATTRIBUTE = re.compile(
    f"(?P<adjectives>{ADJECTIVES})(?:i[fd]*)?(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)"
)
PATTERNS = {
    "en": (EN_ATTRIBUTE, EN_INVERSE, EN_PREDICATE),
    "zh": (ZH_PREDICATE, ZH_ATTRIBUTE),
}

PRONOUNS = {
    "her": "she",
    "hers": "she",
    "herself": "she",
    "his": "he",
    "him": "he",
    "himself": "he",
}
"""The lemma of each English pronoun."""

REACH = {"en": 3, "zh": 1}
"""How many unknown words may stand between a negator and what it negates."""


@dataclass(frozen=True, slots=True)
class Found:
    """A clue where it stands: the position of its word, and what it says there."""

    at: int
    word: str
    sense: Sense


def clues_in(words: Sequence[Word], language: str) -> list[Clue]:
    """The clues of one sentence or several, in the order of their words, repeats dropped."""
    kinds = "".join(word.kind for word in words)
    clues = []
    for found in _found(words, kinds, language):
        sense, word = found.sense, found.word
        degree = sense.degree * _factor(words, kinds, found.at)
        clues.append(
            Clue(
                word=word,
                trait=sense.trait,
                meaning=sense.meaning,
                polarity=meanings()[sense.trait, sense.meaning].polarity,
                degree=min(1.5, max(0.25, degree)),
                negated=_negated(words, kinds, found.at, REACH[language]),
            )
        )
    return _without_repeats(clues)


def _found(words: Sequence[Word], kinds: str, language: str) -> Iterable[Found]:
    read = _readings(words, kinds, language)
    genders = {s.meaning for w in words for s in w.senses if s.trait == "gender"}
    for at, word in enumerate(words):
        if at in read:
            yield from read[at]
        elif word.kind in "AC" and not _strengthens(words, kinds, at):
            yield from (Found(at, word.text, sense) for sense in word.senses)
        elif word.gender and word.gender not in genders:
            yield Found(at, PRONOUNS.get(word.text, word.text), Sense("gender", word.gender))


def _readings(words: Sequence[Word], kinds: str, language: str) -> dict[int, list[Found]]:
    """What each adjective says of the heads that its chunk gives it."""
    read: dict[int, list[Found]] = {}
    for pattern in PATTERNS[language]:
        for chunk in pattern.finditer(kinds):
            heads = _heads(kinds, chunk.span("heads"), language)
            for at in range(*chunk.span("adjectives")):
                if at not in read and kinds[at] == "A":
                    found = _read(words, at, heads, language)
                    if found:
                        read[at] = found
    return read


def _heads(kinds: str, span: tuple[int, int], language: str) -> list[int]:
    """Positions of the heads in a chunk, one a compound: "voice volume" is a volume."""
    heads = []
    for group in re.finditer(r"H(?:[ifd]*H)*", kinds[span[0] : span[1]]):
        text = group.group()
        # "tone of voice" and "voice tone" are both a tone; Chinese 声音的音调 has its head last.
        end = re.match("H+", text) if language == "en" else None
        heads.append(span[0] + group.start() + (end.end() if end else len(text)) - 1)
    return heads


def _read(words: Sequence[Word], at: int, heads: Sequence[int], language: str) -> list[Found]:
    adjective = words[at]
    defaults = {(sense.trait, sense.meaning) for sense in adjective.senses}
    found = []
    for head in heads:
        sense = adjective.readings.get(words[head].head)
        if sense is None:
            continue
        degrees = [s.degree for s in adjective.senses if s.trait == sense.trait] or [1.0]
        pair = (words[head].text, adjective.text)
        text = " ".join(reversed(pair)) if language == "en" else "".join(pair)
        if (sense.trait, sense.meaning) in defaults:
            text = adjective.text
        found.append(Found(at, text, Sense(sense.trait, sense.meaning, degrees[0])))
    return found


def _strengthens(words: Sequence[Word], kinds: str, at: int) -> bool:
    """Whether a word that is also a degree is used as one: "deep sadness", "fierce anger"."""
    if words[at].factor is None or kinds[at + 1 : at + 2] not in ("A", "C"):
        return False
    return any(sense.trait in ("emotion", "tone") for sense in words[at + 1].senses)


def _factor(words: Sequence[Word], kinds: str, at: int) -> float:
    """The product of the degrees that stand beside a clue."""
    factor = 1.0
    before = at - 1
    while before >= 0 and (kinds[before] in "Ddif" or _strengthens(words, kinds, before)):
        if words[before].factor is not None and not words[before].after:
            factor *= words[before].factor or 1.0
        before -= 1
    if at + 1 < len(words) and words[at + 1].after:
        factor *= words[at + 1].factor or 1.0
    return factor


def _negated(words: Sequence[Word], kinds: str, at: int, reach: int) -> bool:
    """Whether an odd number of negators reaches the clue; "cannot hide her anger" has none."""
    count = unknown = 0
    near = True  # nothing but modifiers between here and the clue
    alternatives = any(w.joins for w in words[at + 1 : at + 4])
    for before in range(at - 1, -1, -1):
        kind = kinds[before]
        if kind == "n":
            return False
        if kind == "N":
            count += 1
        elif kind == "o":
            unknown += 1
            near = False
            if unknown > reach:
                break
        elif kind == ";" or (kind in "ACH" and not near):
            break
        elif kind == "&":
            alternatives = alternatives or words[before].joins
            if not (near or words[before].joins):
                break
        elif kind == "," and not alternatives:
            break
        elif kind in "bfp":
            near = False
    return count % 2 == 1


def _without_repeats(clues: Iterable[Clue]) -> list[Clue]:
    seen: dict[tuple[str, str, str, bool], Clue] = {}
    for clue in clues:
        seen.setdefault((clue.word, clue.trait, clue.meaning, clue.negated), clue)
    return list(seen.values())
