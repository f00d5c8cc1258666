"""What a metric is, the table of metrics with their options, and scores: with a 95 % interval,
as the difference to a baseline, and of 25 clips as in the paper.

The bootstrap resamples clips: as many as there are, with replacement. Statistics add up
(`Statistics`), so a resample is a weighted sum of rows; resamples are made in blocks, and memory
stays the same however many clips there are.

Quantiles of the resampled values give the interval, a little further out than 2.5 % and 97.5 %: a
bootstrap sees the spread of n clips as sqrt((n - 1) / n) of what it is and takes a normal for a t
distribution, which the expanded percentile interval corrects (Hesterberg, The American
Statistician 2015, section 4.6).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aligncap.audio import load
from aligncap.clues import find_clues
from aligncap.clues.evidence import Claim, claims_of
from aligncap.errors import AlignCapError, DataError, UnknownNameError
from aligncap.metrics.tokenise import TokenisedClips, Tokeniser
from aligncap.prosody import measure
from aligncap.values import LANGUAGES, TRAITS, Clue, Facts

if TYPE_CHECKING:
    from aligncap.metrics.judge import JudgeClient

Floats = NDArray[np.float64]


DRAWS = 1000
CONFIDENCE = 0.95
PAPER_CLIPS = 25
"""Sentences in the paper's test of a corpus (section 4.2)."""
PAPER_DRAWS = 100

BLOCK = 1 << 19
"""Clips drawn at once, over all resamples of a block."""

MIN_DEFINED = 0.5
"""No interval where a smaller share of the resamples has a value."""


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's hypothesis and its reference captions."""

    id: str
    hypothesis: str
    """May be empty."""
    references: tuple[str, ...]
    """At least one."""
    file: Path | None = None
    """The recording, where the references name it."""
    emotion: str | None = None
    """As the references name it; only a category of `values.EMOTIONS` can be recalled."""

    def __post_init__(self) -> None:
        if not self.references:
            raise DataError(f"{self.id}: has no reference; a clip is scored against at least one")


@dataclass(frozen=True, slots=True)
class Statistics:
    """A metric's sufficient statistics: its value over any clips depends on the sum of their rows
    only, so a thousand bootstrap resamples are one matrix product.
    """

    per_clip: Floats
    """Shape [clips, k]."""
    value_of: Callable[[Floats], Floats]
    """Sums of rows, shape [..., k], to values, shape [...]; NaN where there is no value."""
    together: bool = False
    """Whether a row depends on the other clips scored with it (document frequencies)."""
    scale: float = 100.0
    """What a value is multiplied by where it is reported; 1 for marks out of ten."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Clips that are not counted, by id, and why."""

    def __post_init__(self) -> None:
        if self.per_clip.ndim != 2 or not len(self.per_clip):
            raise DataError("statistics are one row a clip, and at least one clip")

    @property
    def value(self) -> float:
        """The value over all clips."""
        return float(self.value_of(self.per_clip.sum(axis=0)))

    @property
    def clip_values(self) -> Floats:
        """The value over each clip alone, shape [clips]."""
        return self.value_of(self.per_clip)


def mean_of_clips(values: Floats, *, together: bool = False) -> Statistics:
    """The statistics of a score that is the mean of one value a clip; NaN is not counted."""
    known = ~np.isnan(values)
    rows = np.stack([np.where(known, values, 0.0), known], axis=1)
    return Statistics(rows, mean_of_sums, together=together)


def mean_of_sums(sums: Floats) -> Floats:
    """Sums of (value, count), shape [..., 2], to means; NaN where the count is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value: Floats = sums[..., 0] / sums[..., 1]
    return value


@dataclass(frozen=True, slots=True)
class Score:
    """A score (x 100 where it is a share) with its 95 % interval and what it depends on."""

    name: str
    value: float
    low: float | None
    """None where no interval can be given."""
    high: float | None
    signature: str
    """Metric variant, tokenisation, references, n, seed, versions: "tok:zh-char|refs:1|n:472"."""
    notes: tuple[str, ...] = ()
    """What was left out, or why there is no value, and why."""


class Metric(Protocol):
    """A way to score captions; instances are made with their language and options."""

    @property
    def name(self) -> str:
        """As users ask for it: "bleu4", "cider-d", "clue-f1"."""

    @property
    def variant(self) -> str:
        """Its own part of the signature: "meteor:nltk-3.9+wordnet"; needs no clips, n or seed."""

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The statistics of the clips, in their order.

        Raises MissingModelError where a library, jar or model it needs is not on this machine.
        """


class SetMetric(Protocol):
    """A property of a whole set of captions, such as how varied they are.

    It is no sum over clips, and a bootstrap resample, in which clips come twice, would make any
    set look less varied: its score has no interval.
    """

    @property
    def name(self) -> str:
        """As users ask for it: "distinct2"."""

    @property
    def variant(self) -> str:
        """Its own part of the signature."""

    def value(self, clips: list[ScoredClip]) -> float:
        """The value over these clips, together; NaN where there is no value."""


class ClaimCache:
    """The claims of captions and the facts of recordings; handed to metrics by their options."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[Claim, Clue]] = {}
        self._facts: dict[Path, Facts | AlignCapError] = {}

    def claims(self, text: str, language: str) -> dict[Claim, Clue]:
        """The claims of a caption in their order, each with the first clue that makes it."""
        key = (language, text)
        if key not in self._claims:
            self._claims[key] = claims_of(find_clues(text, language))
        return self._claims[key]

    def all_claims(self, texts: Iterable[str], language: str) -> dict[Claim, Clue]:
        """The claims of several captions together."""
        claims: dict[Claim, Clue] = {}
        for text in texts:
            claims |= self.claims(text, language)
        return claims

    def facts(self, clip: ScoredClip) -> Facts:
        """The measured facts of the clip's recording. DataError where the clip names none,
        AudioError where it cannot be read."""
        if clip.file is None:
            raise DataError('no recording to judge by; name it as "file" in the references')
        if clip.file not in self._facts:
            try:
                self._facts[clip.file] = measure(load(clip.file))
            except AlignCapError as error:
                self._facts[clip.file] = error
        facts = self._facts[clip.file]
        if isinstance(facts, AlignCapError):
            raise facts
        return facts


class TokenisedCache:
    """Tokenises clips for several metrics: the last two lists, a system's and its baseline's, are
    not tokenised again."""

    def __init__(self) -> None:
        self._recent: list[tuple[list[ScoredClip], TokenisedClips]] = []

    def __call__(self, clips: list[ScoredClip], tokeniser: Tokeniser) -> TokenisedClips:
        """The tokenised clips, made now or before."""
        for cached, tokenised in self._recent:
            if tokenised.tokenisation == tokeniser.name and cached == clips:
                return tokenised
        hypotheses = [clip.hypothesis for clip in clips]
        tokenised = TokenisedClips(hypotheses, [clip.references for clip in clips], tokeniser)
        self._recent = [*self._recent[-1:], (list(clips), tokenised)]
        return tokenised


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOptions:
    """What metrics may need besides the clips; each takes what concerns it.

    Metrics opened with the same options share claims, facts, tokens and n-grams of the clips.
    """

    language: str = "en"
    """Of hypotheses and references."""
    tokenisation: str | None = None
    """"coco-en", "zh-char" or "zh-word"; None is the language's default, the first two."""
    jars: Path | None = None
    """Folder of METEOR's and SPICE's Java programs."""
    encoder: Path | None = None
    """Folder of a sentence encoder, for similarity."""
    judge: "JudgeClient | None" = None
    """The language model that rates captions."""
    claims: ClaimCache = field(default_factory=ClaimCache, repr=False, compare=False)
    tokenised: TokenisedCache = field(default_factory=TokenisedCache, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("language", self.language, LANGUAGES)


HALLUCINATIONS: Mapping[str, tuple[str, ...]] = {
    "hallucination": TRAITS,
    "hallucination-signal": tuple(trait for trait in TRAITS if trait not in ("emotion", "tone")),
}
"""Rates that are also given by trait ("hallucination/pitch") → the traits they can judge."""

SPLITS: Mapping[str, tuple[str, ...]] = {
    name: tuple(f"{name}/{trait.replace(' ', '-')}" for trait in traits)
    for name, traits in HALLUCINATIONS.items()
}
"""Metric → the metrics that split it."""

METRICS: Mapping[str, str] = {
    "bleu1": "ngram:open_ngram",
    "bleu2": "ngram:open_ngram",
    "bleu3": "ngram:open_ngram",
    "bleu4": "ngram:open_ngram",
    "rouge-l": "ngram:open_ngram",
    "cider": "ngram:open_ngram",
    "cider-d": "ngram:open_ngram",
    "meteor": "meteor:open_meteor",
    "meteor-1.5": "meteor:open_meteor_jar",
    "spice": "meteor:open_spice",
    "spider": "meteor:open_spice",
    "clue-precision": "claims:open_clue_score",
    "clue-recall": "claims:open_clue_score",
    "clue-f1": "claims:open_clue_score",
    **{
        part: "claims:open_hallucination"
        for name, parts in SPLITS.items()
        for part in (name, *parts)
    },
    "emotion-recall": "claims:open_emotion_recall",
    "similarity": "similarity:open_similarity",
    "aes-c": "aes:open_aes",
    "aes-s": "aes:open_aes",
}
"""Name → module of this part and its function (name, options) -> Metric."""

SET_METRICS: Mapping[str, str] = {
    "distinct1": "ngram:open_distinct",
    "distinct2": "ngram:open_distinct",
    "repeated": "ngram:open_distinct",
}
"""As `METRICS`, of metrics that belong to a whole set of captions."""

DEFAULT_METRICS = (
    "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge-l", "cider", "cider-d",
    "clue-f1", "clue-precision", "clue-recall", "hallucination", "emotion-recall",
    "distinct2", "repeated",
)  # fmt: skip
"""Fast, and on every machine for captions in every language."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """The metric of that name; what it needs is imported only now.

    Raises UnknownNameError, or MissingModelError where something it needs is not here.
    """
    if name not in METRICS:
        known = [one for one in (*METRICS, *SET_METRICS) if "/" not in one or "/" in name]
        raise UnknownNameError("metric", name, known)
    metric: Metric = _opener(METRICS[name])(name, options)
    return metric


def open_set_metric(name: str, options: MetricOptions) -> SetMetric:
    """The metric of a whole set of captions of that name; as `open_metric`."""
    if name not in SET_METRICS:
        raise UnknownNameError("metric of a set", name, SET_METRICS)
    metric: SetMetric = _opener(SET_METRICS[name])(name, options)
    return metric


def _opener(place: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(import_module(f"aligncap.metrics.{module}"), function)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a system is above its baseline on the same clips (x 100)."""

    name: str
    delta: float
    low: float | None
    """None where no interval can be given."""
    high: float | None
    p: float
    """Two-sided, of the paired bootstrap."""
    signature: str


@dataclass(frozen=True, slots=True)
class SmallSample:
    """A score as in the paper: of 25 clips drawn at random (x 100)."""

    name: str
    mean: float
    sd: float
    """Over the draws."""
    signature: str


def score(metric: Metric, clips: list[ScoredClip], *, draws: int = DRAWS, seed: int = 0) -> Score:
    """The metric over all clips, with its interval and its signature; 0 draws give no interval."""
    statistics = metric.measure(clips)
    low, high = interval(statistics, draws=draws, seed=seed, scale=statistics.scale)
    counted = [clip for clip in clips if clip.id not in statistics.left_out]
    signed = signature(metric, counted, boot=draws, seed=seed)
    value = statistics.scale * statistics.value
    notes = tuple(left_out_notes(statistics.left_out, len(clips)))
    if math.isnan(value) and counted:
        notes += (NOTHING_COUNTED,)
    return Score(metric.name, value, low, high, signed, notes)


NOTHING_COUNTED = "no score: nothing that it counts is in these clips"


def left_out_notes(left_out: Mapping[str, str], clips: int) -> Iterator[str]:
    """A line, if there is need, on how many of so many clips are left out, and why the first is."""
    for name, reason in list(left_out.items())[:1]:
        such = f"clip {name!r}" if len(left_out) == 1 else f"such as {name!r}"
        none = "no score: " if len(left_out) == clips else ""
        yield f"{none}{len(left_out)} of {clips} clips left out, {such}: {reason}"


def score_set(metric: SetMetric, clips: list[ScoredClip]) -> Score:
    """The score of a whole set of captions (x 100), which has no interval."""
    value = 100 * metric.value(clips)
    notes = (NOTHING_COUNTED,) if math.isnan(value) else ()
    return Score(metric.name, value, None, None, signature(metric, clips), notes)


def difference(
    metric: Metric,
    clips: list[ScoredClip],
    baseline_clips: list[ScoredClip],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """The system's score less the baseline's, on the same resamples of clips for both. Clips that
    are left out of either count on neither side.

    Raises DataError where the two are not of the same clips.
    """
    baseline_clips = _in_order(baseline_clips, clips)
    system, baseline = metric.measure(clips), metric.measure(baseline_clips)
    left_out = system.left_out.keys() | baseline.left_out.keys()
    counted = [clip for clip in clips if clip.id not in left_out]
    kept = np.array([[clip.id not in left_out] for clip in clips])
    system, baseline = (
        replace(one, per_clip=np.where(kept, one.per_clip, 0.0)) for one in (system, baseline)
    )
    deltas = np.concatenate(
        [
            system.value_of(weights @ system.per_clip)
            - baseline.value_of(weights @ baseline.per_clip)
            for weights in resampled(len(clips), draws=draws, seed=seed)
        ]
    )
    low, high = bounds(deltas, len(counted), system.scale)
    return Difference(
        metric.name,
        system.scale * (system.value - baseline.value),
        low,
        high,
        two_sided(deltas),
        signature(metric, counted, boot=draws, seed=seed),
    )


def paper25(
    metric: Metric, clips: list[ScoredClip], *, draws: int = PAPER_DRAWS, seed: int = 0
) -> SmallSample:
    """The score of 25 clips drawn without replacement, mean and sd over draws, as in the paper.

    With fewer clips than that DataError is raised. A metric whose rows depend on which clips are
    scored together measures every draw by itself, as whoever scores 25 sentences does.
    """
    if len(clips) < PAPER_CLIPS:
        raise DataError(
            f"{len(clips)} clips: the paper's score is of {PAPER_CLIPS} drawn from more"
        )
    random = np.random.default_rng(seed)
    statistics = metric.measure(clips)
    values = np.empty(draws)
    for draw in range(draws):
        chosen = random.choice(len(clips), PAPER_CLIPS, replace=False)
        if statistics.together:
            values[draw] = metric.measure([clips[place] for place in chosen]).value
        else:
            values[draw] = statistics.value_of(statistics.per_clip[chosen].sum(axis=0))
    values = statistics.scale * values[~np.isnan(values)]
    mean, sd = math.nan, math.nan
    if len(values) > 1:
        mean, sd = float(values.mean()), float(values.std(ddof=1))
    signed = signature(metric, clips, draws=f"{draws}x{PAPER_CLIPS}", seed=seed)
    return SmallSample(metric.name, mean, sd, signed)


def interval(
    statistics: Statistics, *, draws: int = DRAWS, seed: int = 0, scale: float = 1.0
) -> tuple[float | None, float | None]:
    """The 95 % interval of the value over all clips, times `scale`; None where there is none."""
    clips = len(statistics.per_clip)
    blocks = resampled(clips, draws=draws, seed=seed)
    values = [statistics.value_of(weights @ statistics.per_clip) for weights in blocks]
    return bounds(np.concatenate(values) if values else np.empty(0), clips, scale)


def resampled(clips: int, *, draws: int, seed: int) -> Iterator[Floats]:
    """How often each clip is in each resample, in blocks of shape [some resamples, clips].

    The same seed gives the same resamples, whatever is measured of them.
    """
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // clips)
    for first in range(0, draws, block):
        rows = min(block, draws - first)
        picks = random.integers(0, clips, (rows, clips), dtype=np.int32)
        picks += np.arange(rows, dtype=np.int32)[:, None] * clips
        counts = np.bincount(picks.ravel(), minlength=rows * clips)
        yield counts.reshape(rows, clips).astype(np.float64)


def signature(metric: Metric | SetMetric, clips: list[ScoredClip], **sampling: object) -> str:
    """What a number depends on: "bleu4:coco|tok:coco-en|refs:1|n:472|boot:1000|seed:0|v0.1.0"."""
    counts = [len(clip.references) for clip in clips]
    least, most = min(counts, default=0), max(counts, default=0)
    references = str(most) if least == most else f"{least}-{most}"
    parts = [metric.variant, f"refs:{references}", f"n:{len(clips)}"]
    parts += [f"{key}:{value}" for key, value in sampling.items()]
    return "|".join([*parts, f"v{version('aligncap')}"])


def signature_text(name: str) -> str:
    """A name as it may stand in a signature: without blanks and "|"."""
    return "_".join(name.replace("|", "_").split())


def bounds(
    values: Floats, clips: int, scale: float = 1.0, *, tail: float | None = None
) -> tuple[float | None, float | None]:
    """The 95 % interval, times `scale`, of the values that resamples of so many clips have; `tail`
    is what to leave out on each side, `expanded_tail` where it is None."""
    defined = values[~np.isnan(values)]
    if clips < 2 or not len(defined) or len(defined) < MIN_DEFINED * len(values):
        return None, None
    tail = expanded_tail(clips) if tail is None else tail
    low, high = np.quantile(defined, [tail, 1 - tail])
    return scale * float(low), scale * float(high)


def two_sided(values: Floats) -> float:
    """The p-value of 0: twice the share of resampled values on its smaller side."""
    defined = values[~np.isnan(values)]
    # The sample itself is counted as a resample.
    smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(defined) + 1))


def expanded_tail(clips: int) -> float:
    """The share of resamples to leave out on each side, below 2.5 % and near it for many clips."""
    normal = NormalDist()
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    nu = clips - 1
    # Student's t by its expansion in 1 / nu (Abramowitz & Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
    return normal.cdf(-t * math.sqrt(clips / nu))


def _in_order(baseline: list[ScoredClip], clips: list[ScoredClip]) -> list[ScoredClip]:
    """The baseline's clips in the order of the system's."""
    by_id = {clip.id: clip for clip in baseline}
    ids = {clip.id for clip in clips}
    if lost := sorted(ids ^ by_id.keys()):
        whose = "the baseline" if lost[0] in ids else "the system"
        raise DataError(f"{lost[0]}: {whose} has no such clip; both are compared on the same clips")
    if len(baseline) != len(clips) or len(ids) != len(clips):
        raise DataError("a clip is there twice; both are compared on the same clips")
    return [by_id[clip.id] for clip in clips]
