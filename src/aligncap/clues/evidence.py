"""Evidence for clues: verdicts by the scales of measured facts, the clues the facts support; and
claims with their verdicts, the one definition that the metrics and the judges share.

The readout of a speech tokenizer's heads is a second source of clues: each head's weight vector
stands for a clue word and the likeliest is taken (an argmax, "heard" of decision 5).

A claim is what a clue says whatever its word or language: a trait, a meaning, and whether it is
denied ("not loud" is not "loud"). A caption makes each claim once. `check_by_references` holds a
claim against what people's captions claim; `ClipKnowledge` asks the corpus' labels first, then the
measured signal, then the references.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from aligncap.clues.emotion import Readout, heard_emotion
from aligncap.clues.grammar import find_clues
from aligncap.clues.scales import (
    FORMER,
    GENDER,
    HARMONICITY,
    INTONATION_RANGE,
    INTONATION_SLOPE,
    JITTER,
    PACE,
    PAUSES,
    PITCH,
    SCALES,
    SLOPES,
    TILT,
    VOLUME,
    VOLUME_RANGE,
    VOLUME_SLOPE,
    Scale,
    measurement,
    relative,
)
from aligncap.clues.vocabulary import clue_of, opposites, read_table
from aligncap.errors import DataError
from aligncap.prosody.heard import is_taught_pace
from aligncap.prosody.measurement import NUCLEI_CONFIDENCE
from aligncap.storage import canonical_json, hash_of
from aligncap.values import EMOTIONS, Clue, Evidence, Fact, Facts, Verdict

CLAIM_CONFIDENCE = 0.5
"""The confidence of a fact from which on it is put into words unasked."""

JUDGE_CONFIDENCE = 0.3
"""The confidence of a fact from which on it speaks for or against a claim."""


UNMEASURED = {
    "emotion": "an emotion is heard, not measured",
    "tone": "no measurement stands for this tone",
    "voice quality": "no measurement stands for this voice quality",
}
"""Why no fact bears on a clue, by trait."""


@dataclass(frozen=True, slots=True)
class Levels:
    """What each measurement amounts to as a meaning; None where it is not clearly shown."""

    gender: str | None
    pitch: str | None
    loudness: str | None
    pace: str | None
    pitch_movement: str | None
    """rising, falling, or None."""
    pitch_range: str | None
    """flat, varied, or None."""
    loudness_movement: str | None
    """swelling, fading, or None."""
    loudness_range: str | None
    """dynamic, steady, or None."""
    pauses: str | None
    """halting, fluent, or None."""
    clearness: str | None
    """clear, hoarse, or None."""
    brightness: str | None
    """bright, dull, or None."""
    steadiness: str | None
    """trembling, steady, or None."""


def levels(facts: Facts) -> Levels:
    """The meanings that the facts clearly support, one for each scale."""
    return Levels(
        gender=_claimed(GENDER, facts),
        pitch=_claimed(PITCH, facts),
        loudness=_claimed(VOLUME, facts),
        pace=_claimed(PACE, facts),
        pitch_movement=_claimed(INTONATION_SLOPE, facts),
        pitch_range=_claimed(INTONATION_RANGE, facts),
        loudness_movement=_claimed(VOLUME_SLOPE, facts),
        loudness_range=_claimed(VOLUME_RANGE, facts),
        pauses=_claimed(PAUSES, facts),
        clearness=_claimed(HARMONICITY, facts),
        brightness=_claimed(TILT, facts),
        steadiness=_claimed(JITTER, facts),
    )


def measured_clues(facts: Facts) -> tuple[Clue, ...]:
    """The clues that the signal itself supports, the levels first, each in its usual English word.

    Each of them is judged "supported" on the same facts, and no two of them are opposites. The
    middle of a scale is none of them: listeners do not remark on it.
    """
    claimed = [(scale, _claimed(scale, facts)) for scale in SCALES]
    return _clues_of((s, meaning) for s, meaning in claimed if meaning != s.neutral_meaning)


def former_clues(facts: Facts) -> tuple[Clue, ...]:
    """As `measured_clues`, by the steps that models with an encoder of the first kind were taught
    (`scales.FORMER`), with the middle of a scale and the pace by syllable nuclei."""
    found = []
    for scale in SCALES:
        known = relative(scale, facts) is scale
        former = FORMER.get(scale.fact, scale) if known else scale
        sure = NUCLEI_CONFIDENCE if scale is PACE and known else 1.0
        found.append((scale, _claimed(former, facts, least=CLAIM_CONFIDENCE * sure)))
    return _clues_of(found)


def _clues_of(found: Iterable[tuple[Scale, str | None]]) -> tuple[Clue, ...]:
    claimed = list(found)
    slopes = {scale.trait for scale, meaning in claimed if meaning and scale in SLOPES}
    return tuple(
        clue_of(scale.trait, meaning)
        for scale, meaning in claimed
        # "Steady, growing louder" would be heard as a contradiction: the slope says more.
        if meaning and not (meaning in ("steady", "flat") and scale.trait in slopes)
    )


def judge(clues: Iterable[Clue], facts: Facts) -> tuple[Evidence, ...]:
    """Each clue beside the measurement that bears on it, in the order of the clues.

    A plain claim is contradicted by the other side only; an emphatic one ("very loud") by the
    middle as well. A negated claim is judged by the claim it denies. What no fact bears on cannot
    be told.
    """
    return tuple(_judge(clue, facts) for clue in clues)


def _judge(clue: Clue, facts: Facts) -> Evidence:
    if clue.negated:
        evidence = _judge(replace(clue, negated=False), facts)
        return Evidence(clue, _DENIED[evidence.verdict], evidence.measurement)
    scale = _scale_of(clue, facts)
    if scale is None:
        reason = UNMEASURED.get(clue.trait, f"no measurement stands for {clue.trait}")
        return Evidence(clue, Verdict.CANNOT_TELL, reason)
    fact = facts.by_name.get(scale.fact)
    reason = _unusable(scale, fact, facts, least=JUDGE_CONFIDENCE)
    if reason or fact is None or fact.value is None:
        return Evidence(clue, Verdict.CANNOT_TELL, reason)
    return Evidence(clue, _verdict(clue, scale, fact), measurement(scale, fact, facts))


_DENIED = {
    Verdict.SUPPORTED: Verdict.CONTRADICTED,
    Verdict.CONTRADICTED: Verdict.SUPPORTED,
    Verdict.CANNOT_TELL: Verdict.CANNOT_TELL,
}


def _scale_of(clue: Clue, facts: Facts) -> Scale | None:
    for scale in SCALES:
        names = (scale.low_meaning, scale.neutral_meaning, scale.high_meaning)
        if clue.trait == scale.trait and clue.meaning in names and clue.meaning:
            return relative(scale, facts)
    return None


def _verdict(clue: Clue, scale: Scale, fact: Fact) -> Verdict:
    value = fact.value
    assert value is not None, "a fact without a value is never judged"
    emphatic, middle = clue.degree > 1, sum(scale.neutral) / 2
    if clue.meaning == scale.neutral_meaning:
        supported = scale.neutral[0] <= value <= scale.neutral[1]
        against = not scale.low - scale.margin < value < scale.high + scale.margin
    elif clue.meaning == scale.high_meaning:
        supported = value >= scale.high
        against = value <= (max(scale.against_high, middle) if emphatic else scale.against_high)
    else:
        supported = value <= scale.low
        against = value >= (min(scale.against_low, middle) if emphatic else scale.against_low)
    if supported:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if against else Verdict.CANNOT_TELL


def _claimed(scale: Scale, facts: Facts, *, least: float = CLAIM_CONFIDENCE) -> str | None:
    scale = relative(scale, facts)
    fact = facts.by_name.get(scale.fact)
    if _unusable(scale, fact, facts, least=least) or fact is None or fact.value is None:
        return None
    if fact.value <= scale.low:
        return scale.low_meaning or None
    if fact.value >= scale.high:
        return scale.high_meaning or None
    if scale.neutral[0] <= fact.value <= scale.neutral[1]:
        return scale.neutral_meaning or None
    return None


def _unusable(scale: Scale, fact: Fact | None, facts: Facts, *, least: float) -> str:
    """Why a fact cannot speak for or against anything; "" if it can."""
    if fact is None:
        return f"{scale.name} was not measured"
    if fact.value is None:
        return f"{scale.name}: {fact.reason}"
    if facts.speech_s < scale.shortest_s:
        return f"{scale.name}: only {facts.speech_s:.1f} s of speech"
    if fact.confidence < least:
        return f"{scale.name} measured with little confidence ({fact.confidence:.2f})"
    return ""


SURE = 0.95
"""Probability from which on a gender is stated."""
_LEAST_DOUBT = 0.01
"""Bounds the probability of each source."""


def audible_gender(readout: Readout, facts: Facts) -> str | None:
    """The gender that heads and measured voice together are sure of, or None.

    Taken as independent, their log-odds add up; where one is missing, the other decides alone.
    """
    odds = _female_log_odds(readout, facts)
    if abs(odds) < _log_odds(SURE):
        return None
    return "female" if odds > 0 else "male"


def heard_facts(readout: Readout, facts: Facts) -> Facts:
    """The facts with the probability of a woman's voice that heads and measured voice give
    together, where there are heads: what a stated gender is judged by."""
    if "female" not in readout.get("gender", {}):
        return facts
    probability = 1 / (1 + math.exp(-_female_log_odds(readout, facts)))
    measured = facts.by_name.get("female_probability")
    heard_alone = measured is None or measured.value is None
    source = "by the encoder" if heard_alone else "by encoder and signal"
    joint = Fact("female_probability", probability, source, 1.0)
    return replace(facts, by_name=MappingProxyType({**facts.by_name, joint.name: joint}))


def _female_log_odds(readout: Readout, facts: Facts) -> float:
    """Of a woman's voice, by heads and measured voice taken as independent."""
    fact = facts.by_name.get("female_probability")
    probabilities = [readout.get("gender", {}).get("female"), fact.value if fact else None]
    return sum(_log_odds(chance) for chance in probabilities if chance is not None)


def shown_gender(facts: Facts) -> str | None:
    """The gender that evidence would support; None where it cannot tell."""
    stated = (clue_of("gender", meaning) for meaning in ("female", "male"))
    found = (one.clue.meaning for one in judge(stated, facts) if one.verdict is Verdict.SUPPORTED)
    return next(found, None)


def signal_clues(readout: Readout, facts: Facts) -> tuple[Clue, ...]:
    """What P_act says of the signal: to models with an encoder of the first kind, whose head counts
    syllable nuclei, by the steps that they were taught."""
    of_the_first_kind = "pace" in readout and not is_taught_pace(readout)
    return former_clues(facts) if of_the_first_kind else measured_clues(facts)


def audible_clues(readout: Readout, facts: Facts, emotion: Clue | None = None) -> tuple[Clue, ...]:
    """The emotion and a gender that can be told, then what the signal supports.

    Without an `emotion` in its own words (`heard_clue`) the readout's likeliest is stated outright.
    The order is that of a caption's gold clues.
    """
    clues = []
    emotions = readout.get("emotion", {})
    if emotion is None and emotions:
        emotion = clue_of("emotion", heard_emotion(emotions).first)
    if emotion is not None:
        clues.append(emotion)
    gender = audible_gender(readout, facts)
    if gender is not None:
        clues.append(clue_of("gender", gender))
    shown = (clue for clue in signal_clues(readout, facts) if clue.trait != "gender")
    return (*clues, *shown)


RETRIEVED = 4
"""Clue words of P_act = "retrieved", at most."""


def retrieved_clues(readout: Readout, most: int = RETRIEVED) -> tuple[Clue, ...]:
    """The clue words that are nearest to a clip in a joint speech-text space, one of each trait, as
    a tokenizer with such a space reads them; DataError where it has none."""
    cosines = readout.get("clues")
    if not cosines:
        raise DataError(
            "act mode retrieved: the speech tokenizer has no clue words; name the folder `encoder` "
            "of a run of kind 'joint' as the tokenizer's weights"
        )
    found: dict[str, Clue] = {}
    for name in sorted(cosines, key=lambda one: -cosines[one]):
        trait, _, meaning = name.partition(":")
        if len(found) < most:
            found.setdefault(trait, clue_of(trait, meaning))
    return tuple(found.values())


def _log_odds(chance: float) -> float:
    chance = min(max(chance, _LEAST_DOUBT), 1 - _LEAST_DOUBT)
    return math.log(chance / (1 - chance))


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


def claims_of(clues: Iterable[Clue], *, alternatives: bool = False) -> dict[Claim, Clue]:
    """Each claim of some clues once, in their order, with the first clue that makes it.

    "Sad or angry" claims the first; with `alternatives`, what it might be as well counts too.
    """
    found: dict[Claim, Clue] = {}
    for clue in clues:
        if alternatives or not clue.alternative:
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
            without_composure(claims_of(find_clues(text, language), alternatives=True))
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


RULES_VERSION = 4
"""Of grammar, thresholds and verdicts; to be raised with a change of any verdict."""


@cache
def claims_fingerprint() -> str:
    """Twelve digits that change with the vocabulary or `RULES_VERSION`: what verdicts depend on."""
    tables = {name: read_table(name) for name in ("meanings.toml", "en.toml", "zh.toml")}
    return hash_of(canonical_json([RULES_VERSION, tables]))[:12]
