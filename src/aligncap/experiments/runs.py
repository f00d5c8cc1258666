"""Runs as they are stored: what was trained, its captions, their scores. Tables and figures are
made of these files and nothing else.

    <out>/runs/<name>/run.json        what it is, what it took, its signature
                      captions.jsonl  a line of each tested clip
                      scores.json     each metric over all clips, or why it is not there; and the
                                      variant of each (`metrics.scores`): an AES' judge and prompt
                      scores.jsonl    each metric of each clip alone

A folder is there when the run is finished, never before.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aligncap.data.manifest import read_rows
from aligncap.errors import DataError, UnknownNameError
from aligncap.foreign import read_table
from aligncap.metrics.scores import (
    MetricOptions,
    ScoredClip,
    Statistics,
    mean_of_clips,
    open_metric,
)
from aligncap.storage import canonical_json, write_atomic

RUNS_FOLDER = "runs"
RUN_FILE, CAPTIONS_FILE, SCORES_FILE, CLIPS_FILE = (
    *("run.json", "captions.jsonl"),
    *("scores.json", "scores.jsonl"),
)

METRICS: Mapping[str, str] = {
    "bleu4": "bleu4",
    "meteor": "meteor",
    "rouge_l": "rouge-l",
    "cider": "cider",
    "spice": "spice",
    "aes_c": "aes-c",
    "aes_s": "aes-s",
    "emotion_recall": "emotion-recall",
}
"""Key in the files → metric of `aligncap evaluate`: the paper's seven, and one of ours."""

CORPUS_METRICS = ("bleu4", "emotion_recall")
"""Those that are no mean over clips."""

MARKS = ("aes_c", "aes_s")
"""Those that are marks out of ten, not x 100; a judge gives them."""


NOTHING = "nothing that it counts is in these clips"


@dataclass(frozen=True)
class StoredRun:
    """A finished run."""

    folder: Path
    table: Mapping[str, Any]
    """run.json."""

    def __getattr__(self, name: str) -> Any:
        """A field of run.json: name, system, alignment, seed …"""
        if name.startswith("_") or name not in self.table:
            raise AttributeError(name)
        return self.table[name]

    @cached_property
    def captions(self) -> list[Mapping[str, Any]]:
        """The lines of captions.jsonl, in order."""
        return [row for _, row in read_rows(self.folder / CAPTIONS_FILE, what="captions")]

    @cached_property
    def clips(self) -> list[ScoredClip]:
        """The captions with their references, as metrics take them."""
        return list(map(scored_clip, self.captions))

    @property
    def unscored(self) -> list[str]:
        """The metrics that could not be given for want of something."""
        found = self.scores["reasons"].items()
        return [name for name, reason in found if reason != NOTHING]

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """scores.json."""
        return read_table(self.folder / SCORES_FILE, hint="run aligncap reproduce again")

    def variant(self, metric: str) -> str | None:
        """That of a score; None of a score of before these were written down."""
        found: str | None = self.scores.get("variants", {}).get(metric)
        return found

    def to_be_scored(self, options: MetricOptions) -> bool:
        """Whether a score is not there that can be given, or is of another judge than these
        options have."""
        given = [key for key, name in METRICS.items() if not why_not(name, options)]
        return any(
            key in self.unscored
            or (key in MARKS and self.variant(key) != open_metric(METRICS[key], options).variant)
            for key in given
        )

    @cached_property
    def clip_scores(self) -> Mapping[str, Mapping[str, Any]]:
        """The lines of scores.jsonl by clip."""
        return {row["id"]: row for _, row in read_rows(self.folder / CLIPS_FILE, what="scores")}

    @cached_property
    def _measured(self) -> dict[str, Statistics | None]:
        return {}

    def statistics(self, metric: str) -> Statistics | None:
        """The statistics of a key of `METRICS` over `clips`; None where the run has no score.

        Raises UnknownNameError for another key.
        """
        if metric not in METRICS:
            raise UnknownNameError("metric", metric, METRICS)
        if metric not in self._measured:
            self._measured[metric] = self._statistics(metric)
        return self._measured[metric]

    def _statistics(self, metric: str) -> Statistics | None:
        if self.scores.get(metric) is None:
            return None
        if metric in CORPUS_METRICS:
            options = MetricOptions(language=self.table["language"])
            return open_metric(METRICS[metric], options).measure(self.clips)
        found = [self.clip_scores[clip.id].get(metric) for clip in self.clips]
        scale = 1.0 if metric in MARKS else 100.0
        values = np.array([math.nan if one is None else one / scale for one in found])
        return replace(mean_of_clips(values), scale=scale)


def scored_clip(row: Mapping[str, Any]) -> ScoredClip:
    """A line of captions.jsonl as metrics take it."""
    return ScoredClip(
        id=row["id"],
        hypothesis=row["caption"],
        references=tuple(row["references"]),
        emotion=row["emotion"],
    )


def read_runs(out: Path) -> list[StoredRun]:
    """All finished runs in a folder, by name."""
    return [_read_run(file) for file in sorted((out / RUNS_FOLDER).glob(f"*/{RUN_FILE}"))]


def _read_run(file: Path) -> StoredRun:
    hint = "remove its folder and run aligncap reproduce again"
    return StoredRun(file.parent, read_table(file, hint=hint))


def made_of(folder: Path) -> Mapping[str, Any] | None:
    """What the run stored in a folder was made of; None where there is none, or one of before this
    was written down."""
    file = folder / RUN_FILE
    found: Mapping[str, Any] | None = None
    if file.is_file():
        found = _read_run(file).table.get("made_of")
    return found


def write_captions(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write captions.jsonl."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomic(folder / CAPTIONS_FILE, "".join(lines))


def write_scores(
    folder: Path,
    clips: Sequence[ScoredClip],
    options: MetricOptions,
    *,
    former: StoredRun | None = None,
) -> None:
    """Score captions and write scores.json and scores.jsonl.

    A metric that cannot be given keeps the `former` score of these captions, or else has null and a
    reason: SPICE without its Java program or for captions that are not English, AES without a
    judge.
    """
    totals: dict[str, object] = {}
    reasons: dict[str, str] = {}
    variants: dict[str, str | None] = {}
    by_clip: list[dict[str, object]] = [{"id": clip.id} for clip in clips]
    for key, name in METRICS.items():
        reason = why_not(name, options)
        if reason and former is not None and former.scores.get(key) is not None:
            totals[key], variants[key] = former.scores[key], former.variant(key)
            for row in by_clip:
                row[key] = former.clip_scores[str(row["id"])].get(key)
            continue
        if reason:
            totals[key], reasons[key] = None, reason
            continue
        metric = open_metric(name, options)
        variants[key], statistics = metric.variant, metric.measure(list(clips))
        value = statistics.scale * statistics.value
        totals[key] = None if math.isnan(value) else round(value, 6)
        if math.isnan(value):
            reasons[key] = NOTHING
        for row, one in zip(by_clip, statistics.clip_values, strict=True):
            row[key] = None if math.isnan(one) else round(statistics.scale * float(one), 6)
    found = {**totals, "reasons": reasons, "variants": variants}
    write_atomic(folder / CLIPS_FILE, "".join(json.dumps(row) + "\n" for row in by_clip))
    write_atomic(folder / SCORES_FILE, canonical_json(found) + "\n")


def why_not(name: str, options: MetricOptions) -> str:
    """Why a metric is not given; "" where it can be."""
    if name.startswith("aes") and options.judge is None:
        return "no judge was given (--judge-model)"
    if name == "spice" and options.language != "en":
        return "SPICE is of English captions"
    if name == "spice" and options.jars is None:
        return "SPICE's Java program was not given (--jars)"
    return ""


def check_same_clips(runs: Sequence[StoredRun]) -> None:
    """DataError where runs that are compared are not of the same clips."""
    names = {tuple(clip.id for clip in run.clips) for run in runs}
    if len(names) > 1:
        raise DataError(
            f"{runs[0].folder}: {runs[0].name} and others are of different clips; give another "
            "--out, or remove the folder runs in it"
        )


def check_same_judge(metric: str, runs: Sequence[StoredRun]) -> None:
    """DataError where runs that are compared by a judge's marks have them of different judges."""
    judges = {run.variant(metric) for run in runs if run.scores.get(metric) is not None}
    if metric in MARKS and len(judges) > 1:
        raise DataError(
            f"{runs[0].folder}: {runs[0].name} and others have {metric} of different judges "
            f"({', '.join(sorted(map(str, judges)))}); run aligncap reproduce again with "
            "--judge-model, which scores them all"
        )
