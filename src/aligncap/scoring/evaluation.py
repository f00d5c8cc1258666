"""An evaluation: every metric asked for over the same clips, and a baseline beside it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligncap.clues import detect_language
from aligncap.scoring.intervals import (
    Difference,
    SmallSample,
    difference,
    paper25,
    score,
    signature,
)
from aligncap.scoring.table import (
    DEFAULT_METRICS,
    SET_METRICS,
    SPLITS,
    MetricOptions,
    open_metric,
    open_set_metric,
)
from aligncap.scoring.values import Metric, Score, ScoredClip, SetMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is known of one metric; None where it was not asked for or cannot be given."""

    score: Score
    baseline: Score | None = None
    difference: Difference | None = None
    paper25: SmallSample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How intervals are drawn, and whether the paper's way of scoring is shown as well."""

    number: int = 1000
    seed: int = 0
    paper25: bool = False


def usual_metrics(clips: Sequence[ScoredClip]) -> list[str]:
    """The metrics that need nothing more than these clips have."""
    names = list(DEFAULT_METRICS)
    if all(clip.file is not None for clip in clips):
        names.insert(names.index("hallucination") + 1, "hallucination-signal")
    return names


def with_splits(names: Sequence[str]) -> list[str]:
    """The metrics with those that split them behind each, every one once."""
    return list(dict.fromkeys(part for name in names for part in (name, *SPLITS.get(name, ()))))


def language_of(clips: Sequence[ScoredClip]) -> str:
    """The language that most references are written in."""
    counts = Counter(detect_language(text) for clip in clips for text in clip.references)
    return max(sorted(counts), key=lambda language: counts[language])


def evaluate(
    clips: list[ScoredClip],
    names: Sequence[str],
    options: MetricOptions,
    *,
    draws: Draws,
    baseline: list[ScoredClip] | None = None,
) -> Iterator[Line]:
    """A line for each metric, in order; `baseline` are the same clips with another's hypotheses.

    Every metric is opened before the first is measured: what is not on this machine is said at
    once.
    """
    own = {name: open_metric(name, options) for name in names if name not in SET_METRICS}
    of_set = {name: open_set_metric(name, options) for name in names if name in SET_METRICS}
    for name in names:
        if name in of_set:
            metric = of_set[name]
            rival = score_of_set(metric, baseline) if baseline else None
            yield Line(score=score_of_set(metric, clips), baseline=rival)
        else:
            yield _line(own[name], clips, baseline, draws)


def _line(
    metric: Metric, clips: list[ScoredClip], rival: list[ScoredClip] | None, how: Draws
) -> Line:
    drawn = {"draws": how.number, "seed": how.seed}
    return Line(
        score=score(metric, clips, **drawn),
        baseline=score(metric, rival, **drawn) if rival else None,
        difference=difference(metric, clips, rival, **drawn) if rival else None,
        paper25=paper25(metric, clips, seed=how.seed) if how.paper25 else None,
    )


def score_of_set(metric: SetMetric, clips: list[ScoredClip]) -> Score:
    """The score of a whole set of captions (x 100), which has no interval."""
    value = 100 * metric.value(clips)
    return Score(metric.name, value, None, None, signature(metric, clips))
