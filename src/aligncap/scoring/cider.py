"""CIDEr and CIDEr-D (Vedantam et al., CVPR 2015).

Both compare a caption with each of its references by the cosine of their TF-IDF vectors, for
n-grams of one to four tokens; a clip's score is the mean over references and orders, times ten.
Document frequencies come from the references of the clips that are scored together: a score
depends on which clips those are, and of a single clip it is 0.

cider     the plain cosine (Eq. 1 and 2), without the stemming of the paper
cider-d   a weight of the caption counts up to the reference's only, and a Gaussian of the
          difference in length (sigma 6) multiplies the similarity: what COCO reports as "CIDEr"
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from aligncap.scoring.ngrams import ORDERS, Column, Counts, TokenisedClips, located
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics, mean_of_clips

SIGMA = 6.0
"""Of the Gaussian over the difference in length."""

SCALE = 10.0
"""Both are ten times the mean similarity; reported x 100, a perfect caption has 1000."""


def open_metric(name: str, options: MetricOptions) -> Metric:
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
