"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) with the conventions of the COCO evaluation.

Counts are summed over the corpus; an n-gram counts as often as the reference that has it most;
the reference nearest in length sets the brevity penalty, the shorter of two as near; two tiny
constants keep the quotients finite.

ROUGE-L (Lin, ACL 2004) with the conventions of the COCO evaluation.

Precision and recall of the longest common subsequence, each from the reference that is best for
it, are weighed by beta = 1.2; the score is the mean over clips. An empty caption scores 0.

CIDEr and CIDEr-D (Vedantam et al., CVPR 2015).

Both compare a caption with each of its references by the cosine of their TF-IDF vectors, for
n-grams of one to four tokens; a clip's score is the mean over references and orders, times ten.
Document frequencies come from the references of the clips that are scored together: a score
depends on which clips those are, and of a single clip it is 0.

cider     the plain cosine (Eq. 1 and 2), without the stemming of the paper
cider-d   a weight of the caption counts up to the reference's only, and a Gaussian of the
          difference in length (sigma 6) multiplies the similarity: what COCO reports as "CIDEr"

How varied a set of captions is: distinct n-grams (Li et al., NAACL 2016) and repeats.

Each belongs to the whole set and shrinks as the set grows, so only sets of the same size compare.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.errors import UnknownNameError
from aligncap.metrics.scores import Floats, Metric, ScoredClip, SetMetric, Statistics, mean_of_clips
from aligncap.metrics.table import MetricOptions
from aligncap.metrics.tokenise import (
    ORDERS,
    Column,
    Counts,
    Ints,
    Sentences,
    TokenisedClips,
    Tokeniser,
    located,
    open_tokeniser,
)

TINY, SMALL = 1e-15, 1e-9
"""COCO's constants, above and below the line: no match at all is a score of nearly 0."""

NAMES = tuple(f"bleu{order}" for order in range(1, ORDERS + 1))


def open_bleu(name: str, options: MetricOptions) -> Metric:
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


BETA = 1.2
"""Recall weighs beta squared times as much as precision."""


def open_rouge(name: str, options: MetricOptions) -> Metric:
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


SIGMA = 6.0
"""Of the Gaussian over the difference in length."""

SCALE = 10.0
"""Both are ten times the mean similarity; reported x 100, a perfect caption has 1000."""


def open_cider(name: str, options: MetricOptions) -> Metric:
    """CIDEr or CIDEr-D."""
    return Cider(name, options)


class Cider:
    """Consensus of a caption with its references."""

    def __init__(self, name: str, options: MetricOptions) -> None:
        self.name = name
        self._score: Callable[[TokenisedClips], Floats] = {"cider": cider, "cider-d": cider_d}[name]
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        self.variant = f"{name}:df-corpus|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The score of each clip, with the document frequencies of all of them."""
        values = self._score(self._tokenised(clips, self._tokeniser))
        return mean_of_clips(values, together=True)


def cider(clips: TokenisedClips) -> Floats:
    """Cosines of TF-IDF vectors, shape [clips]."""
    total = sum(
        _cosine(pairs, pairs.hypothesis * pairs.reference, clips) for pairs in _weighted(clips)
    )
    return _mean_of_references(np.asarray(total), clips)


def cider_d(clips: TokenisedClips) -> Floats:
    """Clipped cosines of TF-IDF vectors, lowered where lengths differ, shape [clips]."""
    total = sum(
        _cosine(pairs, np.minimum(pairs.hypothesis, pairs.reference) * pairs.reference, clips)
        for pairs in _weighted(clips)
    )
    # As COCO does it: a length is counted in bigrams.
    said = np.maximum(clips.hypotheses.lengths - 1, 0)[clips.references.clip]
    apart = said - np.maximum(clips.references.lengths - 1, 0)
    return _mean_of_references(total * np.exp(-(apart**2) / (2 * SIGMA**2)), clips)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Where a hypothesis and a reference share an n-gram: the reference, and both weights."""

    sentence: Column
    hypothesis: Floats
    reference: Floats
    hypothesis_norms: Floats
    """Shape [clips]."""
    reference_norms: Floats
    """Shape [references]."""


def _weighted(clips: TokenisedClips) -> Iterator[_Pairs]:
    """The shared n-grams of each order with their TF-IDF weights."""
    clip = clips.references.clip
    own = np.arange(clips.clips)
    for hypotheses, references in clips.counted:
        known = np.unique(references.keys(clip)) % max(references.grams, 1)
        documents = np.bincount(known, minlength=references.grams)
        rarity = np.log(clips.clips) - np.log(np.maximum(documents, 1))
        said = hypotheses.count * rarity[hypotheses.gram]
        meant = references.count * rarity[references.gram]
        found, place = located(references.keys(clip), hypotheses.keys(own))
        yield _Pairs(
            references.sentence[found],
            said[place],
            meant[found],
            _norms(hypotheses, said, clips.clips),
            _norms(references, meant, len(clip)),
        )


def _norms(counts: Counts, weights: Floats, sentences: int) -> Floats:
    norms: Floats = np.sqrt(np.bincount(counts.sentence, weights**2, sentences))
    return norms


def _cosine(pairs: _Pairs, products: Floats, clips: TokenisedClips) -> Floats:
    """Summed products over norms, shape [references]; 0 where a norm is."""
    clip = clips.references.clip
    dots = np.bincount(pairs.sentence, products, len(clip))
    norms = pairs.hypothesis_norms[clip] * pairs.reference_norms
    value: Floats = dots / np.where(norms > 0, norms, 1.0)
    return value


def _mean_of_references(similarities: Floats, clips: TokenisedClips) -> Floats:
    sums = np.add.reduceat(similarities, clips.bounds[:-1])
    value: Floats = SCALE / ORDERS * sums / np.diff(clips.bounds)
    return value


def distinct(sentences: Sequence[Sequence[str]], order: int) -> float:
    """Different n-grams over n-grams, of all sentences together; 0 where there is none."""
    ngrams = [
        tuple(tokens[at : at + order])
        for tokens in sentences
        for at in range(len(tokens) - order + 1)
    ]
    return len(set(ngrams)) / max(1, len(ngrams))


def repeated(captions: Sequence[str]) -> float:
    """Share of captions that another clip has got already; white space at the ends is nothing."""
    return 1 - len({caption.strip() for caption in captions}) / max(1, len(captions))


@dataclass(frozen=True, slots=True)
class Distinct:
    """Distinct n-grams of one order over all hypotheses."""

    name: str
    order: int
    tokeniser: Tokeniser

    @property
    def variant(self) -> str:
        """As `SetMetric`."""
        return f"{self.name}:of-set|tok:{self.tokeniser.name}"

    def value(self, clips: list[ScoredClip]) -> float:
        """As `SetMetric`."""
        return distinct([self.tokeniser(clip.hypothesis) for clip in clips], self.order)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Share of repeated captions."""

    name: str = "repeated"
    variant: str = "repeated:of-set"

    def value(self, clips: list[ScoredClip]) -> float:
        """As `SetMetric`."""
        return repeated([clip.hypothesis for clip in clips])


DISTINCT_ORDERS = {"distinct1": 1, "distinct2": 2}


def open_distinct(name: str, options: MetricOptions) -> SetMetric:
    """`distinct1`, `distinct2` or `repeated`."""
    if name not in DISTINCT_ORDERS:
        return Repeated()
    return Distinct(
        name, DISTINCT_ORDERS[name], open_tokeniser(options.tokenisation, options.language)
    )
