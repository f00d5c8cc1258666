"""METEOR (Banerjee & Lavie, ACL workshops 2005), with the numbers and the alignment of NLTK.

Words are aligned when they are the same, then when their stems are, then when WordNet calls them
synonyms; the score is a mean of precision and recall that leans to recall (alpha = 0.9), lowered
by half at most where the aligned words lie scattered. The best reference counts, and the corpus
has the mean of its clips. WordNet is used where NLTK's data is on this machine; Chinese has
neither stems nor WordNet, and is aligned by exact matches. The signature says which it was.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import numpy as np

from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Metric, ScoredClip, Statistics, mean_of_clips

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""Weight of recall; power and weight of the penalty for scattered words."""

Synonyms = Callable[[str], Collection[str]]
"""A word's synonyms, none of them with a blank."""

Words = dict[int, str]
"""Place → word, in the order of places."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """METEOR; for Chinese with exact matches only."""
    stages = Stages() if options.language != "en" else english_stages()
    return Meteor(name, stages, options)


@dataclass(frozen=True, slots=True)
class Stages:
    """What makes two words match, after being the same."""

    name: str = "exact"
    stem: Callable[[str], str] | None = None
    synonyms: Synonyms | None = None


def english_stages() -> Stages:
    """All stages that this machine has the data for."""
    from nltk.corpus import wordnet
    from nltk.stem.porter import PorterStemmer

    stem = cache(PorterStemmer().stem)
    try:
        dictionary = f"wordnet{wordnet.get_version()}"
    except (LookupError, OSError, ValueError):  # absent, or where NLTK refuses to read
        return Stages("exact+stem", stem)
    return Stages(f"exact+stem+{dictionary}", stem, cache(_wordnet_synonyms))


def _wordnet_synonyms(word: str) -> set[str]:
    from nltk.corpus import wordnet

    names = {lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas()}
    return {name for name in names if "_" not in name}


class Meteor:
    """The mean of the clips' METEOR."""

    def __init__(self, name: str, stages: Stages, options: MetricOptions) -> None:
        self.name = name
        self._stages = stages
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        nltk = f"nltk-{version('nltk')}"
        self.variant = f"{name}:{nltk}-{stages.name}|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The score of each clip."""
        tokenised = self._tokenised(clips, self._tokeniser)
        hypotheses = tokenised.hypotheses.tokens
        scores = np.zeros(len(clips))
        references = tokenised.references
        for clip, reference in zip(references.clip.tolist(), references.tokens, strict=True):
            score = meteor(hypotheses[clip], reference, self._stages)
            scores[clip] = max(scores[clip], score)
        return mean_of_clips(scores)


def meteor(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> float:
    """METEOR of one caption and one reference, 0 to nearly 1."""
    aligned = align(hypothesis, reference, stages)
    if not aligned:
        return 0.0
    precision, recall = len(aligned) / len(hypothesis), len(aligned) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * math.pow(_chunks(aligned) / len(aligned), BETA))


def align(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> dict[int, int]:
    """Place in the hypothesis → place in the reference.

    As NLTK does it: at each stage from the last word to the first, each with the last free word of
    the reference that fits; synonyms are looked up for stems.
    """
    left = dict(enumerate(map(str.lower, hypothesis)))
    free = dict(enumerate(map(str.lower, reference)))
    aligned = _take_same(left, free)
    if stages.stem and left and free:
        left = {place: stages.stem(word) for place, word in left.items()}
        free = {place: stages.stem(word) for place, word in free.items()}
        aligned |= _take_same(left, free)
    if stages.synonyms and left and free:
        aligned |= _take_synonyms(left, free, stages.synonyms)
    return aligned


def _take_same(left: Words, free: Words) -> dict[int, int]:
    """Pairs of the same word, taken out of both."""
    places = _places(free)
    taken = {}
    for place in reversed(left):
        others = places.get(left[place])
        if others:
            taken[place] = others.pop()
    return _taken_out(taken, left, free)


def _take_synonyms(left: Words, free: Words, synonyms: Synonyms) -> dict[int, int]:
    """Pairs of a word and itself or a synonym, taken out of both."""
    places = _places(free)
    taken = {}
    for place in reversed(left):
        fitting = {left[place], *synonyms(left[place])}
        last = [others for word in fitting if (others := places.get(word))]
        if last:
            taken[place] = max(last, key=_last).pop()
    return _taken_out(taken, left, free)


def _places(words: Words) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, word in words.items():
        places.setdefault(word, []).append(place)
    return places


def _last(places: Sequence[int]) -> int:
    return places[-1]


def _taken_out(taken: dict[int, int], left: Words, free: Words) -> dict[int, int]:
    for place, other in taken.items():
        del left[place], free[other]
    return taken


def _chunks(aligned: Mapping[int, int]) -> int:
    """Runs of words that follow each other in both."""
    return sum(aligned.get(place - 1, -2) != other - 1 for place, other in aligned.items())
