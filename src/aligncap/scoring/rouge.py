"""ROUGE-L (Lin, ACL 2004) with the conventions of the COCO evaluation.

Precision and recall of the longest common subsequence, each from the reference that is best for
it, are weighed by beta = 1.2; the score is the mean over clips. An empty caption scores 0.
"""

from collections.abc import Sequence

import numpy as np

from aligncap.scoring.ngrams import TokenisedClips
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics, mean_of_clips

BETA = 1.2
"""Recall weighs beta squared times as much as precision."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """ROUGE-L."""
    return RougeL(name, options)


class RougeL:
    """F-measure of the longest common subsequence."""

    def __init__(self, name: str, options: MetricOptions) -> None:
        self.name = name
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        self.variant = f"{name}:coco-beta{BETA}|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The F-measure of each clip."""
        return mean_of_clips(rouge_l(self._tokenised(clips, self._tokeniser)))


def rouge_l(clips: TokenisedClips) -> Floats:
    """The F-measure of each clip, shape [clips]."""
    common = np.array(
        [
            common_subsequence(clips.hypotheses.tokens[clip], reference)
            for clip, reference in zip(
                clips.references.clip.tolist(), clips.references.tokens, strict=True
            )
        ],
        dtype=np.float64,
    )
    first = clips.bounds[:-1]
    longest = np.maximum.reduceat(common, first)
    precision = longest / np.maximum(clips.hypotheses.lengths, 1)
    recall = np.maximum.reduceat(common / np.maximum(clips.references.lengths, 1), first)
    below = recall + BETA**2 * precision
    value: Floats = (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1.0)
    return value


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    A row of the usual table grows by at most one from column to column, so it is kept as one bit
    a column, and a token is an addition instead of a loop (Hyyrö 2004).
    """
    where: dict[str, int] = {}
    for place, token in enumerate(one):
        where[token] = where.get(token, 0) | 1 << place
    every = (1 << len(one)) - 1
    row = every
    for token in other:
        hits = row & where.get(token, 0)
        if hits:
            row = ((row + hits) | (row - hits)) & every
    return len(one) - row.bit_count()
