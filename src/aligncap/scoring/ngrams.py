"""Captions as tokens and as counted n-grams, made once for all metrics of a run.

Tokens are numbered, and an n-gram is the number of its beginning beside the number of its last
token, numbered again: counting and comparing are then sorts of whole columns, and pairs of clips
are never looped over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from aligncap.scoring.tokenise import Tokeniser
from aligncap.scoring.values import ScoredClip

Ints = NDArray[np.int64]

Column = NDArray[np.int32]
"""There are many of these, and they are long."""

ORDERS = 4
"""BLEU and CIDEr count n-grams of one to four tokens."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """Some sentences, one after the other."""

    tokens: list[list[str]]
    clip: Ints
    """The clip that each is of, ascending; shape [sentences]."""

    @property
    def lengths(self) -> Ints:
        """Tokens of each; shape [sentences]."""
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each n-gram of one order stands in each sentence.

    The columns have one entry for each pair that occurs and are sorted by sentence, then n-gram.
    """

    sentence: Column
    gram: Column
    count: Column
    grams: int
    """Different n-grams of this order, in hypotheses and references together."""

    def keys(self, owner: Ints) -> Ints:
        """One number for owner and n-gram; `owner`, shape [sentences], may be the clip."""
        return owner[self.sentence] * self.grams + self.gram


class TokenisedClips:
    """The clips' tokens, and their n-grams once somebody asks."""

    def __init__(self, clips: Sequence[ScoredClip], tokeniser: Tokeniser) -> None:
        self.clips = len(clips)
        self.tokenisation = tokeniser.name
        self.hypotheses = Sentences(
            [tokeniser(clip.hypothesis) for clip in clips], np.arange(len(clips))
        )
        references = [clip.references for clip in clips]
        self.references = Sentences(
            [tokeniser(text) for texts in references for text in texts],
            np.repeat(np.arange(len(clips)), [len(texts) for texts in references]),
        )

    @cached_property
    def bounds(self) -> Ints:
        """Where each clip's references begin, and the end; shape [clips + 1]."""
        return np.searchsorted(self.references.clip, np.arange(self.clips + 1))

    @cached_property
    def counted(self) -> tuple[tuple[Counts, Counts], ...]:
        """For each order the counts of the hypotheses and of the references."""
        return tuple(_counted(self.hypotheses, self.references))

    @cached_property
    def matched(self) -> tuple[Ints, ...]:
        """For each order the n-grams of each hypothesis that its references have, each as often
        as one of them has it at most; shape [clips]."""
        return tuple(
            _matched(hypotheses, references, self.references.clip, self.clips)
            for hypotheses, references in self.counted
        )


class TokenisedOnce:
    """Tokenises clips for several metrics: the lists seen last are not tokenised again."""

    KEPT = 2
    """A system's clips and its baseline's."""

    def __init__(self) -> None:
        self._seen: list[tuple[list[ScoredClip], TokenisedClips]] = []

    def __call__(self, clips: list[ScoredClip], tokeniser: Tokeniser) -> TokenisedClips:
        """The tokenised clips, made now or before."""
        for seen, tokenised in self._seen:
            if tokenised.tokenisation == tokeniser.name and seen == clips:
                return tokenised
        tokenised = TokenisedClips(clips, tokeniser)
        self._seen = [*self._seen[1 - self.KEPT :], (list(clips), tokenised)]
        return tokenised


def located(keys: Ints, known: Ints) -> tuple[Ints, Ints]:
    """Which of the keys are among the known ones, and where those are; `known` is sorted."""
    place = np.searchsorted(known, keys)
    place[place == len(known)] = 0
    found = np.flatnonzero(known[place] == keys) if len(known) else np.empty(0, np.int64)
    return found, place[found]


def _matched(hypotheses: Counts, references: Counts, clip: Ints, clips: int) -> Ints:
    keys = references.keys(clip)
    order = np.argsort(keys, kind="stable")
    known, first = np.unique(keys[order], return_index=True)
    most = np.maximum.reduceat(references.count[order], first) if len(first) else first
    found, place = located(hypotheses.keys(np.arange(clips)), known)
    clipped = np.minimum(hypotheses.count[found], most[place])
    total: Ints = np.bincount(hypotheses.sentence[found], clipped, clips).astype(np.int64)
    return total


def _counted(hypotheses: Sentences, references: Sentences) -> Iterable[tuple[Counts, Counts]]:
    sentences = len(hypotheses.tokens)
    lengths = np.concatenate([hypotheses.lengths, references.lengths])
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    left = np.arange(len(sentence)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    left = np.repeat(lengths, lengths) - left  # tokens from here to the end of the sentence
    token = _numbered(list(chain.from_iterable([*hypotheses.tokens, *references.tokens])))
    gram, start = token, np.arange(len(token))
    for order in range(1, ORDERS + 1):
        if order > 1:
            on = left[start] >= order
            start = start[on]
            pair = gram[on] * (len(token) + 1) + token[start + order - 1]
            gram = np.unique(pair, return_inverse=True)[1]
        grams = int(gram.max(initial=-1)) + 1
        key, count = np.unique(sentence[start] * max(grams, 1) + gram, return_counts=True)
        owner, which = (part.astype(np.int32) for part in np.divmod(key, max(grams, 1)))
        count = count.astype(np.int32)
        cut = int(np.searchsorted(owner, sentences))
        yield (
            Counts(owner[:cut], which[:cut], count[:cut], grams),
            Counts(owner[cut:] - sentences, which[cut:], count[cut:], grams),
        )


def _numbered(tokens: list[str]) -> Ints:
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
