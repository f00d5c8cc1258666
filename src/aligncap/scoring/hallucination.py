"""Hallucination: what captions claim that the references, or the signal, do not bear out.

Against the references a claim is *contradicted* where one of them says the opposite, or denies it,
and none says the same; it is *invented* where none speaks of that meaning at all. Against the
signal a claim is contradicted where `clues.judge` says so. Each rate is over claims of all clips
and can be asked for by trait: "hallucination/pitch", "hallucination-signal/voice-quality".
"""

from collections.abc import Callable, Collection, Iterable, Sequence
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


Judged = Iterable[tuple[str, bool]]
"""The trait of each claim, and whether the claim is wrong."""


@dataclass(frozen=True, slots=True)
class Hallucination:
    """Claims that are wrong, over claims, of some traits."""

    name: str
    wrong: str
    """What counts as wrong, for the variant."""
    judged: Callable[[ScoredClip, str, Findings], Judged]
    """The claims of a clip's hypothesis in a language."""
    traits: Sequence[str]
    value_of: Callable[[Floats], Floats]
    language: str
    findings: Findings

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:{self.wrong}|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`; DataError where the signal is asked and a clip names no recording."""
        return Statistics(np.array([self._row(clip) for clip in clips], np.float64), self.value_of)

    def _row(self, clip: ScoredClip) -> tuple[int, int]:
        judged = self.judged(clip, self.language, self.findings)
        wrong = [is_wrong for trait, is_wrong in judged if trait in self.traits]
        return len(wrong), sum(wrong)


def against_references(clip: ScoredClip, language: str, findings: Findings) -> Judged:
    """Claims are wrong that are contradicted or invented."""
    said = findings.said(clip.references, language).keys()
    for claim in findings.claims(clip.hypothesis, language):
        yield claim[0], standing(claim, said) is not Standing.FOUND


def against_signal(clip: ScoredClip, language: str, findings: Findings) -> Judged:
    """Claims are wrong that the recording contradicts; one it cannot tell of is not."""
    for one in heard(clip, language, findings):
        yield one.clue.trait, one.verdict is Verdict.CONTRADICTED


def heard(clip: ScoredClip, language: str, findings: Findings) -> tuple[Evidence, ...]:
    """Each claim of a hypothesis beside what its recording shows."""
    made = findings.claims(clip.hypothesis, language)
    return judge(made.values(), findings.facts(clip))


def open_metric(name: str, options: MetricOptions) -> Hallucination:
    """`hallucination` or `hallucination-signal`, or one of them by trait."""
    whole, _, part = name.partition("/")
    traits = [
        trait for trait in HALLUCINATIONS[whole] if not part or trait == part.replace("-", " ")
    ]
    signal = whole == "hallucination-signal"
    return Hallucination(
        name=name,
        wrong="contradicted" if signal else "contradicted+invented",
        judged=against_signal if signal else against_references,
        traits=traits,
        value_of=rate_of_trait if part else rate,
        language=options.language,
        findings=options.findings,
    )
