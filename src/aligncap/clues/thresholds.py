"""Where a measurement begins to mean a word: every threshold of the evidence, in one place.

A scale runs over one fact. Between its two clear sides lies a neutral zone, and between zone and
side a gap in which nothing is claimed:

    low ≤ `low` < gap < `neutral` from … to > gap > `high` ≤ high
         contradicts "high" at ≤ `against_high`     contradicts "low" at ≥ `against_low`

`low < against_high ≤ against_low < high` keeps a claim from being supported and contradicted, and
its opposite from being supported beside it.

The numbers are percentiles of the facts of the training corpora: captions are written and judged by
the same ones, so a change asks for new captions. Loudness depends on the recording level as well,
and jitter is a weak proxy of trembling.
"""

from dataclasses import dataclass

from aligncap.errors import DataError

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
