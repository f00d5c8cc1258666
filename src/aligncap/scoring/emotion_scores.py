"""Emotion recall: how often a caption names the emotion of the clip, class by class.

The emotion of a clip is the one its references file gives it, else the one that most of its
references name first, of several the first in the order of `values.EMOTIONS`. A clip of which
neither says an emotion is not counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.clues import emotion_of
from aligncap.errors import DataError
from aligncap.scoring.findings import Findings
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.values import Floats, ScoredClip, Statistics
from aligncap.values import EMOTIONS


def macro_recall(truth: Sequence[str], named: Sequence[str | None]) -> float:
    """Mean over the classes of `truth` of the share of each that was named right (UAR).

    None counts as wrong. Raises DataError where there is nothing to average.
    """
    if len(truth) != len(named) or not truth:
        raise DataError(f"macro recall of {len(truth)} labels and {len(named)} answers")
    return recall_statistics(truth, named, classes=sorted(set(truth))).value


def recall_statistics(
    truth: Sequence[str | None], named: Sequence[str | None], *, classes: Sequence[str]
) -> Statistics:
    """A row a clip of hits, then of clips, each by class; the value is the macro recall.

    A clip without a truth has a row of zeros, and a class without clips does not count.
    """
    of_class = np.array([[label == one for one in classes] for label in truth], dtype=np.float64)
    right = np.array([[a == b] for a, b in zip(truth, named, strict=True)], dtype=np.float64)
    return Statistics(np.hstack([of_class * right, of_class]), mean_recall)


def mean_recall(sums: Floats) -> Floats:
    """Mean over classes of hits by clips; sums of shape [..., 2 x classes] → [...].

    NaN where no clip has a class.
    """
    hits, clips = np.split(sums, 2, axis=-1)
    present = (clips > 0).sum(axis=-1)
    total = (hits / np.maximum(clips, 1)).sum(axis=-1)
    return np.where(present > 0, total / np.maximum(present, 1), np.nan)


@dataclass(frozen=True, slots=True)
class EmotionRecall:
    """Macro recall of the emotion that a sentence names."""

    language: str
    findings: Findings
    name: str = "emotion-recall"

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:macro|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        named = [self._named(clip.hypothesis) for clip in clips]
        return recall_statistics([self.truth(clip) for clip in clips], named, classes=EMOTIONS)

    def truth(self, clip: ScoredClip) -> str | None:
        """The emotion of a clip; None where neither its label nor a reference says one."""
        if clip.emotion is not None:
            return clip.emotion
        votes = Counter(filter(None, map(self._named, clip.references)))
        return max(EMOTIONS, key=lambda emotion: votes[emotion]) if votes else None

    def _named(self, text: str) -> str | None:
        return emotion_of(self.findings.claims(text, self.language).values())


def open_metric(name: str, options: MetricOptions) -> EmotionRecall:
    """`emotion-recall`."""
    return EmotionRecall(options.language, options.findings, name)
