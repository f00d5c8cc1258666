"""Scores over seeds and clips together, differences between arms on the same clips and seeds, and
whether the orderings that the paper reports hold.

Two things are drawn anew. *Clips*: they are resampled with replacement, the same resample for every
seed and for both sides of a difference (`metrics.scores.resampled`), so corpus scores such as BLEU
are scored anew each time. *Seeds*: a handful cannot be resampled (three have ten resamples, and
none reaches beyond the extremes), so the mean over seeds is moved by their standard deviation over
sqrt(seeds) times a draw of Student's t with seeds - 1 degrees of freedom. With normal seeds that
covers 95 % from two seeds on; with one seed the interval is that of the clips alone, and no
ordering is judged by it. Speakers are not resampled: intervals are for those tested.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isnan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from aligncap.errors import DataError
from aligncap.experiments.runs import StoredRun, check_same_clips, check_same_judge
from aligncap.metrics.scores import (
    CONFIDENCE,
    DRAWS,
    Floats,
    Statistics,
    bounds,
    expanded_tail,
    resampled,
    two_sided,
)

Term = tuple[float, Sequence[StoredRun]]
"""A factor, and the runs of one arm: one for each seed, all of the same clips."""

TAIL = (1 - CONFIDENCE) / 2

_EACH = 20
"""Draws of the seeds to each resample of clips."""

_ALIKE = 1e-9
"""A standard deviation below it is that of rounding."""

JUDGE_DRAWS = 4000
"""Resamples of clips of a verdict: with the draws of seeds, p goes down to 2.5e-5, which what is
adjusted over some hundred comparisons needs."""


class Ordering(StrEnum):
    """What an interval says of "above"."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score, x 100 where it is a share, with its 95 % interval over clips and seeds."""

    value: float | None
    """The mean over seeds; None where there is no score."""
    low: float | None
    high: float | None
    sd: float | None
    """Between seeds, on the same clips; None of a single seed."""
    clips: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far one arm is above another on the same clips and seeds."""

    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    """Two-sided."""
    verdict: Ordering
    """Whether the first is above the second."""
    sd: float | None
    """Of the difference, between seeds."""
    clips: int
    seeds: int


def estimate(
    metric: str, runs: Sequence[StoredRun], *, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """The score of an arm: `runs` differ in their seed alone. DataError where they do not."""
    found = contrast(metric, [(1.0, runs)], draws=draws, seed=seed)
    low = None if found.low is None else max(found.low, 0.0)  # no score is below
    return Estimate(found.delta, low, found.high, found.sd, found.clips, found.seeds)


def compare(
    metric: str,
    runs: Sequence[StoredRun],
    rivals: Sequence[StoredRun],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """The score of an arm less that of its rival, by the seeds that both have. DataError where they
    have no seed in common, or were tested on other clips."""
    return contrast(metric, [(1.0, runs), (-1.0, rivals)], draws=draws, seed=seed)


def contrast(
    metric: str, terms: Sequence[Term], *, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """A weighted sum of scores on the same clips, by the seeds that all terms have.

    Of one term it is a score, of two with the factors 1 and -1 a difference, of four the difference
    of two gains. Nothing but None where a term has no such score. DataError where the runs are of
    different clips or judged by different models, or no seed is common to all terms.
    """
    clips = _count_clips(terms)
    check_same_judge(metric, [one for _, some in terms for one in some])
    arms = [(factor, _by_seed(runs)) for factor, runs in terms]
    seeds = sorted(set.intersection(*(set(arm) for _, arm in arms)))
    if not seeds:
        raise DataError("the arms have no seed in common; run aligncap reproduce with the same")
    known = [[(factor, arm[one].statistics(metric)) for factor, arm in arms] for one in seeds]
    per_seed = [[(k, one) for k, one in terms if one is not None] for terms in known]
    if any(len(terms) < len(arms) for terms in per_seed):
        return Comparison(None, None, None, None, Ordering.OPEN, None, clips, len(seeds))
    return over_seeds(per_seed, clips, draws=draws, seed=seed)


def over_seeds(
    per_seed: Sequence[Sequence[tuple[float, Statistics]]],
    clips: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """For each seed the terms of a weighted sum, all over the same clips: its mean over seeds, with
    the interval over clips and seeds."""
    scale = per_seed[0][0][1].scale
    values = scale * np.array([sum(k * one.value for k, one in terms) for terms in per_seed])
    sd = float(values.std(ddof=1)) if len(per_seed) > 1 else None
    drawn = scale * _drawn(per_seed, clips, draws=draws, seed=seed)
    if sd is None:
        low, high = bounds(drawn, clips)
    else:
        drawn = values.mean() + _moved(drawn - values.mean(), clips, sd, len(per_seed), seed)
        low, high = bounds(drawn, clips, tail=TAIL)
    delta = None if isnan(values.mean()) else float(values.mean())
    p = two_sided(drawn) if low is not None else None
    if p is not None and (sd is None or sd < _ALIKE):  # the resamples of clips, each many times
        p = max(p, 2 / (draws + 1))
    verdict = _verdict(low, high) if sd is not None else Ordering.OPEN
    return Comparison(delta, low, high, p, verdict, sd, clips, len(per_seed))


def _moved(deviations: Floats, clips: int, sd: float, seeds: int, seed: int) -> Floats:
    """Deviations of resamples of clips, stretched as the expanded percentiles would (those would
    stretch Student's tails, too), each moved by draws of the mean over seeds. [draws x _EACH]"""
    if clips > 1:
        normal = NormalDist()
        deviations = deviations * (normal.inv_cdf(expanded_tail(clips)) / normal.inv_cdf(TAIL))
    moves = np.random.default_rng((seed, seeds)).standard_t(seeds - 1, (len(deviations), _EACH))
    moved: Floats = (deviations[:, None] + sd / sqrt(seeds) * moves).ravel()
    return moved


def _drawn(
    per_seed: Sequence[Sequence[tuple[float, Statistics]]], clips: int, *, draws: int, seed: int
) -> Floats:
    """The mean over seeds of the weighted sum, for each resample of clips. [draws]"""
    blocks = []
    for weights in resampled(clips, draws=draws, seed=seed):
        sums = [
            factor * own.value_of(weights @ own.per_clip)
            for known in per_seed
            for factor, own in known
        ]
        blocks.append(np.sum(sums, axis=0) / len(per_seed))
    return np.concatenate(blocks) if blocks else np.empty(0)


def _verdict(low: float | None, high: float | None) -> Ordering:
    if low is not None and low > 0:
        return Ordering.HOLDS
    return Ordering.FAILS if high is not None and high < 0 else Ordering.OPEN


def _by_seed(runs: Sequence[StoredRun]) -> dict[int, StoredRun]:
    found = {one.seed: one for one in runs}
    if len(found) < len(runs):
        names = ", ".join(one.name for one in runs)
        raise DataError(f"{names}: two runs of an arm have the same seed; keep one of them")
    return found


def _count_clips(terms: Sequence[Term]) -> int:
    """The clips that every run was tested on."""
    runs = [one for _, some in terms for one in some]
    if not terms or not all(some for _, some in terms):
        raise DataError("there is no run to compare; run aligncap reproduce first")
    check_same_clips(runs)
    return len(runs[0].clips)


Selector = Mapping[str, Any]
"""Fields of run.json and their values; what of `USUAL` is not named is as usual."""

USUAL: Selector = {"preference": "none", "without": [], "language_model": "", "point": {}}
SETTING = ("protocol", "train", "texts", "test", "split")
"""What runs that are compared have in common."""


def matches(run: StoredRun, wanted: Selector) -> bool:
    """Whether a run is of this arm."""
    return all(run.table.get(name) == value for name, value in {**USUAL, **wanted}.items())


def setting_of(run: StoredRun) -> tuple[Any, ...]:
    """What the run was trained and tested on."""
    found = (run.table.get(name) or () for name in SETTING)
    return tuple(tuple(one) if isinstance(one, list) else one for one in found)


@dataclass(frozen=True, slots=True)
class Claim:
    """An ordering that the paper reports: the weighted sum of these arms is above zero."""

    name: str
    place: str
    """Where in the paper; "ours" for a control that the paper does not have."""
    terms: tuple[tuple[float, Selector], ...]


def _above(name: str, place: str, one: Selector, other: Selector) -> Claim:
    return Claim(name, place, ((1.0, one), (-1.0, other)))


def _aligncap(alignment: str = "kd", **fields: Any) -> Selector:
    return {"system": "AlignCap", "alignment": alignment, **fields}


def _gain(larger: str, smaller: str) -> Claim:
    """PO adds more to the larger language model."""
    terms = [
        (sign * own, _aligncap(language_model=model, preference=preference))
        for sign, model in ((1.0, larger), (-1.0, smaller))
        for own, preference in ((1.0, "po"), (-1.0, "none"))
    ]
    name = f"PO adds more to {_MODELS[larger]} than to {_MODELS[smaller]}"
    return Claim(name, "§5.4, Table 4", tuple(terms))


def _raises(model: str, sign: float = 1.0, place: str = "§5.4, Table 4") -> Claim:
    """PO raises a language model's scores, or lowers them."""
    po, none = (_aligncap(language_model=model, preference=one) for one in ("po", "none"))
    names = (f"{_MODELS[model]}-PO", _MODELS[model])
    upper, lower = names if sign > 0 else reversed(names)
    return Claim(f"{upper} above {lower}", place, ((sign, po), (-sign, none)))


_MODELS = {"gpt2": "GPT2-base", "gpt2-large": "GPT2-large", "opt": "OPT"}


_PO, _RLHF = _aligncap(preference="po"), _aligncap(preference="rlhf")
_BEFORE = {
    "none": "No-Align",
    "cl": "CL-Align",
    "cl+ni": "CL+NI-Align",
    "cl+proj": "CL+Proj-Align",
}
ALIGNMENT_NAMES: Mapping[str, str] = {**_BEFORE, "kd": "KD-Align"}
"""`alignment` of run.json → as the paper writes it."""
_RIVALS: Mapping[str, Selector] = {
    "HTSAT-BART": {"system": "HTSAT-BART"},
    "NoAudioCap": {"system": "NoAudioCap"},
    "SECap": {"system": "SECap"},
    "SECap-PO": {"system": "SECap", "preference": "po"},
}

CLAIMS: tuple[Claim, ...] = (
    *(
        _above(f"KD-Align above {name}", "§5.2, Figure 8", _aligncap(), _aligncap(key))
        for key, name in _BEFORE.items()
    ),
    *(
        _above(f"{_BEFORE[key]} above No-Align", "§2, Figure 2", _aligncap(key), _aligncap("none"))
        for key in ("cl", "cl+proj")
    ),
    _above("KD-PO above KD", "§4.4, Table 2", _PO, _aligncap()),
    _above("KD-RLHF above KD", "§4.4, Table 2", _RLHF, _aligncap()),
    _above("KD-PO above KD-RLHF", "§4.3, Table 1", _PO, _RLHF),
    _above("SECap-PO above SECap", "§4.3, Table 1", _RIVALS["SECap-PO"], _RIVALS["SECap"]),
    *(
        _above(f"KD-PO above {name}", "§4.3, Table 1", _PO, rival)
        for name, rival in _RIVALS.items()
    ),
    *(
        _above(
            f"KD-{kind} above KD-{kind} without {part}",
            "§4.4, Table 2",
            _aligncap(preference=kind.lower()),
            _aligncap(preference=kind.lower(), without=[key]),
        )
        for kind in ("PO", "RLHF")
        for key, part in (("p_act", "P_act"), ("kl", "L_KL"))
    ),
    _raises("gpt2", -1.0, "§5.4, Table 4 (METEOR, ROUGE-L)"),
    _raises("gpt2-large"),
    _raises("opt"),
    _gain("gpt2-large", "gpt2"),
    _gain("opt", "gpt2-large"),
    _gain("opt", "gpt2"),
    _above(
        "KD-PO above its steps spent on chosen captions by cross-entropy",
        "ours",
        _PO,
        _aligncap(preference="ce-control"),
    ),
)
"""The paper's orderings, and one control of ours."""

JUDGED = ("bleu4", "meteor", "rouge_l", "cider", "emotion_recall")
"""The metrics by which orderings are judged."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on an ordering, in one setting and by one metric."""

    claim: Claim
    setting: tuple[Any, ...]
    """As `setting_of`."""
    metric: str
    found: Comparison
    p_holm: float | None
    """Of all that is judged together (Holm's procedure)."""


def judge(
    runs: Sequence[StoredRun],
    *,
    claims: Iterable[Claim] = CLAIMS,
    metrics: Sequence[str] = JUDGED,
    draws: int = JUDGE_DRAWS,
    seed: int = 0,
) -> list[Judged]:
    """The verdict on each ordering in each setting that has all of its arms, by each metric.

    An ordering of which no setting has all arms is not among them (`missing`).
    """
    found = [
        (claim, setting, metric, contrast(metric, terms, draws=draws, seed=seed))
        for claim in claims
        for setting, terms in _settings(runs, claim)
        for metric in metrics
    ]
    adjusted = iter(holm([one.p for *_, one in found if one.p is not None]))
    return [
        Judged(claim, setting, metric, one, None if one.p is None else next(adjusted))
        for claim, setting, metric, one in found
    ]


def missing(runs: Sequence[StoredRun], claims: Iterable[Claim] = CLAIMS) -> list[Claim]:
    """The orderings of which no setting has all arms."""
    return [claim for claim in claims if not any(True for _ in _settings(runs, claim))]


def settings(runs: Iterable[StoredRun]) -> dict[tuple[Any, ...], list[StoredRun]]:
    """The runs by setting, in the order of their first."""
    found: dict[tuple[Any, ...], list[StoredRun]] = {}
    for run in runs:
        found.setdefault(setting_of(run), []).append(run)
    return found


def _settings(
    runs: Sequence[StoredRun], claim: Claim
) -> Iterator[tuple[tuple[Any, ...], list[Term]]]:
    for setting, own in settings(runs).items():
        terms: list[Term] = [
            (factor, [run for run in own if matches(run, wanted)]) for factor, wanted in claim.terms
        ]
        if all(some for _, some in terms):
            yield setting, terms


def holm(p: Sequence[float]) -> list[float]:
    """The p-values as Holm's procedure adjusts them, in their order."""
    found, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda n: p[n])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        found[place] = least
    return found


def setting_text(setting: Sequence[Any]) -> str:
    """A setting in words: "in-domain: ravdess + emodb → ravdess (test)"."""
    protocol, train, texts, test, split = setting
    learnt = " + ".join([*train, *(f"captions of {one}" for one in texts)])
    return f"{protocol}: {learnt} → {test} ({split})"
