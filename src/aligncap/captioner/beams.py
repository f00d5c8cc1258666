"""The beam search of one prompt, without a model (Eq. 3).

It works as CTranslate2's does, step for step, so that all runtimes write the same:

- Each step looks at the 2 * beam_size best continuations. Of the first beam_size of them, those
  that end a response are put aside, and the next-best that do not end take their places; where none
  is left the ended one continues.
- Ended hypotheses are ranked by log-probability / length ** penalty, the end token counted.
- The search of a prompt is over when round(beam_size * patience) have ended (with penalty 0: when
  the best beam has ended and there are enough), or at the maximum length, where all beams end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from aligncap.captioner import runtimes


class BeamCandidate(NamedTuple):
    """A continuation: the log-probability with this token, the beam it extends, the token."""

    total: float
    beam: int
    token: int


@dataclass(slots=True)
class BeamSearch:
    """The search for one prompt, a step at a time; needs no model."""

    options: runtimes.DecodeOptions
    stops: frozenset[int]
    ids: list[tuple[int, ...]] = field(default_factory=lambda: [()])
    """The tokens of each beam."""
    totals: list[float] = field(default_factory=lambda: [0.0])
    """The log-probability of each beam."""
    ended: list[runtimes.Hypothesis] = field(default_factory=list)
    best_has_ended: bool = False

    def step(
        self, candidates: Sequence[BeamCandidate], *, last: bool
    ) -> list[BeamCandidate] | None:
        """Take the 2 * beam_size best candidates (or all there are), best first.

        Returns those that the beams continue with, or None when the search is over.
        """
        width = self.options.beam_size
        spare = iter(one for one in candidates[width:] if one.token not in self.stops)
        kept = []
        for place, candidate in enumerate(candidates[:width]):
            possible = candidate.total > -inf
            ends = possible and (last or candidate.token in self.stops)
            if ends:
                self.best_has_ended |= place == 0
                ids = (*self.ids[candidate.beam], candidate.token)
                penalty = self.options.length_penalty
                self.ended.append(runtimes.Hypothesis.of(ids, candidate.total, penalty))
            kept.append(next(spare, candidate) if ends else candidate)
        if self.options.length_penalty == 0.0:
            enough = self.best_has_ended and len(self.ended) >= self.options.captions
        else:
            enough = len(self.ended) >= self.options.hypotheses_wanted
        if last or enough:
            return None
        self.totals = [one.total for one in kept]
        self.ids = [(*self.ids[one.beam], one.token) for one in kept]
        return kept

    def best(self) -> list[runtimes.Hypothesis]:
        """The captions asked for, best first."""
        return runtimes.ended_once(
            runtimes.sorted_by_score(self.ended)[: self.options.captions], self.stops
        )
