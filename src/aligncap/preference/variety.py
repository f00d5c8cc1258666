"""Candidates and pairs that differ in what they claim, and in how they begin.

Beams and samples of one prompt mostly say the same in other words, or say it wrongly by chance. So
the model is also asked as if it had heard something else: P_act with another emotion, the opposite
of a level, one clue less or one more (`varied_acts`). What comes out is said in the model's own
way, and differs in what it claims (`claim_set`).

Of such candidates a pair teaches what is true. It must not teach besides that captions of one kind
are the good ones: `balanced_pairs` chooses, among captions that are as good, those whose openings
have lost more often than won so far, so that no opening is preferred as such.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from random import Random

from aligncap.clues import acoustic_prompt, clue_of, find_clues, opposites
from aligncap.clues.evidence import Claim, claims_of
from aligncap.clues.vocabulary import meanings
from aligncap.preference.store import Candidate, PreferencePair
from aligncap.values import EMOTIONS, Clue

OPENING_WORDS, OPENING_CHARACTERS = 2, 3
"""What counts as a caption's opening, in English and in Chinese: so little that few claims are in
it."""

ADDED_TRAITS = ("pitch", "volume", "pace")
"""Of which a clue may be added where none is there."""

_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


def claim_set(text: str, language: str) -> frozenset[Claim]:
    """What a caption claims, whatever its words."""
    return frozenset(claims_of(find_clues(text, language)))


def opening_of(text: str, language: str) -> str:
    """How a caption begins: its first two words in lower case, or three Chinese characters."""
    if language == "zh":
        return "".join(_HAN.findall(text)[:OPENING_CHARACTERS])
    return " ".join(_WORD.findall(text.casefold())[:OPENING_WORDS])


def words_of(text: str) -> Iterator[str]:
    """The words of a text in lower case; each Chinese character is one."""
    for word in _WORD.findall(text.casefold()):
        yield from (word if _HAN.search(word) else (word,))


@dataclass(frozen=True, slots=True)
class WordList:
    """The words that captions are written with; a model that samples makes up others."""

    words: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "WordList":
        """The words of some texts."""
        return cls(frozenset(chain.from_iterable(map(words_of, texts))))

    def knows(self, text: str) -> bool:
        """Whether every word of a text is among them."""
        return self.words.issuperset(words_of(text))


def varied_acts(act: str, language: str, count: int, rng: Random) -> tuple[str, ...]:
    """P_act itself, then others of it that claim something else: `count` at most, all different.

    One clue is changed at a time, by turns: another emotion, an opposite, yet another emotion, one
    clue less, one more.
    """
    clues = tuple(find_clues(act, language))
    kinds = [list(kind(clues, language)) for kind in (_moods, _opposites, _fewer, _more)]
    for kind in kinds:
        rng.shuffle(kind)
    moods, opposite, fewer, more = kinds
    turns = chain.from_iterable(zip_longest(moods[::2], opposite, moods[1::2], fewer, more))
    found = [act, *(acoustic_prompt(one, language) for one in turns if one)]
    return tuple(dict.fromkeys(found))[:count]


Clues = tuple[Clue, ...]


def _moods(clues: Clues, language: str) -> Iterator[Clues]:
    """With each other emotion in place of the emotion, or before everything where none is there."""
    rest = tuple(one for one in clues if one.trait != "emotion")
    named = {one.meaning for one in clues if one.trait == "emotion"}
    for emotion in EMOTIONS:
        if emotion not in named:
            yield (clue_of("emotion", emotion, language=language), *rest)


def _opposites(clues: Clues, language: str) -> Iterator[Clues]:
    """With each opposite of each clue but an emotion."""
    for place, one in enumerate(clues):
        for meaning in () if one.trait == "emotion" else opposites(one.trait, one.meaning):
            other = clue_of(one.trait, meaning, language=language)
            yield (*clues[:place], other, *clues[place + 1 :])


def _fewer(clues: Clues, _: str) -> Iterator[Clues]:
    """Without each clue; a single one stays."""
    for place in range(len(clues)) if len(clues) > 1 else ():
        yield (*clues[:place], *clues[place + 1 :])


def _more(clues: Clues, language: str) -> Iterator[Clues]:
    """With a clue of a level that none is about."""
    about = {one.trait for one in clues}
    for trait, meaning in meanings():
        if trait in ADDED_TRAITS and trait not in about and meaning in SIDES:
            yield (*clues, clue_of(trait, meaning, language=language))


SIDES = ("high", "low", "loud", "quiet", "fast", "slow")


@dataclass(slots=True)
class Balance:
    """How often each opening has been chosen less how often it has been rejected."""

    won: Counter[str] = field(default_factory=Counter)

    def lead(self, pair: PreferencePair) -> int:
        """How far the openings of a pair are apart already, before it is counted."""
        return self.won[_opening(pair.chosen)] - self.won[_opening(pair.rejected)]

    def count(self, pair: PreferencePair) -> None:
        """Count a pair; two captions with one opening say nothing of it."""
        self.won[_opening(pair.chosen)] += 1
        self.won[_opening(pair.rejected)] -= 1


def _opening(one: Candidate) -> str:
    return opening_of(one.text, one.language)


def balanced_pairs(
    ranked: Sequence[Candidate],
    score_of: Callable[[Candidate], float],
    balance: Balance,
    *,
    least_margin: float,
    near: float,
) -> Iterator[PreferencePair]:
    """Of each candidate but the best a pair in which it is rejected, the clearest first.

    `ranked` are a clip's candidates, the best first. The chosen one claims something else, is at
    most `near` under the best, and better by `least_margin`; of several, the one whose opening
    leads least.
    """
    claims = {one.key: claim_set(one.text, one.language) for one in ranked}
    best = score_of(ranked[0]) if ranked else 0.0
    for other in reversed(ranked[1:]):
        pairs = [
            PreferencePair(one, other, score_of(one) - score_of(other))
            for one in ranked
            if score_of(one) >= best - near
            and score_of(one) - score_of(other) >= least_margin
            and score_of(one) > score_of(other)
            and claims[one.key] != claims[other.key]
        ]
        if pairs:  # ranked: of equal leads the best comes first
            chosen = min(pairs, key=balance.lead)
            balance.count(chosen)
            yield chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Variety:
    """How far candidates and pairs differ."""

    clips: int
    pairs: int
    emotions: float
    """Different emotions that the candidates of a clip name, on average."""
    claims: float
    """Different sets of claims among the candidates of a clip, on average."""
    differing: float
    """Share of the pairs whose captions claim different things; 0 of no pairs."""
    openings: int
    """Different openings among the candidates."""
    commonest: float
    """Share of the chosen captions that begin with the commonest opening among them."""
    lead: float
    """How much more often one opening was chosen than rejected, at most, as a share of the pairs:
    what the pairs teach about openings."""

    def __str__(self) -> str:
        return (
            f"{self.differing:.0%} of {self.pairs} pairs differ in what they claim; a clip's "
            f"candidates name {self.emotions:.1f} emotions and make {self.claims:.1f} sets of "
            f"claims; {self.openings} openings, the commonest in {self.commonest:.0%} of what is "
            f"chosen, none more than {self.lead:.0%} oftener chosen than rejected"
        )


def variety_of(groups: Iterable[Sequence[Candidate]], pairs: Sequence[PreferencePair]) -> Variety:
    """The variety of the candidates of each clip, and of the pairs made of them."""
    emotions: list[int] = []
    claims: list[int] = []
    openings: set[str] = set()
    for group in groups:
        sets = {claim_set(one.text, one.language) for one in group}
        named = {m for one in sets for trait, m, denied in one if trait == "emotion" and not denied}
        emotions.append(len(named))
        claims.append(len(sets))
        openings |= {_opening(one) for one in group}
    balance = Balance()
    for pair in pairs:
        balance.count(pair)
    differing = sum(
        claim_set(one.chosen.text, one.language) != claim_set(one.rejected.text, one.language)
        for one in pairs
    )
    chosen = Counter(_opening(one.chosen) for one in pairs)
    total = max(1, len(pairs))
    return Variety(
        clips=len(emotions),
        pairs=len(pairs),
        emotions=sum(emotions) / max(1, len(emotions)),
        claims=sum(claims) / max(1, len(claims)),
        differing=differing / total,
        openings=len(openings),
        commonest=max(chosen.values(), default=0) / total,
        lead=max(balance.won.values(), default=0) / total,
    )
