"""What metrics speak in: clips to score, statistics of each clip, and signed scores.

Scores with 95 % intervals, differences of two systems, and the paper's 25 sentences.

All of it rests on the bootstrap over clips: draw as many clips as there are, with replacement, and
see how far the value moves. Statistics add up (`Statistics`), so a draw is a weighted sum of rows;
draws are made in blocks, and memory stays the same however many clips there are.

Quantiles of the draws give the interval, a little further out than 2.5 % and 97.5 %: a bootstrap
sees the spread of n clips as sqrt((n - 1) / n) of what it is and takes a normal for a t
distribution, which the expanded percentile interval puts right (Hesterberg, The American
Statistician 2015, section 4.6).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.values import EMOTIONS

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's hypothesis beside what people (or a corpus) say of the clip."""

    id: str
    hypothesis: str
    """May be empty: a system that said nothing."""
    references: tuple[str, ...]
    """At least one."""
    file: Path | None = None
    """The recording, where the references name it."""
    emotion: str | None = None
    """Its category of `values.EMOTIONS`, where the references name it."""

    def __post_init__(self) -> None:
        if not self.references:
            raise DataError(f"{self.id}: has no reference; a clip is scored against at least one")
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise DataError(
                f"{self.id}: emotion is {self.emotion!r}, must be one of {', '.join(EMOTIONS)}"
            )


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a metric needs of each clip to give its value over any selection of clips.

    The value over some clips depends on the sum of their rows only: that is all a bootstrap draw
    needs, so a thousand draws are one matrix product.
    """

    per_clip: Floats
    """Shape [clips, k]."""
    value_of: Callable[[Floats], Floats]
    """Sums of rows, shape [..., k], to values, shape [...]; NaN where nothing can be said."""
    together: bool = False
    """Whether a row depends on the other clips scored with it (document frequencies)."""
    scale: float = 100.0
    """What a value is multiplied by where it is reported; 1 for marks out of ten."""

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
    told = ~np.isnan(values)
    rows = np.stack([np.where(told, values, 0.0), told], axis=1)
    return Statistics(rows, _mean, together=together)


def _mean(sums: Floats) -> Floats:
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

    It is no sum over clips, and a bootstrap draw, in which clips come twice, would make any set
    look less varied: its score has no interval.
    """

    @property
    def name(self) -> str:
        """As users ask for it: "distinct2"."""

    @property
    def variant(self) -> str:
        """Its own part of the signature."""

    def value(self, clips: list[ScoredClip]) -> float:
        """The value over these clips, in their whole; NaN where nothing can be said."""


DRAWS = 1000
CONFIDENCE = 0.95
PAPER_CLIPS = 25
"""Sentences in the paper's test of a corpus (section 4.2)."""
PAPER_DRAWS = 100

BLOCK = 1 << 19
"""Clips drawn at once, over all draws of a block."""

LEAST_TOLD = 0.5
"""No interval where fewer of the draws have a value."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a system is above its baseline on the same clips (x 100)."""

    name: str
    delta: float
    low: float | None
    """None where no interval can be given."""
    high: float | None
    p: float
    """Two-sided, of the paired bootstrap: how often chance alone would part two equals so far."""
    signature: str


@dataclass(frozen=True, slots=True)
class SmallSample:
    """A score as the paper gives it: of few clips drawn at random (x 100)."""

    name: str
    mean: float
    sd: float
    """Over the draws."""
    signature: str


def score(metric: Metric, clips: list[ScoredClip], *, draws: int = DRAWS, seed: int = 0) -> Score:
    """The metric over all clips, with its interval and its signature; 0 draws give no interval."""
    statistics = metric.measure(clips)
    low, high = interval(statistics, draws=draws, seed=seed)
    return Score(
        metric.name,
        statistics.scale * statistics.value,
        None if low is None else statistics.scale * low,
        None if high is None else statistics.scale * high,
        signature(metric, clips, boot=draws, seed=seed),
    )


def difference(
    metric: Metric,
    clips: list[ScoredClip],
    baseline_clips: list[ScoredClip],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """The system's score less the baseline's, on the same draws of clips for both.

    Raises DataError where the two are not of the same clips.
    """
    baseline_clips = _in_order(baseline_clips, clips)
    system, baseline = metric.measure(clips), metric.measure(baseline_clips)
    deltas = np.concatenate(
        [
            system.value_of(weights @ system.per_clip)
            - baseline.value_of(weights @ baseline.per_clip)
            for weights in drawn(len(clips), draws=draws, seed=seed)
        ]
    )
    low, high = _bounds(deltas, len(clips))
    scale = system.scale
    return Difference(
        metric.name,
        scale * (system.value - baseline.value),
        None if low is None else scale * low,
        None if high is None else scale * high,
        _two_sided(deltas),
        signature(metric, clips, boot=draws, seed=seed),
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
    told = statistics.scale * values[~np.isnan(values)]
    mean, sd = (float(told.mean()), float(told.std(ddof=1))) if len(told) > 1 else (math.nan,) * 2
    return SmallSample(
        metric.name, mean, sd, signature(metric, clips, draws=f"{draws}x{PAPER_CLIPS}", seed=seed)
    )


def interval(
    statistics: Statistics, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float | None, float | None]:
    """The 95 % interval of the value over all clips; None where no interval can be given."""
    clips = len(statistics.per_clip)
    blocks = drawn(clips, draws=draws, seed=seed)
    values = [statistics.value_of(weights @ statistics.per_clip) for weights in blocks]
    return _bounds(np.concatenate(values) if values else np.empty(0), clips)


def drawn(clips: int, *, draws: int, seed: int) -> Iterator[Floats]:
    """How often each clip is drawn, in blocks of shape [some draws, clips].

    The same seed draws the same clips, whatever is measured of them.
    """
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // clips)
    for first in range(0, draws, block):
        rows = min(block, draws - first)
        picks = random.integers(0, clips, (rows, clips), dtype=np.int32)
        picks += np.arange(rows, dtype=np.int32)[:, None] * clips
        counts = np.bincount(picks.ravel(), minlength=rows * clips)
        yield counts.reshape(rows, clips).astype(np.float64)


def signature(metric: Metric | SetMetric, clips: list[ScoredClip], **drawing: object) -> str:
    """What a number depends on: "bleu4:coco|tok:coco-en|refs:1|n:472|boot:1000|seed:0|v0.1.0"."""
    counts = [len(clip.references) for clip in clips]
    least, most = min(counts), max(counts)
    references = str(most) if least == most else f"{least}-{most}"
    parts = [metric.variant, f"refs:{references}", f"n:{len(clips)}"]
    parts += [f"{key}:{value}" for key, value in drawing.items()]
    return "|".join([*parts, f"v{version('aligncap')}"])


def _bounds(values: Floats, clips: int) -> tuple[float | None, float | None]:
    told = values[~np.isnan(values)]
    if clips < 2 or not len(told) or len(told) < LEAST_TOLD * len(values):
        return None, None
    tail = expanded_tail(clips)
    low, high = np.quantile(told, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(clips: int) -> float:
    """The share of draws to leave out on each side, below 2.5 % and near it for many clips."""
    normal = NormalDist()
    z = normal.inv_cdf((1 + CONFIDENCE) / 2)
    nu = clips - 1
    # Student's t by its expansion in 1 / nu (Abramowitz & Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3)
    return normal.cdf(-t * math.sqrt(clips / nu))


def _two_sided(deltas: Floats) -> float:
    """Twice the share of draws on the smaller side of 0, the sample itself counted as a draw."""
    told = deltas[~np.isnan(deltas)]
    side = min(int((told <= 0).sum()), int((told >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(told) + 1))


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
