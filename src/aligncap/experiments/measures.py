"""What captions are measured by where a clip's facts and labels are known: metrics of `scoring`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from aligncap.clues import emotion_of, find_clues
from aligncap.preference.claims import verdicts
from aligncap.preference.known import Known, Standing, plain_clues
from aligncap.scoring.table import MetricOptions, open_metric
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics
from aligncap.values import Verdict

Counted = Callable[[ScoredClip], tuple[float, float]]
"""Of a clip: a part, and the whole that it is a part of."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part over a whole, both summed over clips."""

    name: str
    counted: Counted
    scale: float = 100.0

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return self.name

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        rows = np.array([self.counted(clip) for clip in clips], dtype=np.float64)
        return Statistics(rows, _share, scale=self.scale)


@dataclass(frozen=True, slots=True)
class OverRuns:
    """A metric of several runs together: a hypothesis has a line for each run.

    What is counted of a clip is added up over its runs, so a bootstrap draws clips, not captions:
    runs with other seeds are no new clips.
    """

    metric: Metric

    @property
    def name(self) -> str:
        """As `Metric`."""
        return self.metric.name

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.metric.variant}|over runs"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        told = [clip.hypothesis.split("\n") for clip in clips]
        runs = [
            self.metric.measure(
                [
                    replace(clip, hypothesis=texts[run])
                    for clip, texts in zip(clips, told, strict=True)
                ]
            )
            for run in range(len(told[0]))
        ]
        total = np.sum([one.per_clip for one in runs], axis=0)
        return replace(runs[0], per_clip=total)


def measures(
    known: Mapping[str, Known], *, language: str, tokens: Callable[[str], int]
) -> list[Metric]:
    """Everything that is reported, for clips whose ids are keys of `known`.

    contradicted by the signal    of the claims that the signal can tell of: the hallucination rate
    not borne out                 of all claims, those that labels, signal and people contradict,
                                  or that none of them bears out
    contradicted                  of all claims, those that they contradict
    names an emotion, clues a caption, tokens a caption: who says less errs less
    """
    options = MetricOptions(language=language)

    def against_signal(clip: ScoredClip) -> tuple[float, float]:
        facts = known[clip.id].facts
        assert facts is not None
        found = verdicts(clip.hypothesis, language=language, facts=facts)
        wrong = found[Verdict.CONTRADICTED]
        return wrong, wrong + found[Verdict.SUPPORTED]

    def held(clip: ScoredClip, *wrong: Standing) -> tuple[float, float]:
        claims = plain_clues(find_clues(clip.hypothesis, language))
        standings = [known[clip.id].hold(one).standing for one in claims]
        return sum(one in wrong for one in standings), len(standings)

    def names_emotion(clip: ScoredClip) -> tuple[float, float]:
        return emotion_of(find_clues(clip.hypothesis, language)) is not None, 1

    unborne = (Standing.CONTRADICTED, Standing.INVENTED, Standing.UNTOLD)
    return [
        Share("contradicted by the signal", against_signal),
        Share("not borne out", lambda clip: held(clip, *unborne)),
        Share("contradicted", lambda clip: held(clip, Standing.CONTRADICTED)),
        *(open_metric(name, options) for name in ("emotion-recall", "cider-d", "clue-f1")),
        Share("names an emotion", names_emotion),
        Share("clues a caption", lambda clip: (held(clip)[1], 1), scale=1.0),
        Share("tokens a caption", lambda clip: (tokens(clip.hypothesis), 1), scale=1.0),
    ]


def _share(sums: Floats) -> Floats:
    part, whole = np.moveaxis(sums, -1, 0)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
