"""Claims and their verdicts: the one definition that the metrics and the judges share.

A claim is what a clue says whatever its word or language: a trait, a meaning, and whether it is
denied ("not loud" is not "loud"). A caption makes each claim once. `check_by_references` holds a
claim against what people's captions claim; `ClipKnowledge` asks the corpus' labels first, then the
measured signal, then the references.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from aligncap.clues.evidence import judge, measured_clues
from aligncap.clues.grammar import find_clues
from aligncap.clues.vocabulary import opposites, read_table
from aligncap.storage import canonical_json, hash_of
from aligncap.values import EMOTIONS, Clue, Facts, Verdict

Claim = tuple[str, str, bool]
"""Trait, meaning, and whether it is denied."""


class ClaimStatus(StrEnum):
    """The verdict on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNSUPPORTED = "unsupported"
    """References describe the clip, and none of them makes the claim."""
    UNVERIFIABLE = "unverifiable"
    """There is nothing to check the claim against."""


def claim_of(clue: Clue) -> Claim:
    """The claim that a clue makes."""
    return (clue.trait, clue.meaning, clue.negated)


def claims_of(clues: Iterable[Clue]) -> dict[Claim, Clue]:
    """Each claim of some clues once, in their order, with the first clue that makes it."""
    found: dict[Claim, Clue] = {}
    for clue in clues:
        found.setdefault(claim_of(clue), clue)
    return found


def without_composure(claims: Mapping[Claim, Clue]) -> dict[Claim, Clue]:
    """The claims less a "calm" that accompanies an emotion: it says how the emotion is borne."""
    calm = ("emotion", "neutral")
    moved = any(
        trait == "emotion" and meaning != "neutral" and not denied
        for trait, meaning, denied in claims
    )
    return {claim: one for claim, one in claims.items() if not (moved and claim[:2] == calm)}


def check_by_references(claim: Claim, references: Collection[Claim]) -> tuple[ClaimStatus, str]:
    """The verdict of `references`, claims of people's captions, on another's claim, and why.

    What one reference claims is supported whatever another says. Meanings that cannot hold
    together contradict each other ("slow" and "fast", one emotion and any other); denying one of
    them is implied by affirming the other ("not loud" where a reference says "quiet").
    """
    trait, meaning, denied = claim
    excluded = EMOTIONS if trait == "emotion" else opposites(trait, meaning)
    rivals = (
        one for one in sorted(excluded) if one != meaning and (trait, one, False) in references
    )
    rival = next(rivals, None)
    if claim in references:
        return ClaimStatus.SUPPORTED, "a reference says so"
    if rival is not None:
        status = ClaimStatus.SUPPORTED if denied else ClaimStatus.CONTRADICTED
        return status, f"a reference says {rival}"
    if (trait, meaning, not denied) in references:
        reason = "a reference says so" if denied else "a reference denies it"
        return ClaimStatus.CONTRADICTED, reason
    if any(not negated for _, _, negated in references):
        return ClaimStatus.UNSUPPORTED, "no reference says so"
    return ClaimStatus.UNVERIFIABLE, "no reference says anything"


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A clue and the verdict on its claim."""

    clue: Clue
    status: ClaimStatus
    reason: str
    """In words: "pace 6.1 syllables/s (slow to 3.8, fast from 5.5)"."""


@dataclass(frozen=True, slots=True)
class ClipKnowledge:
    """What claims about a clip are checked against: labels before signal before references."""

    facts: Facts | None
    """What the signal shows; None where it was not measured."""
    labels: Mapping[str, str]
    """Trait → meaning, as the corpus has it."""
    references: frozenset[Claim]
    """What people's captions claim, whatever their language."""

    @classmethod
    def of(
        cls,
        facts: Facts | None,
        *,
        emotion: str | None = None,
        gender: str | None = None,
        captions: Mapping[str, Iterable[str]] = MappingProxyType({}),
    ) -> "ClipKnowledge":
        """Knowledge from facts, labels and people's captions by language."""
        labels = {"emotion": emotion, "gender": gender}
        claims = (
            without_composure(claims_of(find_clues(text, language)))
            for language, texts in captions.items()
            for text in texts
        )
        return cls(
            facts,
            MappingProxyType({trait: label for trait, label in labels.items() if label}),
            frozenset().union(*claims),
        )

    def claims(self) -> tuple[tuple[str, str], ...]:
        """Trait and meaning of all there is to say: labels, what the signal clearly shows, and
        what people say besides.

        A labelled gender is left out where the signal was measured and shows none.
        """
        shown = measured_clues(self.facts) if self.facts else ()
        found = [
            (trait, meaning)
            for trait, meaning in self.labels.items()
            if trait != "gender" or self.facts is None or any(c.trait == trait for c in shown)
        ]
        found += [(clue.trait, clue.meaning) for clue in shown if clue.trait not in self.labels]
        found += [
            (trait, meaning)
            for trait, meaning, denied in sorted(self.references)
            if not denied
            and self.check(Clue(meaning, trait, meaning)).status is ClaimStatus.SUPPORTED
        ]
        return tuple(dict.fromkeys(found))

    def check(self, clue: Clue) -> CheckedClaim:
        """The verdict on a clue's claim, by the first source that can tell."""
        label = self.labels.get(clue.trait)
        if label is not None:
            right = (label == clue.meaning) is not clue.negated
            status = ClaimStatus.SUPPORTED if right else ClaimStatus.CONTRADICTED
            return CheckedClaim(clue, status, f"the clip is labelled {label}")
        measured = "the clip was not measured"
        if self.facts is not None:
            (evidence,) = judge([clue], self.facts)
            measured = evidence.measurement
            if evidence.verdict is not Verdict.CANNOT_TELL:
                return CheckedClaim(clue, ClaimStatus(evidence.verdict.value), measured)
        status, reason = check_by_references(claim_of(clue), self.references)
        unverifiable = status is ClaimStatus.UNVERIFIABLE
        return CheckedClaim(clue, status, measured if unverifiable else reason)


RULES_VERSION = 1
"""Of grammar, thresholds and verdicts; to be raised with a change of any verdict."""

_EARLIER = MappingProxyType({"fcd3566d184b": "21cf1f2f9119"})
"""Fingerprint → the one that earlier releases gave the same vocabulary and rules, hashing their
source: what was judged under it stays valid."""


@cache
def claims_fingerprint() -> str:
    """Twelve digits that change with the vocabulary or `RULES_VERSION`: what verdicts depend on."""
    tables = {name: read_table(name) for name in ("meanings.toml", "en.toml", "zh.toml")}
    found = hash_of(canonical_json([RULES_VERSION, tables]))[:12]
    return _EARLIER.get(found, found)
