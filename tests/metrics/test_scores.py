"""Intervals cover, differences are judged fairly, and numbers say what they depend on."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pytest
from scipy.stats import norm, t

from aligncap.errors import DataError
from aligncap.metrics.scores import (
    Floats,
    ScoredClip,
    Statistics,
    difference,
    expanded_tail,
    interval,
    mean_of_clips,
    paper25,
    resampled,
    score,
)
from metrics.small import metric, synthetic_pairs

UNRATED = "nan"


@dataclass(frozen=True)
class Number:
    """The mean of numbers that stand in place of captions."""

    name: str = "number"
    variant: str = "number:plain"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        return mean_of_clips(np.array([float(clip.hypothesis) for clip in clips]))


def clips_of(values: Floats) -> list[ScoredClip]:
    return [ScoredClip(str(n), repr(float(value)), ("x",)) for n, value in enumerate(values)]


class Ratings(Number):
    """Numbers of which some cannot be told."""

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        left_out = {clip.id: "not rated" for clip in clips if clip.hypothesis == UNRATED}
        return replace(super().measure(clips), left_out=left_out)


def mean_sample(clips: int) -> list[Statistics]:
    """Samples of numbers whose mean is 0.4."""
    return list(map(mean_of_clips, np.random.default_rng(0).beta(2, 3, (1500, clips))))


def ratio_sample(clips: int) -> list[Statistics]:
    """As in corpus BLEU: 0.4 matches a token, longer clips with more of both."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 40, (1500, clips))
    rows = np.stack([random.binomial(lengths, 0.4), lengths], axis=-1).astype(float)
    return [Statistics(row, lambda sums: sums[..., 0] / sums[..., 1]) for row in rows]


@pytest.mark.parametrize(
    ("sample", "clips"), [(mean_sample, 30), (mean_sample, 200), (ratio_sample, 100)]
)
def test_the_interval_covers_the_value(sample: Callable[[int], list[Statistics]], clips: int):
    bounds = np.array([interval(one, draws=500, seed=1) for one in sample(clips)])
    assert 0.93 <= ((bounds[:, 0] <= 0.4) & (bounds[:, 1] >= 0.4)).mean() <= 0.97


@pytest.mark.parametrize("clips", [10, 25, 100, 100_000])
def test_the_tail_is_that_of_students_t(clips: int) -> None:
    exact = norm.cdf(t.ppf(0.025, clips - 1) * (clips / (clips - 1)) ** 0.5)
    assert expanded_tail(clips) == pytest.approx(exact, rel=2e-3)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    values = np.random.default_rng(0).normal(size=(400, 2, 80))
    p = np.array([difference(Number(), clips_of(a), clips_of(b), draws=200).p for a, b in values])
    assert 0.02 <= (p <= 0.05).mean() <= 0.09
    assert 0.42 <= (p <= 0.5).mean() <= 0.58


def test_a_difference_is_seen_and_an_equal_is_not() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=200)
    better = difference(Number(), clips_of(base + 0.2 + random.normal(0, 0.1, 200)), clips_of(base))
    assert better.delta == pytest.approx(20, abs=3)
    assert 0 < better.low < better.delta < better.high
    assert better.p < 0.01
    # Paired: each system alone is far less certain than their difference.
    alone = score(Number(), clips_of(base))
    assert better.high - better.low < (alone.high - alone.low) / 3
    assert difference(Number(), clips_of(base), clips_of(base)).p == 1.0


def test_a_baseline_has_the_same_clips_in_any_order() -> None:
    random = np.random.default_rng(0)
    system, baseline = clips_of(random.normal(size=50)), clips_of(random.normal(size=50))
    straight = difference(Number(), system, baseline)
    assert straight == difference(Number(), system, baseline[::-1])
    for one, other, message in (
        (system[:3], system[:2], "2: the baseline has no such clip"),
        (system[:2], system[:3], "2: the system has no such clip"),
        ([*system, system[0]], system, "twice"),
    ):
        with pytest.raises(DataError, match=message):
            difference(Number(), one, other)


def test_clips_that_either_side_leaves_out_count_on_neither() -> None:
    # Of one value on every clip that both rate; the baseline's better half is not rated.
    values = np.where(np.arange(40) % 2, 0.4, 0.8)
    system, baseline = clips_of(values), clips_of(np.where(np.arange(40) % 4 == 2, np.nan, values))
    assert score(Ratings(), baseline).value < score(Ratings(), system).value
    for one, other in ((system, baseline), (baseline, system)):
        found = difference(Ratings(), one, other)
        assert (found.delta, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
        assert "|n:30|boot:1000|" in found.signature
    # Where both leave out the same, the difference is that of their scores.
    worse = clips_of(np.where(np.arange(40) % 4 == 2, np.nan, values - 0.1))
    found = difference(Ratings(), baseline, worse)
    alone = (score(Ratings(), one) for one in (baseline, worse))
    assert found.delta == pytest.approx(next(alone).value - next(alone).value)
    nothing = difference(Ratings(), system, clips_of(np.full(40, np.nan)))
    assert np.isnan(nothing.delta)
    assert (nothing.low, nothing.high, nothing.p) == (None, None, 1.0)
    assert "|n:0|" in nothing.signature


def test_scores_are_times_a_hundred_and_signed() -> None:
    clips = synthetic_pairs("en", 60)
    made = score(metric("bleu4"), clips, draws=200, seed=3)
    statistics = metric("bleu4").measure(clips)
    low, high = interval(statistics, draws=200, seed=3)
    expected = (100 * statistics.value, 100 * low, 100 * high)
    assert (made.value, made.low, made.high) == pytest.approx(expected)
    end = f"refs:1-3|n:60|boot:200|seed:3|v{version('aligncap')}"
    assert made.signature == f"bleu4:coco|tok:coco-en|{end}"
    assert score(metric("bleu4"), clips, draws=200, seed=3) == made
    assert score(metric("bleu4"), clips, draws=200, seed=4).low != made.low
    assert "|refs:1|n:1|" in score(metric("bleu4"), clips[:1]).signature


def test_a_scale_of_one_is_kept_and_nothing_to_resample_gives_no_interval() -> None:
    @dataclass(frozen=True)
    class Marks(Number):
        def measure(self, clips: list[ScoredClip]) -> Statistics:
            return replace(super().measure(clips), scale=1.0)

    made = score(Marks(), clips_of(np.array([4.0, 8.0])))
    assert 4.0 <= made.low <= 6.0 == made.value <= made.high <= 8.0
    for values, value, how in (
        ([0.5], 50.0, {}),
        ([0.5, 0.7], 60.0, {"draws": 0}),
        ([np.nan] * 5, np.nan, {}),
    ):
        made = score(Number(), clips_of(np.array(values)), **how)
        assert made.value == pytest.approx(value, nan_ok=True)
        assert (made.low, made.high) == (None, None)


def test_resamples_are_with_replacement_reproducible_and_in_blocks() -> None:
    (weights,) = resampled(50, draws=40, seed=2)
    assert weights.shape == (40, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.max() > 1
    (again,) = resampled(50, draws=40, seed=2)
    assert (weights == again).all()
    statistics = mean_of_clips(np.random.default_rng(0).random(100_000))
    tracemalloc.start()
    interval(statistics, draws=50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All draws at once would be 40 MB; a block is half a million clips.
    assert peak < 30e6


def test_paper25_draws_25_clips_and_says_so() -> None:
    values = np.random.default_rng(0).random(400)
    small = paper25(Number(), clips_of(values), draws=200, seed=1)
    assert small.mean == pytest.approx(100 * values.mean(), abs=2)
    # Without replacement, of 400: sd / sqrt(25) times sqrt(375 / 399).
    assert small.sd == pytest.approx(100 * values.std() / 5 * (375 / 399) ** 0.5, rel=0.15)
    assert small.signature.startswith("number:plain|refs:1|n:400|draws:200x25|seed:1|v")
    with pytest.raises(DataError, match="24 clips"):
        paper25(Number(), clips_of(values[:24]))


def test_paper25_counts_documents_among_the_25() -> None:
    clips = synthetic_pairs("en", 25)
    # Drawn without replacement all 25 are always there, in another order.
    expected = 100 * metric("cider-d").measure(clips).value
    small = paper25(metric("cider-d"), clips, draws=3)
    assert (small.mean, small.sd) == pytest.approx((expected, 0.0), abs=1e-9)
    more = synthetic_pairs("en", 200)
    assert metric("cider-d").measure(more).together
    few = [metric("cider-d").measure(more[at : at + 25]).value for at in range(0, 200, 25)]
    assert paper25(metric("cider-d"), more, draws=60).mean == pytest.approx(
        100 * np.mean(few), rel=0.2
    )
