"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) with the conventions of the COCO evaluation.

Counts are summed over the corpus; an n-gram counts as often as the reference that has it most;
the reference nearest in length sets the brevity penalty, the shorter of two as near; two tiny
constants keep the quotients finite.
"""

import numpy as np

from aligncap.errors import UnknownNameError
from aligncap.scoring.ngrams import ORDERS, Ints, Sentences, TokenisedClips
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics

TINY, SMALL = 1e-15, 1e-9
"""COCO's constants, above and below the line: no match at all is a score of nearly 0."""

NAMES = tuple(f"bleu{order}" for order in range(1, ORDERS + 1))


def open_metric(name: str, options: MetricOptions) -> Metric:
    """BLEU of the order in its name."""
    if name not in NAMES:
        raise UnknownNameError("BLEU", name, NAMES)
    return Bleu(NAMES.index(name) + 1, options)


class Bleu:
    """Corpus BLEU up to one order."""

    def __init__(self, order: int, options: MetricOptions) -> None:
        self.name = f"bleu{order}"
        self._order = order
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        self.variant = f"{self.name}:coco|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """Lengths and matches of each clip."""
        rows = statistics(self._tokenised(clips, self._tokeniser), orders=self._order)
        return Statistics(rows, bleu)


def statistics(clips: TokenisedClips, *, orders: int = ORDERS) -> Floats:
    """Columns hypothesis length, reference length, then per order n-grams said and matched."""
    said = clips.hypotheses.lengths
    columns = [said, nearest_lengths(said, clips.references)]
    for order, matched in enumerate(clips.matched[:orders], start=1):
        columns += [np.maximum(said - order + 1, 0), matched]
    return np.stack(columns, axis=1).astype(np.float64)


def bleu(sums: Floats) -> Floats:
    """BLEU of summed statistics, shape [..., 2 + 2 orders] to [...]."""
    said, reference, *counts = np.moveaxis(sums, -1, 0)
    precision = np.ones_like(said)
    for guessed, correct in zip(counts[::2], counts[1::2], strict=True):
        precision = precision * (correct + TINY) / (guessed + SMALL)
    ratio = (said + TINY) / (reference + SMALL)
    penalty = np.exp(1 - 1 / np.minimum(ratio, 1))
    value: Floats = penalty * precision ** (2 / len(counts))
    return value


def nearest_lengths(said: Ints, references: Sentences) -> Ints:
    """The length of the reference nearest to each hypothesis's, shape [clips]."""
    lengths = references.lengths
    order = np.lexsort((lengths, np.abs(lengths - said[references.clip]), references.clip))
    first = np.flatnonzero(np.diff(references.clip, prepend=-1))
    return lengths[order][first]
