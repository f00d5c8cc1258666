"""Beam search as CTranslate2 does it, step for step, so that both runtimes write the same.

- Each step looks at the 2 * beam_size best continuations. Of the first beam_size of them, those
  that end a response are put aside, and the next-best that go on take their places; where none is
  left the ended one goes on.
- Ended hypotheses are ranked by log-probability / length ** penalty, the end token counted.
- The search of a prompt is over when round(beam_size * patience) have ended (with penalty 0: when
  the best beam has ended and there are enough), or at the maximum length, where all beams end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from aligncap.captioner.continuation import Continuation, TextDistribution
from aligncap.captioner.runtime import (
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    best_first,
    that_end_once,
)


class Candidate(NamedTuple):
    """A way to go on: the log-probability with this token, the beam it grows from, the token."""

    total: float
    beam: int
    token: int


@dataclass(slots=True)
class BeamSearch:
    """The search for one prompt, a step at a time; needs no model."""

    options: DecodeOptions
    stops: frozenset[int]
    ids: list[tuple[int, ...]] = field(default_factory=lambda: [()])
    """What each beam has said."""
    totals: list[float] = field(default_factory=lambda: [0.0])
    """The log-probability of each beam."""
    ended: list[Hypothesis] = field(default_factory=list)
    best_has_ended: bool = False

    def step(self, candidates: Sequence[Candidate], *, last: bool) -> list[Candidate] | None:
        """Take the 2 * beam_size best candidates (or all there are), best first.

        Returns those the beams go on with, or None when the search is over.
        """
        width = self.options.beam_size
        spare = iter(one for one in candidates[width:] if one.token not in self.stops)
        kept = []
        for place, candidate in enumerate(candidates[:width]):
            possible = candidate.total > -inf
            ends = possible and (last or candidate.token in self.stops)
            if ends:
                self.best_has_ended |= place == 0
                self._end(candidate)
            kept.append(next(spare, candidate) if ends else candidate)
        if last or self._enough():
            return None
        self.totals = [one.total for one in kept]
        self.ids = [(*self.ids[one.beam], one.token) for one in kept]
        return kept

    def best(self) -> list[Hypothesis]:
        """The captions asked for, best first."""
        return that_end_once(best_first(self.ended)[: self.options.captions], self.stops)

    def _end(self, candidate: Candidate) -> None:
        ids = (*self.ids[candidate.beam], candidate.token)
        self.ended.append(Hypothesis.of(ids, candidate.total, self.options.length_penalty))

    def _enough(self) -> bool:
        if self.options.length_penalty == 0.0:
            return self.best_has_ended and len(self.ended) >= self.options.captions
        return len(self.ended) >= self.options.hypotheses_wanted


def beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rules: ResponseRules,
    options: DecodeOptions,
) -> list[list[Hypothesis]]:
    """For each prompt the best `options.captions` responses, best first."""
    state = Continuation(model, prompts)
    allowed = TextDistribution(rules, min_length=options.min_length, device=model.device)
    stops = frozenset(rules.stop_ids)
    searches = [BeamSearch(options, stops) for _ in prompts]
    alive = searches
    for length in range(options.max_length):
        log_p = allowed.log_probabilities(state.logits, length=length)
        totals = torch.tensor([one.totals for one in alive], device=log_p.device)
        width, size = totals.shape[1], rules.text_size
        sums = log_p.view(len(alive), width, size) + totals[:, :, None]
        # A tiny vocabulary has fewer ways to begin than there are beams.
        best = sums.flatten(1).topk(min(2 * options.beam_size, width * size))
        still: list[BeamSearch] = []
        rows: list[int] = []
        tokens: list[int] = []
        for number, one in enumerate(alive):
            pairs = zip(best.values[number].tolist(), best.indices[number].tolist(), strict=True)
            candidates = [Candidate(total, at // size, at % size) for total, at in pairs]
            kept = one.step(candidates, last=length + 1 == options.max_length)
            if kept is not None:
                still.append(one)
                rows.extend(number * width + candidate.beam for candidate in kept)
                tokens.extend(candidate.token for candidate in kept)
        if not still:
            break
        state.advance(rows, tokens)
        alive = still
    return [one.best() for one in searches]
