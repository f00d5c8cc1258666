"""The emotion grammar parser G_Parser of Eq. 1: from known words to typed clues.

Chunks tie an adjective to its heads: "a low, rich voice", "his pitch and volume are low",
"低沉的声音", "语速有些快". What stands before a clue then says whether it is negated and how strong
it is. Words and chunks come from our own lexers and patterns; a test compares them with those of
NLTK and jieba.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligncap.clues.chunks import Chunk
from aligncap.clues.vocabulary import Sense, Word, meanings
from aligncap.values import Clue

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


def kinds_of(words: Sequence[Word]) -> str:
    """A sentence as a string of kinds, one letter a word."""
    return "".join(word.kind for word in words)


def clues_in(words: Sequence[Word], chunks: Iterable[Chunk], language: str) -> list[Clue]:
    """The clues of a text, in the order of their words, each as often as it is there."""
    kinds = kinds_of(words)
    clues = []
    for found in _found(words, kinds, chunks, language):
        sense = found.sense
        degree = sense.degree * _factor(words, kinds, found.at)
        clues.append(
            Clue(
                word=found.word,
                trait=sense.trait,
                meaning=sense.meaning,
                polarity=meanings()[sense.trait, sense.meaning].polarity,
                degree=min(1.5, max(0.25, degree)),
                negated=_negated(words, kinds, found.at, REACH[language]),
            )
        )
    return clues


def _found(
    words: Sequence[Word], kinds: str, chunks: Iterable[Chunk], language: str
) -> Iterable[Found]:
    read, described = _readings(words, chunks, language)
    genders = {s.meaning for w in words for s in w.senses if s.trait == "gender"}
    for at, word in enumerate(words):
        if at in read:
            yield from read[at]
        elif word.kind in "ACH" and at not in described and not _strengthens(words, kinds, at):
            yield from (Found(at, word.text, sense) for sense in word.senses)
        elif word.gender and word.gender not in genders:
            yield Found(at, PRONOUNS.get(word.text, word.text), Sense("gender", word.gender))


def _readings(
    words: Sequence[Word], chunks: Iterable[Chunk], language: str
) -> tuple[dict[int, list[Found]], set[int]]:
    """What each adjective says of the heads its chunk gives it; the heads that are described so."""
    read: dict[int, list[Found]] = {}
    described: set[int] = set()
    for chunk in chunks:
        for at, found in _chunk(words, chunk, language):
            if at not in read:
                read[at] = found
                described.update(position for group in chunk.heads for position in group)
    return read, described


def _chunk(words: Sequence[Word], chunk: Chunk, language: str) -> list[tuple[int, list[Found]]]:
    """The adjectives of one chunk that say something of its heads.

    "A steady, low pitch" is low: what puts a trait in the middle yields to what does not.
    """
    read = [(at, _read(words, at, chunk.heads, language)) for at in chunk.adjectives]
    sided = {f.sense.trait for _, found in read for f in found if f.sense.meaning != "normal"}
    return [
        (at, [f for f in found if f.sense.meaning != "normal" or f.sense.trait not in sided])
        for at, found in read
        if found
    ]


def _read(
    words: Sequence[Word], at: int, heads: Sequence[Sequence[int]], language: str
) -> list[Found]:
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


def without_repeats(clues: Iterable[Clue]) -> list[Clue]:
    """The clues in their order; the same word for the same meaning once."""
    seen: dict[tuple[str, str, str, bool], Clue] = {}
    for clue in clues:
        seen.setdefault((clue.word, clue.trait, clue.meaning, clue.negated), clue)
    return list(seen.values())
