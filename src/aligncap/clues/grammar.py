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

AND = "(?:&|,&)"
JOIN = "(?:,|&|,&)"
ADJECTIVES = f"[AC](?:{JOIN}?[ND]*[AC])*"

# English: "low, rich voice"; "raises his voice"; "low in pitch". Further heads share the adjective
# only in a list that ends in "and" ("high pitch, speed and volume"), and not when they have a
# predicate of their own ("high pitch and the volume is low").
EN_HEADS = "H+(?:id?f?H+)?f*"
EN_MORE = f"(?:(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS}(?!o?b[NDd]*[AC]))?"
EN_ATTRIBUTE = re.compile(f"(?P<adjectives>{ADJECTIVES})[fd]*(?P<heads>{EN_HEADS}{EN_MORE})")
EN_INVERSE = re.compile(f"(?P<adjectives>[AC])i(?P<heads>{EN_HEADS}{EN_MORE})")
EN_SHARED_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS}(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS})o?b+[NDdfb]*"
    f"(?P<adjectives>[AC](?:{JOIN}?b?[ND]*[AC])*)(?![fd]*H)"
)
EN_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS})o?[NDdfbi]*(?P<adjectives>[AC](?:{JOIN}?b?[ND]*[AC])*)(?![fd]*H)"
)
# Chinese: the predicate comes first, for it needs no copula ("语速快"), then "低沉的声音".
ZH_HEADS = "H(?:[if]*H)*"
ZH_PREDICATE = re.compile(
    f"(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)[if]*o?[NDdfbi]*"
    f"(?P<adjectives>[AC](?:{JOIN}?[NDbi]*[AC])*)"
)
ZH_ATTRIBUTE = re.compile(
    f"(?P<adjectives>{ADJECTIVES})(?:i[fd]*)?(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)"
)
PATTERNS = {
    "en": (EN_ATTRIBUTE, EN_INVERSE, EN_SHARED_PREDICATE, EN_PREDICATE),
    "zh": (ZH_PREDICATE, ZH_ATTRIBUTE),
}
HEAD_GROUP = re.compile("H(?:[ifd]*H)*")

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
    read, described = _readings(words, kinds, language)
    genders = {s.meaning for w in words for s in w.senses if s.trait == "gender"}
    for at, word in enumerate(words):
        if at in read:
            yield from read[at]
        elif word.kind in "ACH" and at not in described and not _strengthens(words, kinds, at):
            yield from (Found(at, word.text, sense) for sense in word.senses)
        elif word.gender and word.gender not in genders:
            yield Found(at, PRONOUNS.get(word.text, word.text), Sense("gender", word.gender))


def _readings(
    words: Sequence[Word], kinds: str, language: str
) -> tuple[dict[int, list[Found]], set[int]]:
    """What each adjective says of the heads its chunk gives it; the heads that are described so."""
    read: dict[int, list[Found]] = {}
    described: set[int] = set()
    if "H" not in kinds:
        return read, described
    for pattern in PATTERNS[language]:
        for chunk in pattern.finditer(kinds):
            heads = _heads(kinds, chunk.span("heads"), language)
            free = [
                at for at in range(*chunk.span("adjectives")) if kinds[at] == "A" and at not in read
            ]
            for at, found in _chunk(words, free, heads, language):
                read[at] = found
                described.update(position for group in heads for position in group)
    return read, described


def _heads(kinds: str, span: tuple[int, int], language: str) -> list[list[int]]:
    """The heads in a chunk, each as the positions it may stand at, the likeliest first.

    In "voice volume" and 声音的音量 the last noun is the head, in "tone of voice" the first run.
    """
    heads = []
    for group in HEAD_GROUP.finditer(kinds, *span):
        text = group.group()
        end = len(text) if language == "zh" else len(text) - len(text.lstrip("H"))
        heads.append([group.start() + n for n in range(end - 1, -1, -1) if text[n] == "H"])
    return heads


def _chunk(
    words: Sequence[Word], adjectives: Sequence[int], heads: Sequence[list[int]], language: str
) -> list[tuple[int, list[Found]]]:
    """The adjectives of one chunk that say something of its heads.

    "A steady, low pitch" is low: what puts a trait in the middle yields to what does not.
    """
    read = [(at, _read(words, at, heads, language)) for at in adjectives]
    sided = {f.sense.trait for _, found in read for f in found if f.sense.meaning != "normal"}
    return [
        (at, [f for f in found if f.sense.meaning != "normal" or f.sense.trait not in sided])
        for at, found in read
        if found
    ]


def _read(words: Sequence[Word], at: int, heads: Sequence[list[int]], language: str) -> list[Found]:
    adjective = words[at]
    defaults = {(sense.trait, sense.meaning) for sense in adjective.senses}
    found = []
    for group in heads:
        head = next((h for h in group if words[h].head in adjective.readings), None)
        if head is None:
            continue
        sense = adjective.readings[words[head].head]
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
    joined = False  # an "and" between here and the clue
    alternatives = any(w.joins for w in words[at + 1 : at + 4])
    for before in range(at - 1, -1, -1):
        kind = kinds[before]
        if kind == "n":
            return False
        if count and kind not in "NDdb":
            break  # "not fast and not slow": the further negator has its own clue
        if kind == "N":
            count += 1
        elif kind == "o":
            unknown += 1
            near = False
            # "does not understand and is angry": the negator has its own verb.
            if unknown > reach or joined:
                break
        elif kind == ";" or (kind in "ACH" and not near):
            break
        elif kind == "&":
            alternatives = alternatives or words[before].joins
            if not (near or words[before].joins):
                break
            joined = joined or not words[before].joins
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
