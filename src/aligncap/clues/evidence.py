"""Evidence for clues: thresholds on the measured facts, verdicts, the clues the facts support; and
claims with their verdicts, the one definition that the metrics and the judges share.

A scale runs over one fact. Between its two clear sides lies a neutral zone, and between zone and
side a gap in which nothing is claimed:

    low ≤ `low` < gap < `neutral` from … to > gap > `high` ≤ high
         contradicts "high" at ≤ `against_high`     contradicts "low" at ≥ `against_low`

`low < against_high ≤ against_low < high` keeps a claim from being supported and contradicted at
once. The numbers are percentiles of the facts of the training corpora: captions are written and
judged by the same ones, so a change asks for new captions. Loudness also depends on the recording
level, and jitter is a weak proxy of trembling.

The readout of a speech tokenizer's heads is a second source of clues: each head's weight vector
stands for a clue word (retrieval in a joint speech-text space, decision 5).

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

from aligncap.clues.grammar import find_clues
from aligncap.clues.vocabulary import clue_of, opposites, read_table
from aligncap.errors import DataError
from aligncap.storage import canonical_json, hash_of
from aligncap.values import EMOTIONS, Clue, Evidence, Fact, Facts, Verdict

CLAIM_CONFIDENCE = 0.5
"""The confidence of a fact from which on it is put into words unasked."""

JUDGE_CONFIDENCE = 0.3
"""The confidence of a fact from which on it speaks for or against a claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A fact that runs from one meaning over a neutral one to another; "" where no word is."""

    trait: str
    fact: str
    low_meaning: str
    neutral_meaning: str
    high_meaning: str
    low: float
    """At or below it, the low meaning is claimed."""
    against_high: float
    """At or below it, the high meaning is contradicted."""
    neutral: tuple[float, float]
    """Within it, the neutral meaning is claimed."""
    against_low: float
    """At or above it, the low meaning is contradicted."""
    high: float
    """At or above it, the high meaning is claimed."""
    name: str
    """The fact in words, for the user."""
    unit: str = ""
    """The unit in words, where the fact's own is a sign only."""
    margin: float = 0.0
    """How far beyond `low` or `high` the neutral meaning is contradicted."""
    shortest_s: float = 0.0
    """Speech shorter than this is not judged: a movement takes its time."""

    def __post_init__(self) -> None:
        steps = (self.low, self.neutral[0], self.neutral[1], self.high)
        ordered = steps[0] < steps[1] <= steps[2] < steps[3] and self.margin >= 0
        if not (ordered and self.low < self.against_high and self.against_low < self.high):
            raise DataError(f"{self.trait} by {self.fact}: thresholds are out of order")
        if not self.against_high <= self.against_low:
            raise DataError(f"{self.trait} by {self.fact}: both sides contradicted at once")


PITCH = Scale(
    trait="pitch", fact="pitch_offset_st", name="median pitch",
    low_meaning="low", neutral_meaning="normal", high_meaning="high",
    low=-3.0, against_high=-0.5, neutral=(-0.5, 3.5), against_low=3.0, high=5.0, margin=1.0,
)  # fmt: skip
VOLUME = Scale(
    trait="volume", fact="loudness_db", name="loudness",
    low_meaning="quiet", neutral_meaning="normal", high_meaning="loud",
    low=-30.0, against_high=-27.5, neutral=(-27.0, -22.0), against_low=-22.0, high=-19.5,
    margin=2.0,
)  # fmt: skip
PACE = Scale(
    trait="pace", fact="pace_syllables_per_s", name="pace", unit="syllables/s",
    low_meaning="slow", neutral_meaning="normal", high_meaning="fast",
    low=3.8, against_high=4.3, neutral=(4.3, 5.0), against_low=5.0, high=5.5, margin=0.3,
)  # fmt: skip
GENDER = Scale(
    trait="gender", fact="female_probability", name="probability of a woman's voice",
    low_meaning="male", neutral_meaning="", high_meaning="female",
    low=0.05, against_high=0.06, neutral=(0.4, 0.6), against_low=0.94, high=0.95,
)  # fmt: skip
INTONATION_SLOPE = Scale(
    trait="intonation", fact="pitch_slope_st_per_s", name="pitch slope",
    low_meaning="falling", neutral_meaning="", high_meaning="rising",
    low=-5.0, against_high=-2.0, neutral=(-2.5, 0.0), against_low=0.0, high=2.0, shortest_s=1.0,
)  # fmt: skip
INTONATION_RANGE = Scale(
    trait="intonation", fact="pitch_range_st", name="pitch range",
    low_meaning="flat", neutral_meaning="", high_meaning="varied",
    low=4.2, against_high=5.5, neutral=(6.0, 9.0), against_low=9.5, high=12.0, shortest_s=1.0,
)  # fmt: skip
VOLUME_SLOPE = Scale(
    trait="volume", fact="loudness_slope_db_per_s", name="loudness slope",
    low_meaning="fading", neutral_meaning="", high_meaning="swelling",
    low=-5.0, against_high=-2.0, neutral=(-2.5, 0.0), against_low=0.0, high=2.0, shortest_s=1.0,
)  # fmt: skip
VOLUME_RANGE = Scale(
    trait="volume", fact="loudness_range_db", name="loudness range",
    low_meaning="steady", neutral_meaning="", high_meaning="dynamic",
    low=5.0, against_high=7.0, neutral=(7.5, 10.5), against_low=11.0, high=13.5, shortest_s=1.0,
)  # fmt: skip
PAUSES = Scale(
    trait="pace", fact="pause_share", name="share of pauses",
    low_meaning="fluent", neutral_meaning="", high_meaning="halting",
    low=-0.01, against_high=0.05, neutral=(0.06, 0.12), against_low=0.13, high=0.2, shortest_s=1.0,
)  # fmt: skip
HARMONICITY = Scale(
    trait="voice quality", fact="harmonicity_db", name="harmonicity",
    low_meaning="hoarse", neutral_meaning="", high_meaning="clear",
    low=7.0, against_high=8.5, neutral=(9.5, 11.5), against_low=12.5, high=14.0,
)  # fmt: skip
TILT = Scale(
    trait="voice quality", fact="spectral_tilt_db_per_octave", name="spectral tilt",
    low_meaning="dull", neutral_meaning="", high_meaning="bright",
    low=-9.4, against_high=-8.2, neutral=(-8.0, -6.5), against_low=-6.0, high=-4.7,
)  # fmt: skip
JITTER = Scale(
    trait="voice quality", fact="jitter", name="jitter",
    low_meaning="steady", neutral_meaning="", high_meaning="trembling",
    low=0.0055, against_high=0.007, neutral=(0.008, 0.011), against_low=0.0115, high=0.0145,
)  # fmt: skip

LEVELS = (PITCH, VOLUME, PACE, GENDER)
"""What nearly every caption speaks of; named first when facts are put into words."""

SLOPES = (INTONATION_SLOPE, VOLUME_SLOPE)
MOVEMENTS = (*SLOPES, INTONATION_RANGE, VOLUME_RANGE, PAUSES)
QUALITIES = (HARMONICITY, TILT, JITTER)
SCALES = (*LEVELS, *MOVEMENTS, *QUALITIES)


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


SURE = 0.95
"""Probability from which on a gender is stated."""
_LEAST_DOUBT = 0.01
"""Bounds the probability of each source."""

Readout = Mapping[str, Mapping[str, float]]
"""What the heads read: {"emotion": {"sad": 0.9, …}, "gender": {"female": 0.99, …}}."""


def audible_gender(readout: Readout, facts: Facts) -> str | None:
    """The gender that heads and measured voice together are sure of, or None.

    Taken as independent, their log-odds add up; where one is missing, the other decides alone.
    """
    heads = readout.get("gender", {}).get("female")
    fact = facts.by_name.get("female_probability")
    probabilities = [heads, fact.value if fact else None]
    odds = sum(_log_odds(chance) for chance in probabilities if chance is not None)
    if abs(odds) < _log_odds(SURE):
        return None
    return "female" if odds > 0 else "male"


CERTAINTIES = ("sure", "likely", "unsure")
"""How certain an emotion is, by its probability."""

SURE_FROM, LIKELY_FROM = 0.60, 0.40
"""Probability from which on an emotion is stated outright, and from which on as likely."""

MIXED_WITHIN, MIXED_FROM = 0.12, 0.25
"""An emotion is heard beside the likeliest one where it is at most so much less probable, and at
least so probable itself."""


@dataclass(frozen=True, slots=True)
class HeardEmotion:
    """What the probabilities of the emotions amount to."""

    first: str
    """The likeliest: the record's emotion, and the one that a caption names (first)."""
    second: str | None = None
    """Another that is heard almost as well; None where one stands out."""
    certainty: str = "sure"
    """One of CERTAINTIES."""

    def __post_init__(self) -> None:
        if not {self.first, self.second or self.first} <= set(EMOTIONS):
            raise DataError(f"emotion {self.first!r}, {self.second!r}: see values.EMOTIONS")
        if self.certainty not in CERTAINTIES:
            raise DataError(f"certainty {self.certainty!r}: must be one of {CERTAINTIES}")


def heard_emotion(probabilities: Mapping[str, float]) -> HeardEmotion:
    """The likeliest emotion, how certain it is, and a second where two are about as likely."""
    if not probabilities:
        raise DataError("no emotion has a probability; give at least one")
    first, *others = sorted(probabilities, key=lambda name: -probabilities[name])
    chance = probabilities[first]
    certainty = "sure" if chance >= SURE_FROM else "likely" if chance >= LIKELY_FROM else "unsure"
    second = others[0] if others and probabilities[others[0]] >= MIXED_FROM else None
    if second is not None and chance - probabilities[second] > MIXED_WITHIN + 1e-9:
        second = None
    return HeardEmotion(first, second, certainty)


_HEARD_AS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {"sure": "{}", "likely": "probably {}", "unsure": "perhaps {}", "mixed": "{} or {}"},
        "zh": {"sure": "{}", "likely": "多半{}", "unsure": "可能{}", "mixed": "{}或{}"},
    }
)


def heard_clue(heard: HeardEmotion, language: str = "en") -> Clue:
    """The clue of a heard emotion for P_act, its certainty in its word: "probably sad"."""
    clue = clue_of("emotion", heard.first, language=language)
    words = [clue.word]
    if heard.second is not None:
        words.append(clue_of("emotion", heard.second, language=language).word)
    pattern = _HEARD_AS[language]["mixed" if heard.second else heard.certainty]
    return replace(clue, word=pattern.format(*words))


def audible_clues(
    readout: Readout, facts: Facts, heard: HeardEmotion | None = None, language: str = "en"
) -> tuple[Clue, ...]:
    """The emotion and a gender that can be told, then what the signal supports.

    The emotion is said as it is `heard`; without that, the readout's likeliest is stated outright.
    The order is that of a caption's gold clues.
    """
    clues = []
    emotions = readout.get("emotion", {})
    if heard is None and emotions:
        heard = HeardEmotion(heard_emotion(emotions).first)
    if heard is not None:
        clues.append(heard_clue(heard, language))
    gender = audible_gender(readout, facts)
    if gender is not None:
        clues.append(clue_of("gender", gender))
    shown = (clue for clue in measured_clues(facts) if clue.trait != "gender")
    return (*clues, *shown)


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


RULES_VERSION = 3
"""Of grammar, thresholds and verdicts; to be raised with a change of any verdict."""


@cache
def claims_fingerprint() -> str:
    """Twelve digits that change with the vocabulary or `RULES_VERSION`: what verdicts depend on."""
    tables = {name: read_table(name) for name in ("meanings.toml", "en.toml", "zh.toml")}
    return hash_of(canonical_json([RULES_VERSION, tables]))[:12]
