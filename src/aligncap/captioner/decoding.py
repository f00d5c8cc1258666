"""Rows of text that a torch language model goes on with, and what each may say next.

Beam search as CTranslate2 does it, step for step, so that both runtimes write the same.

- Each step looks at the 2 * beam_size best continuations. Of the first beam_size of them, those
  that end a response are put aside, and the next-best that go on take their places; where none is
  left the ended one goes on.
- Ended hypotheses are ranked by log-probability / length ** penalty, the end token counted.
- The search of a prompt is over when round(beam_size * patience) have ended (with penalty 0: when
  the best beam has ended and there are enough), or at the maximum length, where all beams end.

Diverse beam search: groups of beams that keep away from each other (Vijayakumar et al., 2018).

Preference pairs want candidates that differ (decision 11), where plain beams differ in a word.
Each group is a beam search of its own; a token costs it `diversity` for each earlier group that
has just gone on with it. The cost steers the choice only: log-probabilities stay the model's.

Search for responses with a torch language model: greedy, sampled, beam.

The prompt is run once; its key-value cache is then picked row by row, which expands it to the
beams or samples, reorders them and drops what has ended in one operation.

The language model in torch: for training's rollouts and candidates, and as the reference.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligncap.captioner.model import CACHE, attention_mask_of
from aligncap.captioner.runtimes import (
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    Sampling,
    sorted_by_score,
    unique_hypotheses,
)


class Continuation:
    """Texts in the making that share prompts: what is cached, and the logits of the next token.

    A prompt's cache is never copied for its texts. Their tokens are appended to it side by side,
    and a mask says which of them each text consists of: going on with some texts, in another
    order or several times, only changes the mask.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Run the prompts once, padded on the left to one length; each is one text so far."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        mask = mask.to(model.device)
        self._model = model
        self.cache = DynamicCache()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self._model(
            input_ids=ids.to(model.device),
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: self.cache},
        )
        self.logits: Tensor = output.logits[:, -1]
        self._owner = torch.arange(len(prompts), device=model.device)
        """Whose cache each text goes on from, [texts]."""
        self._seen = mask.bool()
        """Which of its prompt's cached tokens a text consists of, [texts, cached]."""
        self._length = mask.sum(dim=1)
        """Tokens of each text, [texts]."""

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with the texts `rows` (any, in any order, also repeatedly), each by one token."""
        device = self._model.device
        index = torch.tensor(rows, device=device)
        owner, places = self._keep(self._owner[index])
        count, width, cached = int(owner.max()) + 1, max(places) + 1, self._seen.shape[1]
        place = torch.tensor(places, device=device)
        ids = torch.zeros(count, width, dtype=torch.long, device=device)
        positions = torch.zeros_like(ids)
        ids[owner, place] = torch.tensor(tokens, device=device)
        positions[owner, place] = self._length[index]
        # Every new token sees itself; those that only fill up see nothing else and are not seen.
        own = torch.eye(width, dtype=torch.bool, device=device).expand(count, -1, -1)
        before = torch.zeros(count, width, cached, dtype=torch.bool, device=device)
        before[owner, place] = self._seen[index]
        mask = torch.cat((before, own), dim=2)
        output = self._model(
            input_ids=ids,
            attention_mask=attention_mask_of(mask[:, None], self._model),
            position_ids=positions,
            use_cache=True,
            **{CACHE: self.cache},
        )
        self.logits = output.logits[owner, place]
        self._owner, self._seen = owner, mask[owner, place]
        self._length = self._length[index] + 1

    def _keep(self, owner: Tensor) -> tuple[Tensor, list[int]]:
        """Forget prompts that no text goes on from; of each text its prompt, and its number among
        those of the same prompt."""
        needed, owner = torch.unique(owner, return_inverse=True)
        if len(needed) < int(self._owner.max()) + 1:
            self.cache.batch_select_indices(needed)
        taken: Counter[int] = Counter()
        places = []
        for prompt in owner.tolist():
            places.append(taken[prompt])
            taken[prompt] += 1
        return owner, places


class TextDistribution:
    """What may be said next: text only, and no end before the minimum length."""

    def __init__(self, rules: ResponseRules, *, min_length: int, device: torch.device) -> None:
        self._size = rules.text_size
        self._stops = torch.tensor(rules.stop_ids, device=device)
        self._min_length = min_length

    def log_probabilities(self, logits: Tensor, *, length: int) -> Tensor:
        """Log-softmax [rows, text_size] for responses that have `length` tokens already."""
        logits = logits[..., : self._size].float()
        if length < self._min_length:
            logits = logits.index_fill(-1, self._stops, -torch.inf)
        return logits.log_softmax(dim=-1)


class BeamCandidate(NamedTuple):
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

    def step(
        self, candidates: Sequence[BeamCandidate], *, last: bool
    ) -> list[BeamCandidate] | None:
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
        return unique_hypotheses(sorted_by_score(self.ended)[: self.options.captions], self.stops)

    def _end(self, candidate: BeamCandidate) -> None:
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
            candidates = [BeamCandidate(total, at // size, at % size) for total, at in pairs]
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
        candidates = [BeamCandidate(total, at // size, at % size) for total, at in pairs]
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
    ended = [unique_hypotheses(sorted_by_score(group.beams.ended), stops) for group in groups]
    turns = (one for turn in zip_longest(*ended) for one in turn if one is not None)
    different = {one.ids: one for one in turns}
    return sorted_by_score(list(different.values())[:count])


Prompts = Sequence[Sequence[int]]
Choose = Callable[[Tensor], Tensor]


@torch.inference_mode()
def search(
    model: PreTrainedModel, prompts: Prompts, rules: ResponseRules, options: DecodeOptions
) -> list[list[Hypothesis]]:
    """For each prompt `options.captions` responses, best first."""
    if options.sampling is not None:
        return _one_by_one(model, prompts, rules, options, _drawer(model, options.sampling))
    if options.beam_size == 1:
        return _one_by_one(model, prompts, rules, options, _most_probable)
    if options.groups > 1:
        return diverse_beam_search(model, prompts, rules, options)
    return beam_search(model, prompts, rules, options)


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    prompt: Sequence[int],
    responses: Sequence[Sequence[int]],
    rules: ResponseRules,
) -> list[float]:
    """Log-probability of each response after the prompt, summed over its tokens."""
    if not responses:
        return []
    state = Continuation(model, [prompt])
    count, longest = len(responses), max(len(response) for response in responses)
    ids = torch.zeros(count, longest, dtype=torch.long)
    for row, response in enumerate(responses):
        ids[row, : len(response)] = torch.tensor(response)
    ids = ids.to(model.device)
    state.cache.batch_repeat_interleave(count)
    after = model(input_ids=ids, use_cache=True, **{CACHE: state.cache}).logits
    first = state.logits.expand(count, -1)[:, None]
    allowed = TextDistribution(rules, min_length=0, device=model.device)
    log_p = allowed.log_probabilities(torch.cat((first, after[:, :-1]), dim=1), length=0)
    each = log_p.gather(-1, ids[..., None])[..., 0]
    return [float(each[row, : len(response)].sum()) for row, response in enumerate(responses)]


@contextmanager
def evaluation(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off, and afterwards as it was."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def _most_probable(log_p: Tensor) -> Tensor:
    return log_p.argmax(dim=-1)


def _drawer(model: PreTrainedModel, sampling: Sampling) -> Choose:
    generator = torch.Generator(device=model.device).manual_seed(sampling.seed)

    def draw(log_p: Tensor) -> Tensor:
        weights = sampling_distribution(log_p, sampling)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    return draw


def sampling_distribution(log_p: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [rows, text_size] to draw from: temperature, then top-k, then top-p."""
    log_p = log_p / sampling.temperature
    if 0 < sampling.top_k < log_p.shape[-1]:
        best = log_p.topk(sampling.top_k, dim=-1)
        log_p = torch.full_like(log_p, -torch.inf).scatter(-1, best.indices, best.values)
    if sampling.top_p < 1.0:
        likeliest, order = log_p.softmax(dim=-1).sort(dim=-1, descending=True)
        # The token that takes the sum over top_p still belongs to them.
        outside = likeliest.cumsum(dim=-1) - likeliest >= sampling.top_p
        log_p = log_p.masked_fill(outside.gather(-1, order.argsort(dim=-1)), -torch.inf)
    return log_p.softmax(dim=-1)


@dataclass(slots=True)
class _Line:
    """A response in the making."""

    row: int
    """Where it is in the running batch."""
    ids: list[int] = field(default_factory=list)
    total: float = 0.0


def _one_by_one(
    model: PreTrainedModel,
    prompts: Prompts,
    rules: ResponseRules,
    options: DecodeOptions,
    choose: Choose,
) -> list[list[Hypothesis]]:
    """Each response grows on its own, a chosen token at a time."""
    state = Continuation(model, prompts)
    allowed = TextDistribution(rules, min_length=options.min_length, device=model.device)
    stops = frozenset(rules.stop_ids)
    lines = [_Line(number) for number in range(len(prompts)) for _ in range(options.captions)]
    alive = lines
    state.logits = state.logits.repeat_interleave(options.captions, dim=0)
    for length in range(options.max_length):
        log_p = allowed.log_probabilities(state.logits, length=length)
        chosen = choose(log_p)
        gained = log_p.gather(-1, chosen[:, None])[:, 0]
        for line, token, gain in zip(alive, chosen.tolist(), gained.tolist(), strict=True):
            line.ids.append(token)
            line.total += gain
        alive = [line for line in alive if line.ids[-1] not in stops]
        if not alive or length + 1 == options.max_length:
            break
        state.advance([line.row for line in alive], [line.ids[-1] for line in alive])
        for row, line in enumerate(alive):
            line.row = row
    found = [Hypothesis.of(tuple(line.ids), line.total, options.length_penalty) for line in lines]
    return [
        sorted_by_score(found[start : start + options.captions])
        for start in range(0, len(found), options.captions)
    ]


PROMPTS_AT_ONCE = 32
"""Padded to one length and run together."""


class TorchRuntime:
    """A causal LM of transformers; `generate` and `score` as `LanguageRuntime` has them."""

    def __init__(
        self, causal_lm: Any, rules: ResponseRules, *, batch_size: int = PROMPTS_AT_ONCE
    ) -> None:
        """`batch_size` prompts are padded to one length and run together."""
        self._model = causal_lm
        self._rules = rules
        self._batch_size = batch_size

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt `options.captions` responses, best first; dropout is off meanwhile."""
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: list[list[Hypothesis]] = [[] for _ in prompts]
        with evaluation(self._model):
            for start in range(0, len(order), self._batch_size):
                numbers = order[start : start + self._batch_size]
                batch = [prompts[number] for number in numbers]
                responses = search(self._model, batch, self._rules, options)
                for number, hypotheses in zip(numbers, responses, strict=True):
                    found[number] = hypotheses
        return found

    def score(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each response after the prompt, summed over its tokens."""
        with evaluation(self._model):
            return score(self._model, prompt, responses, self._rules)
