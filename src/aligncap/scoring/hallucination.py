"""Hallucination: what captions claim that the references, or the signal, do not bear out.

Against the references a claim is *contradicted* where one of them says the opposite, or denies it,
and none says the same; it is *invented* where none speaks of that meaning at all. Against the
signal a claim is contradicted where `clues.judge` says so. Each rate is over claims of all clips
and can be asked for by trait: "hallucination/pitch", "hallucination-signal/voice-quality".
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from aligncap.clues import judge, opposites
from aligncap.scoring.findings import Claim, Findings
from aligncap.scoring.table import HALLUCINATIONS, MetricOptions
from aligncap.scoring.values import Floats, ScoredClip, Statistics
from aligncap.values import Evidence, Verdict


class Standing(StrEnum):
    """What the references say of a claim."""

    FOUND = "found"
    CONTRADICTED = "contradicted"
    INVENTED = "invented"


def standing(claim: Claim, said: Collection[Claim]) -> Standing:
    """What references that make the claims `said` say of another's claim.

    To deny what they affirm the opposite of is to say the same: "not loud" beside "quiet".
    """
    trait, meaning, denied = claim
    against = any((trait, opposite, False) in said for opposite in opposites(trait, meaning))
    if claim in said or (denied and against):
        return Standing.FOUND
    if (trait, meaning, not denied) in said or against:
        return Standing.CONTRADICTED
    return Standing.INVENTED


def rate(sums: Floats) -> Floats:
    """Share of claims that are wrong; sums of (claims, wrong), shape [..., 2] → [...].

    0 where nothing is claimed: who says nothing invents nothing.
    """
    return np.nan_to_num(rate_of_trait(sums))


def rate_of_trait(sums: Floats) -> Floats:
    """As `rate`, but NaN where nothing is claimed: that trait is not spoken of."""
    claims, wrong = np.moveaxis(sums, -1, 0)
    return np.where(claims > 0, wrong / np.maximum(claims, 1), np.nan)


@dataclass(frozen=True, slots=True)
class AgainstReferences:
    """Claims that are contradicted or invented, over claims."""

    name: str
    traits: Sequence[str]
    value_of: Callable[[Floats], Floats]
    language: str
    findings: Findings

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:contradicted+invented|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        return Statistics(np.array([self._row(clip) for clip in clips], np.float64), self.value_of)

    def _row(self, clip: ScoredClip) -> tuple[int, int]:
        said = self.findings.said(clip.references, self.language).keys()
        made = self.findings.claims(clip.hypothesis, self.language)
        own = [standing(claim, said) for claim in made if claim[0] in self.traits]
        return len(own), sum(one is not Standing.FOUND for one in own)


@dataclass(frozen=True, slots=True)
class AgainstSignal:
    """Claims that the recording contradicts, over claims of traits that can be measured.

    What the signal cannot tell counts as a claim that is not contradicted.
    """

    name: str
    traits: Sequence[str]
    value_of: Callable[[Floats], Floats]
    language: str
    findings: Findings

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:contradicted|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`; DataError where a clip names no recording."""
        return Statistics(np.array([self._row(clip) for clip in clips], np.float64), self.value_of)

    def _row(self, clip: ScoredClip) -> tuple[int, int]:
        everything = heard(clip, self.language, self.findings)
        own = [one for one in everything if one.clue.trait in self.traits]
        return len(own), sum(one.verdict is Verdict.CONTRADICTED for one in own)


def heard(clip: ScoredClip, language: str, findings: Findings) -> tuple[Evidence, ...]:
    """Each claim of a hypothesis beside what its recording shows."""
    made = findings.claims(clip.hypothesis, language)
    return judge(made.values(), findings.facts(clip))


def open_metric(name: str, options: MetricOptions) -> AgainstReferences | AgainstSignal:
    """`hallucination` or `hallucination-signal`, or one of them by trait."""
    whole, _, part = name.partition("/")
    traits = [
        trait for trait in HALLUCINATIONS[whole] if not part or trait == part.replace("-", " ")
    ]
    kind = AgainstSignal if whole == "hallucination-signal" else AgainstReferences
    value_of = rate_of_trait if part else rate
    return kind(name, traits, value_of, options.language, options.findings)
