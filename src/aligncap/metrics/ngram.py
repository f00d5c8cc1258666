"""The n-gram metrics: BLEU, ROUGE-L, CIDEr and CIDEr-D, and the diversity of a set of captions.

BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) and ROUGE-L (Lin, ACL 2004) follow the conventions of
the COCO evaluation. For BLEU, counts are summed over the corpus, the closest reference length sets
the brevity penalty (the shorter of two as close), and two tiny constants keep quotients finite.
For ROUGE-L, precision and recall of the longest common subsequence are each the best over the
references, weighed by beta = 1.2; the score is the mean over clips, 0 for an empty caption.

CIDEr and CIDEr-D (Vedantam et al., CVPR 2015) compare a caption with each of its references by the
cosine of their TF-IDF vectors, for n-grams of one to four tokens; a clip's score is the mean over
references and orders, times ten. Document frequencies come from the references of the clips that
are scored together: a score depends on which clips those are, and of a single clip it is 0.

cider     the plain cosine (Eq. 1 and 2), without the stemming of the paper
cider-d   a weight of the caption counts up to the reference's only, and a Gaussian of the
          difference in length (sigma 6) multiplies the similarity: what COCO reports as "CIDEr"

Distinct n-grams (Li et al., NAACL 2016) and repeats belong to a whole set of captions and shrink
as the set grows, so only sets of the same size compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.metrics import scores, tokenise

TINY, SMALL = 1e-15, 1e-9
"""COCO's constants in numerator and denominator: no match at all is a score of nearly 0."""

ROUGE_BETA = 1.2
"""Recall weighs beta squared times as much as precision."""

CIDER_SIGMA = 6.0
"""Of the Gaussian over the difference in length."""

CIDER_SCALE = 10.0
"""CIDEr is ten times the mean similarity; reported x 100, a perfect caption has 1000."""


class TokenMetric:
    """A metric that is a function of the tokenised clips."""

    def __init__(
        self,
        name: str,
        conventions: str,
        statistics: Callable[[tokenise.TokenisedClips], scores.Statistics],
        options: scores.MetricOptions,
    ) -> None:
        self.name = name
        self._statistics = statistics
        self._tokeniser = tokenise.open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        self.variant = f"{name}:{conventions}|tok:{self._tokeniser.name}"

    def measure(self, clips: list[scores.ScoredClip]) -> scores.Statistics:
        """As `Metric`."""
        return self._statistics(self._tokenised(clips, self._tokeniser))


def open_ngram(name: str, options: scores.MetricOptions) -> scores.Metric:
    """`bleu1` to `bleu4`, `rouge-l`, `cider` or `cider-d`."""
    if name.startswith("bleu"):
        order = int(name.removeprefix("bleu"))
        return TokenMetric(
            name,
            "coco",
            lambda clips: scores.Statistics(bleu_statistics(clips, order), bleu),
            options,
        )
    if name == "rouge-l":
        conventions = f"coco-beta{ROUGE_BETA}"
        return TokenMetric(
            name, conventions, lambda clips: scores.mean_of_clips(rouge_l(clips)), options
        )
    score = {"cider": cider, "cider-d": cider_d}[name]
    return TokenMetric(
        name, "df-corpus", lambda clips: scores.mean_of_clips(score(clips), together=True), options
    )


def bleu_statistics(clips: tokenise.TokenisedClips, max_order: int) -> scores.Floats:
    """Columns candidate length, closest reference length, then per order the number of n-grams and
    of clipped matches; shape [clips, 2 + 2 max_order]."""
    lengths = clips.hypotheses.lengths
    columns = [lengths, closest_lengths(lengths, clips.references)]
    for order, matches in enumerate(clips.clipped_matches[:max_order], start=1):
        columns += [np.maximum(lengths - order + 1, 0), matches]
    return np.stack(columns, axis=1).astype(np.float64)


def closest_lengths(candidates: tokenise.Ints, references: tokenise.Sentences) -> tokenise.Ints:
    """The reference length closest to each candidate's, shape [clips]."""
    lengths = references.lengths
    order = np.lexsort((lengths, np.abs(lengths - candidates[references.clip]), references.clip))
    first = np.flatnonzero(np.diff(references.clip, prepend=-1))
    return lengths[order][first]


def bleu(sums: scores.Floats) -> scores.Floats:
    """BP * (p_1 ... p_N)^(1/N) of summed statistics, shape [..., 2 + 2 N] to [...]."""
    candidate_length, reference_length, *counts = np.moveaxis(sums, -1, 0)
    product = np.ones_like(candidate_length)
    for ngrams, matches in zip(counts[::2], counts[1::2], strict=True):
        product = product * (matches + TINY) / (ngrams + SMALL)  # modified precision p_n
    ratio = (candidate_length + TINY) / (reference_length + SMALL)
    brevity_penalty = np.exp(1 - 1 / np.minimum(ratio, 1))
    value: scores.Floats = brevity_penalty * product ** (2 / len(counts))
    return value


def rouge_l(clips: tokenise.TokenisedClips) -> scores.Floats:
    """F_lcs of each clip, shape [clips]."""
    hypotheses, references = clips.hypotheses, clips.references
    lcs = np.array(
        [
            lcs_length(hypotheses.tokens[clip], reference)
            for clip, reference in zip(references.clip.tolist(), references.tokens, strict=True)
        ],
        dtype=np.float64,
    )
    first = clips.bounds[:-1]
    precision = np.maximum.reduceat(lcs, first) / np.maximum(hypotheses.lengths, 1)
    recall = np.maximum.reduceat(lcs / np.maximum(references.lengths, 1), first)
    below = recall + ROUGE_BETA**2 * precision
    value: scores.Floats = (
        (1 + ROUGE_BETA**2) * precision * recall / np.where(below > 0, below, 1.0)
    )
    return value


def lcs_length(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    A row of the dynamic programme grows by at most one from column to column, so it is kept as one
    bit a column, and a token is an addition instead of a loop (Hyyrö 2004).
    """
    positions: dict[str, int] = {}
    for position, token in enumerate(one):
        positions[token] = positions.get(token, 0) | 1 << position
    mask = (1 << len(one)) - 1
    row = mask
    for token in other:
        hits = row & positions.get(token, 0)
        if hits:
            row = ((row + hits) | (row - hits)) & mask
    return len(one) - row.bit_count()


def cider(clips: tokenise.TokenisedClips) -> scores.Floats:
    """CIDEr of each clip: cosines of TF-IDF vectors, shape [clips]."""
    return _mean_over_references(_cosines(clips, clipped=False), clips)


def cider_d(clips: tokenise.TokenisedClips) -> scores.Floats:
    """CIDEr-D of each clip: clipped cosines, lowered where lengths differ, shape [clips]."""
    # As COCO does it: a length is counted in bigrams.
    candidates = np.maximum(clips.hypotheses.lengths - 1, 0)[clips.references.clip]
    difference = candidates - np.maximum(clips.references.lengths - 1, 0)
    penalty = np.exp(-(difference**2) / (2 * CIDER_SIGMA**2))
    return _mean_over_references(_cosines(clips, clipped=True) * penalty, clips)


def _cosines(clips: tokenise.TokenisedClips, *, clipped: bool) -> scores.Floats:
    """Cosine of the TF-IDF vectors of hypothesis and reference, summed over orders of n-grams and
    0 where a norm is; shape [references]."""
    clip, sentences = clips.references.clip, len(clips.references.clip)
    total = np.zeros(sentences)
    for hypotheses, references in clips.counts:
        documents = np.bincount(
            np.unique(references.keys(clip)) % max(references.grams, 1), minlength=references.grams
        )
        idf = np.log(clips.clips) - np.log(np.maximum(documents, 1))
        g_hypothesis = hypotheses.count * idf[hypotheses.gram]
        g_reference = references.count * idf[references.gram]
        # Where a hypothesis and a reference share an n-gram.
        shared, place = tokenise.matching(
            references.keys(clip), hypotheses.keys(np.arange(clips.clips))
        )
        left, right = g_hypothesis[place], g_reference[shared]
        products = (np.minimum(left, right) if clipped else left) * right
        dots = np.bincount(references.sentence[shared], products, sentences)
        norms = _norms(hypotheses, g_hypothesis, clips.clips)[clip]
        norms = norms * _norms(references, g_reference, sentences)
        total = total + dots / np.where(norms > 0, norms, 1.0)
    return total


def _norms(counts: tokenise.Counts, weights: scores.Floats, sentences: int) -> scores.Floats:
    norms: scores.Floats = np.sqrt(np.bincount(counts.sentence, weights**2, sentences))
    return norms


def _mean_over_references(
    similarities: scores.Floats, clips: tokenise.TokenisedClips
) -> scores.Floats:
    sums = np.add.reduceat(similarities, clips.bounds[:-1])
    value: scores.Floats = CIDER_SCALE / tokenise.MAX_ORDER * sums / np.diff(clips.bounds)
    return value


@dataclass(frozen=True, slots=True)
class Distinct:
    """Different n-grams of one order over all n-grams of the hypotheses; 0 where there is none."""

    name: str
    order: int
    tokeniser: tokenise.Tokeniser

    @property
    def variant(self) -> str:
        """As `SetMetric`."""
        return f"{self.name}:of-set|tok:{self.tokeniser.name}"

    def value(self, clips: list[scores.ScoredClip]) -> float:
        """As `SetMetric`."""
        ngrams = [
            tuple(tokens[at : at + self.order])
            for tokens in (self.tokeniser(clip.hypothesis) for clip in clips)
            for at in range(len(tokens) - self.order + 1)
        ]
        return len(set(ngrams)) / max(1, len(ngrams))


@dataclass(frozen=True, slots=True)
class Repeated:
    """Share of captions that another clip has already, white space at the ends aside."""

    name: str = "repeated"
    variant: str = "repeated:of-set"

    def value(self, clips: list[scores.ScoredClip]) -> float:
        """As `SetMetric`."""
        return 1 - len({clip.hypothesis.strip() for clip in clips}) / max(1, len(clips))


def open_distinct(name: str, options: scores.MetricOptions) -> scores.SetMetric:
    """`distinct1`, `distinct2` or `repeated`."""
    if name == "repeated":
        return Repeated()
    tokeniser = tokenise.open_tokeniser(options.tokenisation, options.language)
    return Distinct(name, int(name.removeprefix("distinct")), tokeniser)
