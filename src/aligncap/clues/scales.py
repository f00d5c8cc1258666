"""Thresholds on the measured facts, and a measurement in words beside them.

A scale runs over one fact. Between its two clear sides lies a neutral zone, and between zone and
side a gap in which nothing is claimed:

    low ≤ `low` < gap < `neutral` from … to > gap > `high` ≤ high
         contradicts "high" at ≤ `against_high`     contradicts "low" at ≥ `against_low`

`low < against_high ≤ against_low < high` keeps a claim from being supported and contradicted at
once. The numbers of pitch, loudness and pace are where people who listened agree, the others
percentiles of the facts of the training corpora (docs/lab-notes.md): captions are written and
judged by the same ones, so a change asks for new captions. The middle of a scale is never put into
words unasked: listeners do not remark on it. Jitter is a weak proxy of trembling.

A scale against how the speaker usually sounds takes the place of another where the speaker's
baseline is known.
"""

import math
from dataclasses import dataclass, replace

from aligncap.errors import DataError
from aligncap.prosody.baseline import USUAL_LOUDNESS, USUAL_PACE, USUAL_PITCH
from aligncap.values import Fact, Facts


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
    low=-3.0, against_high=-0.5, neutral=(-0.5, 3.5), against_low=3.0, high=6.0, margin=1.0,
)  # fmt: skip
VOLUME = Scale(
    trait="volume", fact="loudness_db", name="loudness",
    low_meaning="quiet", neutral_meaning="normal", high_meaning="loud",
    low=-38.0, against_high=-27.5, neutral=(-27.0, -22.0), against_low=-22.0, high=-19.5,
    margin=2.0,
)  # fmt: skip
PACE = Scale(
    trait="pace", fact="pace_syllables_per_s", name="pace", unit="syllables/s",
    low_meaning="slow", neutral_meaning="normal", high_meaning="fast",
    low=-math.inf, against_high=3.0, neutral=(3.5, 6.0), against_low=5.0, high=6.8, margin=0.3,
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

USUAL = {
    "pitch_offset_st": Scale(
        trait="pitch", fact=USUAL_PITCH, name="median pitch",
        low_meaning="low", neutral_meaning="normal", high_meaning="high",
        low=-3.0, against_high=-0.5, neutral=(-1.5, 1.5), against_low=0.5, high=3.0, margin=1.0,
    ),
    "loudness_db": Scale(
        trait="volume", fact=USUAL_LOUDNESS, name="loudness",
        low_meaning="quiet", neutral_meaning="normal", high_meaning="loud",
        low=-3.0, against_high=-0.5, neutral=(-1.5, 1.5), against_low=0.5, high=3.0, margin=1.0,
    ),
    "pace_syllables_per_s": Scale(
        trait="pace", fact=USUAL_PACE, name="pace", unit="syllables/s",
        low_meaning="slow", neutral_meaning="normal", high_meaning="fast",
        low=0.85, against_high=0.97, neutral=(0.93, 1.07), against_low=1.03, high=1.15,
        margin=0.05,
    ),
}  # fmt: skip
"""By the fact of the scale whose place it takes where the speaker's baseline is known.

Of 989 acted clips of 36 speakers, against the median of the speaker's other clips, 18 to 25 % lie
at or beyond each of the sides, as with the scales they take the place of (14 to 26 %).
"""

FORMER = {
    PITCH.fact: replace(PITCH, high=5.0),
    VOLUME.fact: replace(VOLUME, low=-30.0),
    PACE.fact: replace(
        PACE, low=3.8, against_high=4.3, neutral=(4.3, 5.0), against_low=5.0, high=5.5
    ),
}
"""By fact, the steps of P_act for models whose encoder was not taught the pace by transcripts: they
learnt to read these, percentiles of the training corpora, the middle of a scale among them."""

LEVELS = (PITCH, VOLUME, PACE, GENDER)
"""What nearly every caption speaks of; named first when facts are put into words."""

SLOPES = (INTONATION_SLOPE, VOLUME_SLOPE)
MOVEMENTS = (*SLOPES, INTONATION_RANGE, VOLUME_RANGE, PAUSES)
QUALITIES = (HARMONICITY, TILT, JITTER)
SCALES = (*LEVELS, *MOVEMENTS, *QUALITIES)


def relative(scale: Scale, facts: Facts) -> Scale:
    """The scale against how the speaker usually sounds, where the facts have that."""
    usual = USUAL.get(scale.fact)
    return usual if usual is not None and usual.fact in facts.by_name else scale


def measurement(scale: Scale, fact: Fact, facts: Facts) -> str:
    """A fact in words and units beside its yardstick: "pace 7.1 syllables/s (fast from 6.8)"."""
    value = fact.value
    assert value is not None, "a fact without a value has no measurement"
    low = f"{scale.low_meaning} to {scale.low:g}, " if math.isfinite(scale.low) else ""
    sides = f"({low}{scale.high_meaning} from {scale.high:g})"
    # A unit in words names its source.
    unit = fact.unit if fact.unit.startswith(scale.unit) else scale.unit
    median = facts.by_name.get("pitch_median_hz")
    if scale is PITCH and median is not None and median.value is not None:
        side = "above" if value >= 0 else "below"
        expected = median.value / 2 ** (value / 12)
        return (
            f"median pitch {median.value:.0f} Hz, {abs(value):.1f} st {side} the expected"
            f" {expected:.0f} Hz {sides}"
        )
    if scale.fact in (USUAL_PITCH, USUAL_LOUDNESS, USUAL_PACE):
        return _against_usual(scale, value, facts, sides)
    digits = 3 if abs(value) < 0.1 else 2 if abs(value) < 1 else 1
    return " ".join(filter(None, (scale.name, f"{value:.{digits}f}", unit, sides)))


def _against_usual(scale: Scale, value: float, facts: Facts, sides: str) -> str:
    """A fact relative to the speaker's baseline: "median pitch 231 Hz, 2.3 st above the speaker's
    usual 202 Hz (low to -3, high from 3)"."""
    side = "above" if value >= 0 else "below"
    if scale.fact == USUAL_PITCH:
        hertz = facts["pitch_median_hz"].value or 0.0
        usual = f"{hertz / 2 ** (value / 12):.0f} Hz"
        said = f"{hertz:.0f} Hz, {abs(value):.1f} st {side} the speaker's usual {usual}"
    elif scale.fact == USUAL_LOUDNESS:
        level = facts["loudness_db"].value or 0.0
        usual = f"{level - value:.1f} LUFS"
        said = f"{level:.1f} LUFS, {abs(value):.1f} dB {side} the speaker's usual {usual}"
    else:
        pace = facts["pace_syllables_per_s"].value or 0.0
        usual = f"{pace / value:.1f}" if value else "pace"
        said = f"{pace:.1f} {scale.unit}, {value:.2f} times the speaker's usual {usual}"
    return f"{scale.name} {said} {sides}"
