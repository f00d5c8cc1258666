"""How varied a set of captions is: distinct n-grams (Li et al., NAACL 2016) and repeats.

Each belongs to the whole set and shrinks as the set grows, so only sets of the same size compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import Tokeniser, open_tokeniser
from aligncap.scoring.values import ScoredClip, SetMetric


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


ORDERS = {"distinct1": 1, "distinct2": 2}


def open_set_metric(name: str, options: MetricOptions) -> SetMetric:
    """`distinct1`, `distinct2` or `repeated`."""
    if name not in ORDERS:
        return Repeated()
    return Distinct(name, ORDERS[name], open_tokeniser(options.tokenisation, options.language))
