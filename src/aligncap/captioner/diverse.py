"""Diverse beam search: groups of beams that keep away from each other (Vijayakumar et al., 2018).

Preference pairs want candidates that differ (decision 11), where plain beams differ in a word.
Each group is a beam search of its own; a token costs it `diversity` for each earlier group that
has just gone on with it. The cost steers the choice only: log-probabilities stay the model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligncap.captioner.beam import BeamSearch, Candidate
from aligncap.captioner.continuation import Continuation, TextDistribution
from aligncap.captioner.runtime import (
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    best_first,
    that_end_once,
)


@dataclass(slots=True)
class _Group:
    """One group of one prompt."""

    beams: BeamSearch
    rows: list[int]
    """Where its beams are in the running batch."""
    tokens: list[int] = field(default_factory=list)
    """What they go on with; empty when the search is over."""

    def step(self, log_p: Tensor, cost: Tensor, *, last: bool) -> None:
        """Choose by log-probability [all rows, text_size] less the `cost` of each token."""
        size = log_p.shape[1]
        totals = torch.tensor(self.beams.totals, device=log_p.device)
        sums = (log_p[self.rows] + totals[:, None]).flatten()
        dearer = sums - cost.repeat(len(self.rows))
        best = dearer.topk(min(2 * self.beams.options.beam_size, len(sums))).indices
        pairs = zip(sums[best].tolist(), best.tolist(), strict=True)
        candidates = [Candidate(total, at // size, at % size) for total, at in pairs]
        kept = self.beams.step(candidates, last=last) or []
        self.rows = [self.rows[one.beam] for one in kept]
        self.tokens = [one.token for one in kept]


def diverse_beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rules: ResponseRules,
    options: DecodeOptions,
) -> list[list[Hypothesis]]:
    """For each prompt up to `options.captions` different responses, best first.

    The best of each group comes in before the second of any.
    """
    state = Continuation(model, prompts)
    allowed = TextDistribution(rules, min_length=options.min_length, device=model.device)
    stops = frozenset(rules.stop_ids)
    alike = replace(options, beam_size=options.beam_size // options.groups, groups=1, captions=1)
    found = [
        [_Group(BeamSearch(alike, stops), [row]) for _ in range(options.groups)]
        for row in range(len(prompts))
    ]
    alive = found
    for length in range(options.max_length):
        log_p = allowed.log_probabilities(state.logits, length=length)
        for groups in alive:
            cost = log_p.new_zeros(rules.text_size)
            for group in groups:
                group.step(log_p, cost, last=length + 1 == options.max_length)
                for token in group.tokens:
                    cost[token] += options.diversity
        alive = [[group for group in groups if group.tokens] for groups in alive]
        going = list(chain.from_iterable(alive))
        if not going:
            break
        _advance(state, going)
    return [_in_turn(groups, options.captions, stops) for groups in found]


def _advance(state: Continuation, going: Sequence[_Group]) -> None:
    rows = [row for group in going for row in group.rows]
    state.advance(rows, [token for group in going for token in group.tokens])
    start = 0
    for group in going:
        group.rows = list(range(start, start + len(group.tokens)))
        start += len(group.tokens)


def _in_turn(groups: Sequence[_Group], count: int, stops: frozenset[int]) -> list[Hypothesis]:
    ended = [that_end_once(best_first(group.beams.ended), stops) for group in groups]
    turns = (one for turn in zip_longest(*ended) for one in turn if one is not None)
    different = {one.ids: one for one in turns}
    return best_first(list(different.values())[:count])
