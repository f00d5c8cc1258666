"""Intervals over seeds and clips cover, differences are of the same clips and seeds, and the
orderings are found and judged by hand-made runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from aligncap.errors import DataError, UnknownNameError
from aligncap.experiments.runs import read_runs
from aligncap.experiments.statistics import (
    CLAIMS,
    Comparison,
    Ordering,
    compare,
    contrast,
    estimate,
    holm,
    judge,
    matches,
    missing,
    over_seeds,
    setting_text,
)
from aligncap.metrics.scores import MetricOptions, ScoredClip, mean_of_clips, open_metric
from support.reproduced import REFERENCES, write_run, written_captions


def combined(*arms: Sequence[np.ndarray], factors: Sequence[float] = (1, -1), draws: int = 1000):
    """Arms by the scores of their clips, an array for each seed: a weighted sum."""
    per_seed = [
        [(factor, mean_of_clips(one)) for factor, one in zip(factors, seed, strict=False)]
        for seed in zip(*arms, strict=True)
    ]
    return over_seeds(per_seed, len(arms[0][0]), draws=draws)


def simulated(random: np.random.Generator, seeds: int, clips: int, of_seeds: float) -> np.ndarray:
    """Scores with an effect of the clip, one of the seed, and one of both; their mean is .4."""
    return (
        0.4
        + 0.05 * random.normal(size=clips)
        + of_seeds * random.normal(size=(seeds, 1))
        + 0.02 * random.normal(size=(seeds, clips))
    )


@pytest.mark.parametrize(
    ("seeds", "of_seeds"), [(3, 0.0), (3, 0.005), (3, 0.05), (5, 0.02), (2, 0.02)]
)
def test_the_interval_covers_seeds_and_clips_together(seeds: int, of_seeds: float) -> None:
    random = np.random.default_rng(seeds)
    found = [combined(simulated(random, seeds, 40, of_seeds), draws=100) for _ in range(200)]
    # 95 % of 200 samples has a standard error of 1.5 %; the share of both effects counts twice.
    assert 0.91 <= np.mean([one.low <= 40 <= one.high for one in found]) <= 0.995


def test_p_is_small_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    p = []
    for _ in range(200):
        pair = [simulated(random, 3, 30, 0.02) for _ in range(2)]
        p.append(combined(*pair, draws=100).p)
    assert (np.array(p) <= 0.05).mean() <= 0.08
    assert 0.35 <= (np.array(p) <= 0.5).mean() <= 0.6


def test_clips_alike_leave_students_t_of_the_seeds() -> None:
    found = combined([np.full(9, one) for one in (0.1, 0.2, 0.6)], draws=2000)
    sd = np.std([10, 20, 60], ddof=1)
    assert (found.delta, found.sd) == pytest.approx((30.0, sd))
    assert (found.seeds, found.clips) == (3, 9)
    assert found.high - found.low == pytest.approx(2 * sd / 3**0.5 * t.ppf(0.975, 2), rel=0.05)


def test_seeds_alike_leave_students_t_of_the_clips() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.1, 30)
    found = combined([values] * 3, draws=4000)
    half = 100 * values.std(ddof=1) / 30**0.5 * t.ppf(0.975, 29)
    assert found.sd == pytest.approx(0.0, abs=1e-9)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


def test_one_seed_judges_nothing() -> None:
    found = combined([np.full(8, 0.9)], [np.full(8, 0.1)])
    assert (found.delta, found.low, found.high) == pytest.approx((80.0, 80.0, 80.0))
    assert (found.sd, found.verdict) == (None, Ordering.OPEN)


def test_what_clips_and_seeds_have_in_common_cancels() -> None:
    random = np.random.default_rng(0)
    low = random.normal(0.4, 0.2, 50) + random.normal(0, 0.1, (3, 1))
    found = combined(low + 0.01, low)
    assert (found.delta, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert found.verdict is Ordering.HOLDS
    assert found.p == pytest.approx(2 / 1001)
    assert combined(low, low + 0.01).verdict is Ordering.FAILS


def test_the_difference_of_two_gains_by_table_4() -> None:
    # METEOR: OPT 10.2 → 12.8, GPT2-base 8.4 → 8.3.
    arms = [[np.full(3, value / 100)] * 2 for value in (12.8, 10.2, 8.3, 8.4)]
    found = combined(*arms, factors=(1, -1, -1, 1))
    assert found.delta == pytest.approx(2.7)


def test_p_goes_below_what_resamples_of_clips_can_tell() -> None:
    random = np.random.default_rng(0)
    high = 0.9 + random.normal(0, 1e-5, (5, 1)) + random.normal(0, 0.01, 40)
    found = combined(high, high - 0.8 + random.normal(0, 1e-5, (5, 1)), draws=200)
    assert found.p == pytest.approx(2 / (200 * 20 + 1))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([]) == []


def test_seeds_without_a_partner_are_left_out(tmp_path: Path) -> None:
    right, wrong = written_captions(1.0), written_captions(0.0)
    own = [write_run(tmp_path, f"a{n}", right, seed=n) for n in (1, 2, 3)]
    other = [write_run(tmp_path, f"b{n}", wrong, seed=n) for n in (2, 3, 4)]
    found = compare("emotion_recall", own, other)
    assert (found.seeds, found.delta) == (2, pytest.approx(100.0))
    with pytest.raises(DataError, match="no seed in common"):
        compare("bleu4", own[:1], other)


def test_runs_that_are_no_arm(tmp_path: Path) -> None:
    few = write_run(tmp_path, "few", written_captions(1.0, clips=4))
    more = write_run(tmp_path, "more", written_captions(1.0, clips=5), seed=1)
    for runs, message in (
        ([few, few], "same seed"),
        ([few, more], "different clips"),
        ([], "no run"),
    ):
        with pytest.raises(DataError, match=message):
            estimate("bleu4", runs)


def test_a_run_is_scored_as_by_its_metrics(tmp_path: Path) -> None:
    captions = written_captions(0.6)
    run = write_run(tmp_path, "kd-0", captions)
    clips = [
        ScoredClip(clip, caption, REFERENCES[emotion], emotion=emotion)
        for clip, (emotion, caption) in captions.items()
    ]
    for name in ("bleu4", "cider", "emotion-recall"):
        expected = 100 * open_metric(name, MetricOptions()).measure(clips).value
        assert estimate(name.replace("-", "_"), [run]).value == pytest.approx(expected, abs=1e-4)
    none = estimate("aes_c", [run])
    assert (none.value, none.low, none.clips) == (None, None, 12)
    with pytest.raises(UnknownNameError, match="meteor"):
        estimate("metoer", [run])


def judged(out: Path) -> dict[str, Comparison]:
    return {one.claim.name: one.found for one in judge(read_runs(out), metrics=["emotion_recall"])}


def test_orderings_are_judged_in_the_settings_that_have_their_arms(tmp_path: Path) -> None:
    for seed in range(3):
        for alignment, right in {"kd": 1.0, "cl": 0.4}.items():
            captions = written_captions(right, seed=seed)
            write_run(tmp_path, f"{alignment}-{seed}", captions, seed=seed, alignment=alignment)
        right = written_captions(1.0)
        write_run(tmp_path, f"po-{seed}", right, seed=seed, preference="po")
        write_run(tmp_path, f"po-100-{seed}", right, seed=seed, preference="po", point={"pairs": 9})
        # Another setting, in which it has no rival.
        write_run(tmp_path, f"zero-{seed}", right, seed=seed, protocol="zero-shot")
    assert {name: one.verdict for name, one in judged(tmp_path).items()} == {
        "KD-Align above CL-Align": Ordering.HOLDS,
        "KD-PO above KD": Ordering.OPEN,  # both name every emotion
    }
    runs = read_runs(tmp_path)
    found = judge(runs, metrics=["emotion_recall"])
    assert [setting_text(one.setting) for one in found] == [
        "in-domain: ravdess + emodb → emodb (test)"
    ] * 2
    assert found[0].p_holm == pytest.approx(2 * found[0].found.p)
    assert len(missing(runs)) == len(CLAIMS) - 2


def test_every_ordering_can_be_met(tmp_path: Path) -> None:
    wanted = [selector for claim in CLAIMS for _, selector in claim.terms]
    runs = [
        write_run(tmp_path, f"run-{n}", written_captions(1.0, clips=4), **{"alignment": "", **one})
        for n, one in enumerate(wanted)
        if one not in wanted[:n]
    ]
    assert missing(runs) == []
    assert all(sum(matches(run, one) for run in runs) == 1 for one in wanted)
    assert contrast("bleu4", [(1.0, runs[:1]), (-1.0, runs[1:2])]).delta == pytest.approx(0.0)
