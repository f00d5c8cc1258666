"""Intervals cover, differences are judged fairly, and numbers say what they depend on."""

import tracemalloc
from dataclasses import dataclass
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
    drawn,
    expanded_tail,
    interval,
    mean_of_clips,
    paper25,
    score,
    signature,
)
from metrics.pairs import metric, synthetic_pairs


@dataclass(frozen=True)
class Number:
    """The mean of numbers that stand in place of captions."""

    name: str = "number"
    variant: str = "number:plain"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        return mean_of_clips(np.array([float(clip.hypothesis) for clip in clips]))


def clips_of(values: Floats) -> list[ScoredClip]:
    return [ScoredClip(str(n), repr(float(value)), ("x",)) for n, value in enumerate(values)]


def ratio(sums: Floats) -> Floats:
    return sums[..., 0] / sums[..., 1]


def covered(samples: list[Statistics], truth: float) -> float:
    """How often the interval holds the true value."""
    inside = 0
    for statistics in samples:
        low, high = interval(statistics, draws=500, seed=1)
        assert low is not None
        assert high is not None
        inside += low <= truth <= high
    return inside / len(samples)


@pytest.mark.parametrize("clips", [30, 200])
def test_the_interval_of_a_mean_covers_it(clips: int) -> None:
    values = np.random.default_rng(0).beta(2, 3, (1500, clips))
    assert 0.93 <= covered([mean_of_clips(row) for row in values], 2 / 5) <= 0.97


def test_the_interval_of_a_ratio_covers_it() -> None:
    # As in corpus BLEU: matches over lengths, longer clips with more of both.
    random = np.random.default_rng(0)
    lengths = random.integers(5, 40, (1500, 100))
    matches = random.binomial(lengths, 0.3)
    samples = [
        Statistics(np.stack(pair, axis=1).astype(float), ratio)
        for pair in zip(matches, lengths, strict=True)
    ]
    assert 0.93 <= covered(samples, 0.3) <= 0.97


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
    assert better.low is not None
    assert better.high is not None
    assert 0 < better.low < better.delta < better.high
    assert better.p < 0.01
    # Paired: each system alone is far less certain than their difference.
    alone = score(Number(), clips_of(base))
    assert alone.low is not None
    assert alone.high is not None
    assert better.high - better.low < (alone.high - alone.low) / 3
    assert difference(Number(), clips_of(base), clips_of(base)).p == 1.0


def test_the_order_of_the_baseline_does_not_matter() -> None:
    random = np.random.default_rng(0)
    system, baseline = clips_of(random.normal(size=50)), clips_of(random.normal(size=50))
    straight = difference(Number(), system, baseline)
    assert straight == difference(Number(), system, baseline[::-1])


def test_different_clips_are_not_compared() -> None:
    system = clips_of(np.arange(3.0))
    with pytest.raises(DataError, match="2: the baseline has no such clip"):
        difference(Number(), system, system[:2])
    with pytest.raises(DataError, match="2: the system has no such clip"):
        difference(Number(), system[:2], system)
    with pytest.raises(DataError, match="twice"):
        difference(Number(), [*system, system[0]], system)


def test_scores_are_times_a_hundred_and_signed() -> None:
    clips = synthetic_pairs("en", 60)
    made = score(metric("bleu4"), clips, draws=200, seed=3)
    statistics = metric("bleu4").measure(clips)
    low, high = interval(statistics, draws=200, seed=3)
    assert (made.value, made.low, made.high) == pytest.approx(
        (100 * statistics.value, 100 * low, 100 * high)
    )
    end = f"refs:1-3|n:60|boot:200|seed:3|v{version('aligncap')}"
    assert made.signature == f"bleu4:coco|tok:coco-en|{end}"
    assert score(metric("bleu4"), clips, draws=200, seed=3) == made
    assert score(metric("bleu4"), clips, draws=200, seed=4).low != made.low


def test_marks_out_of_ten_are_reported_as_they_are() -> None:
    @dataclass(frozen=True)
    class Marks(Number):
        def measure(self, clips: list[ScoredClip]) -> Statistics:
            told = super().measure(clips)
            return Statistics(told.per_clip, told.value_of, scale=1.0)

    assert score(Marks(), clips_of(np.array([4.0, 8.0]))).value == 6.0


def test_one_clip_and_no_draws_have_no_interval() -> None:
    one = score(Number(), clips_of(np.array([0.5])))
    assert (one.value, one.low, one.high) == (50.0, None, None)
    none = score(Number(), clips_of(np.array([0.5, 0.7])), draws=0)
    assert (none.low, none.high) == (None, None)


def test_values_that_cannot_be_told_give_no_interval_and_are_no_error() -> None:
    made = score(Number(), clips_of(np.full(5, np.nan)))
    assert np.isnan(made.value)
    assert made.low is None


def test_draws_are_with_replacement_and_reproducible() -> None:
    (weights,) = drawn(50, draws=40, seed=2)
    assert weights.shape == (40, 50)
    assert (weights.sum(axis=1) == 50).all()
    (again,) = drawn(50, draws=40, seed=2)
    assert (weights == again).all()
    assert weights.max() > 1


def test_memory_stays_small_with_many_clips() -> None:
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


def test_signature_counts_references() -> None:
    clips = [ScoredClip("a", "x", ("y",)), ScoredClip("b", "x", ("y", "z"))]
    assert "|refs:1-2|n:2|" in signature(Number(), clips, seed=0)
    assert "|refs:1|n:1|" in signature(Number(), clips[:1], seed=0)
