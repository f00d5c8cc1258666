"""What metrics speak in: clips to score, statistics of each clip, and signed scores."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.values import EMOTIONS

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's hypothesis beside what people (or a corpus) say of the clip."""

    id: str
    hypothesis: str
    """May be empty: a system that said nothing."""
    references: tuple[str, ...]
    """At least one."""
    file: Path | None = None
    """The recording, where the references name it."""
    emotion: str | None = None
    """Its category of `values.EMOTIONS`, where the references name it."""

    def __post_init__(self) -> None:
        if not self.references:
            raise DataError(f"{self.id}: has no reference; a clip is scored against at least one")
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise DataError(
                f"{self.id}: emotion is {self.emotion!r}, must be one of {', '.join(EMOTIONS)}"
            )


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a metric needs of each clip to give its value over any selection of clips.

    The value over some clips depends on the sum of their rows only: that is all a bootstrap draw
    needs, so a thousand draws are one matrix product.
    """

    per_clip: Floats
    """Shape [clips, k]."""
    value_of: Callable[[Floats], Floats]
    """Sums of rows, shape [..., k], to values, shape [...]; NaN where nothing can be said."""
    together: bool = False
    """Whether a row depends on the other clips scored with it (document frequencies)."""
    scale: float = 100.0
    """What a value is multiplied by where it is reported; 1 for marks out of ten."""

    def __post_init__(self) -> None:
        if self.per_clip.ndim != 2 or not len(self.per_clip):
            raise DataError("statistics are one row a clip, and at least one clip")

    @property
    def value(self) -> float:
        """The value over all clips."""
        return float(self.value_of(self.per_clip.sum(axis=0)))

    @property
    def clip_values(self) -> Floats:
        """The value over each clip alone, shape [clips]."""
        return self.value_of(self.per_clip)


def mean_of_clips(values: Floats, *, together: bool = False) -> Statistics:
    """The statistics of a score that is the mean of one value a clip; NaN is not counted."""
    told = ~np.isnan(values)
    rows = np.stack([np.where(told, values, 0.0), told], axis=1)
    return Statistics(rows, _mean, together=together)


def _mean(sums: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        value: Floats = sums[..., 0] / sums[..., 1]
    return value


@dataclass(frozen=True, slots=True)
class Score:
    """A score (x 100 where it is a share) with its 95 % interval and what it depends on."""

    name: str
    value: float
    low: float | None
    """None where no interval can be given."""
    high: float | None
    signature: str
    """Metric variant, tokenisation, references, n, seed, versions: "tok:zh-char|refs:1|n:472"."""


class Metric(Protocol):
    """A way to score captions; instances are made with their language and options."""

    @property
    def name(self) -> str:
        """As users ask for it: "bleu4", "cider-d", "clue-f1"."""

    @property
    def variant(self) -> str:
        """Its own part of the signature: "meteor:nltk-3.9+wordnet"; needs no clips, n or seed."""

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The statistics of the clips, in their order.

        Raises MissingModelError where a library, jar or model it needs is not on this machine.
        """


class SetMetric(Protocol):
    """A property of a whole set of captions, such as how varied they are.

    It is no sum over clips, and a bootstrap draw, in which clips come twice, would make any set
    look less varied: its score has no interval.
    """

    @property
    def name(self) -> str:
        """As users ask for it: "distinct2"."""

    @property
    def variant(self) -> str:
        """Its own part of the signature."""

    def value(self, clips: list[ScoredClip]) -> float:
        """The value over these clips, in their whole; NaN where nothing can be said."""
