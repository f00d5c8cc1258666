"""Evidence: what the measured facts say of each clue, and which clues they support unasked."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aligncap.clues.thresholds import (
    CLAIM_CONFIDENCE,
    GENDER,
    HARMONICITY,
    INTONATION_RANGE,
    INTONATION_SLOPE,
    JITTER,
    JUDGE_CONFIDENCE,
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
)
from aligncap.clues.vocabulary import clue_of
from aligncap.values import Clue, Evidence, Fact, Facts, Verdict

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
    """The meanings that the facts clearly support, one for each scale of `thresholds`."""
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

    Each of them is judged "supported" on the same facts, and no two of them are opposites.
    """
    claimed = [(scale, _claimed(scale, facts)) for scale in SCALES]
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
    scale = _scale_of(clue)
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


def _scale_of(clue: Clue) -> Scale | None:
    for scale in SCALES:
        names = (scale.low_meaning, scale.neutral_meaning, scale.high_meaning)
        if clue.trait == scale.trait and clue.meaning in names and clue.meaning:
            return scale
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


def _claimed(scale: Scale, facts: Facts) -> str | None:
    fact = facts.by_name.get(scale.fact)
    if _unusable(scale, fact, facts, least=CLAIM_CONFIDENCE) or fact is None or fact.value is None:
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


def measurement(scale: Scale, fact: Fact, facts: Facts) -> str:
    """A fact in words and units beside its yardstick: "pace 6.1 syllables/s (slow to 3.8, …)"."""
    value = fact.value
    assert value is not None, "a fact without a value has no measurement"
    sides = f"({scale.low_meaning} to {scale.low:g}, {scale.high_meaning} from {scale.high:g})"
    median = facts.by_name.get("pitch_median_hz")
    if scale is PITCH and median is not None and median.value is not None:
        side = "above" if value >= 0 else "below"
        expected = median.value / 2 ** (value / 12)
        return (
            f"median pitch {median.value:.0f} Hz, {abs(value):.1f} st {side} the expected"
            f" {expected:.0f} Hz {sides}"
        )
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 1 else 1
    return " ".join(
        filter(None, (scale.name, f"{value:.{digits}f}", scale.unit or fact.unit, sides))
    )
