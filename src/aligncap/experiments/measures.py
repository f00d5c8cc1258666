"""What captions are measured by where a clip's facts and labels are known, and tables of that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aligncap.clues import emotion_of, find_clues
from aligncap.corpora.captions import write_captions
from aligncap.preference.claims import verdicts
from aligncap.preference.known import Known, Standing, plain_clues
from aligncap.preference.row_clips import RowClip
from aligncap.scoring.intervals import difference
from aligncap.scoring.table import MetricOptions, open_metric
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics
from aligncap.values import Verdict

REFERENCES, REFERENCE_SEED = 5, 1009
"""Captions that a clip is scored against, and their seed: training rows have others."""

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


def scored(
    clips: Sequence[RowClip], runs: Sequence[Sequence[str]], *, language: str
) -> list[ScoredClip]:
    """The clips with a line of each run, and references that no model has been trained on."""
    found = []
    for one, texts in zip(clips, zip(*runs, strict=True), strict=True):
        references = write_captions(
            one.utterance,
            one.clip.facts,
            language=language,
            count=REFERENCES,
            seed=REFERENCE_SEED,
        )
        found.append(
            ScoredClip(
                one.clip.utterance, "\n".join(texts), tuple(references), emotion=one.clip.emotion
            )
        )
    return found


def tables(
    metrics: Sequence[Metric],
    clips: Sequence[RowClip],
    said: Mapping[str, Sequence[Sequence[str]]],
    *,
    language: str,
) -> list[str]:
    """Markdown: each arm's mean ± sd over its runs, then paired differences to the first arm."""
    lines = [f"| | {' | '.join(said)} |", "|" + " --- |" * (len(said) + 1)]
    for metric in metrics:
        cells = []
        for runs in said.values():
            every = [metric.measure(scored(clips, [run], language=language)) for run in runs]
            values = [one.scale * one.value for one in every]
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.2f}{spread}")
        lines.append(f"| {metric.name} | {' | '.join(cells)} |")
    distinct = [
        f"{np.mean([100 * len(set(run)) / len(run) for run in runs]):.2f}" for runs in said.values()
    ]
    lines.append(f"| distinct captions | {' | '.join(distinct)} |")
    first, *others = said
    told = {name: scored(clips, runs, language=language) for name, runs in said.items()}
    heads = [f"{name} less {first}" for name in others]
    lines += ["", f"| difference | {' | '.join(heads)} |", "|" + " --- |" * (len(others) + 1)]
    for metric in metrics:
        cells = []
        for name in others:
            delta = difference(OverRuns(metric), told[name], told[first])
            bounds = f"{delta.low:+.2f} … {delta.high:+.2f}" if delta.low is not None else "–"
            cells.append(f"{delta.delta:+.2f} [{bounds}]")
        lines.append(f"| {metric.name} | {' | '.join(cells)} |")
    return lines
