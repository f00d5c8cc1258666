"""What is known of a clip, and what it says of a claim: labels first, then signal, then people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from aligncap.clues import find_clues, judge, measured_clues, opposites
from aligncap.preference.values import Clip
from aligncap.values import Clue, Facts, Verdict

Claim = tuple[str, str]
"""Trait and meaning."""


class Standing(StrEnum):
    """What is known says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INVENTED = "invented"
    """People have captioned the clip, and none of them says so."""
    UNTOLD = "untold"
    """There is nothing to hold it against."""


_DENIED = {
    Standing.SUPPORTED: Standing.CONTRADICTED,
    Standing.CONTRADICTED: Standing.SUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A clue held against what is known."""

    clue: Clue
    standing: Standing
    reason: str
    """In words: "pace 6.1 syllables/s (slow to 3.8, fast from 5.5)"."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a clip."""

    facts: Facts | None
    labels: Mapping[str, str]
    """Trait → meaning, as the corpus has it."""
    told: frozenset[Claim]
    """What people's captions claim."""

    @classmethod
    def of(cls, clip: Clip) -> "Known":
        """What labels, signal and references say; a claim is the same in each language."""
        labels = {"emotion": clip.emotion, "gender": clip.gender}
        told = (
            (clue.trait, clue.meaning)
            for language, texts in clip.references.items()
            for text in texts
            for clue in plain_clues(find_clues(text, language))
            if not clue.negated
        )
        held = MappingProxyType({trait: one for trait, one in labels.items() if one})
        return cls(clip.facts, held, frozenset(told))

    def claims(self) -> tuple[Claim, ...]:
        """What there is to say: labels, what the signal clearly shows, what people say besides.

        A labelled gender is left out where the signal was measured and shows none.
        """
        shown = measured_clues(self.facts) if self.facts else ()
        heard = {clue.trait for clue in shown}
        found = [
            (trait, meaning)
            for trait, meaning in self.labels.items()
            if trait != "gender" or self.facts is None or "gender" in heard
        ]
        found += [(clue.trait, clue.meaning) for clue in shown if clue.trait not in self.labels]
        told = (Clue(meaning, trait, meaning) for trait, meaning in sorted(self.told))
        found += [
            (clue.trait, clue.meaning)
            for clue in told
            if self.hold(clue).standing is Standing.SUPPORTED
        ]
        return tuple(dict.fromkeys(found))

    def hold(self, clue: Clue) -> Held:
        """A clue against it; a denied one by what it denies."""
        if clue.negated:
            plain = self.hold(replace(clue, negated=False))
            return Held(clue, _DENIED.get(plain.standing, plain.standing), plain.reason)
        label = self.labels.get(clue.trait)
        if label is not None:
            right = Standing.SUPPORTED if label == clue.meaning else Standing.CONTRADICTED
            return Held(clue, right, f"the clip is labelled {label}")
        (evidence,) = judge([clue], self.facts) if self.facts else (None,)
        if evidence is not None and evidence.verdict is not Verdict.CANNOT_TELL:
            return Held(clue, Standing(evidence.verdict.value), evidence.measurement)
        measured = evidence.measurement if evidence else "the clip was not measured"
        return self._by_people(clue, measured)

    def _by_people(self, clue: Clue, measured: str) -> Held:
        if (clue.trait, clue.meaning) in self.told:
            return Held(clue, Standing.SUPPORTED, "a reference says so")
        others = opposites(clue.trait, clue.meaning)
        against = sorted(
            meaning
            for trait, meaning in self.told
            # One emotion is no other, though few are opposites.
            if trait == clue.trait and (trait == "emotion" or meaning in others)
        )
        if against:
            return Held(clue, Standing.CONTRADICTED, f"a reference says {against[0]}")
        if self.told:
            return Held(clue, Standing.INVENTED, "no reference says so")
        return Held(clue, Standing.UNTOLD, measured)


def plain_clues(clues: Iterable[Clue]) -> list[Clue]:
    """Each claim once; "calm" beside an emotion is none, it says how the emotion is borne."""
    once: dict[tuple[str, str, bool], Clue] = {}
    for one in clues:
        once.setdefault((one.trait, one.meaning, one.negated), one)
    found = list(once.values())
    moved = any(
        one.trait == "emotion" and one.meaning != "neutral" and not one.negated for one in found
    )
    return [
        one for one in found if not (moved and (one.trait, one.meaning) == ("emotion", "neutral"))
    ]
