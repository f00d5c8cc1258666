"""The language model in torch: greedy, sampled, beam and diverse beam search (Eq. 3).

Beam search works as CTranslate2's does, step for step, so that both runtimes write the same:

- Each step looks at the 2 * beam_size best continuations. Of the first beam_size of them, those
  that end a response are put aside, and the next-best that do not end take their places; where none
  is left the ended one continues.
- Ended hypotheses are ranked by log-probability / length ** penalty, the end token counted.
- The search of a prompt is over when round(beam_size * patience) have ended (with penalty 0: when
  the best beam has ended and there are enough), or at the maximum length, where all beams end.

Diverse beam search (Vijayakumar et al., 2018) keeps groups of beams apart: preference pairs need
candidates that differ (decision 11), where plain beams differ in a word. Each group is a beam
search of its own; a token costs it `diversity` for each earlier group that has just chosen it.
The cost steers the choice only: log-probabilities stay the model's.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligncap.captioner import runtimes
from aligncap.captioner.encoder_decoder import DecoderContinuation, EncoderDecoderModel
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prefill import CACHE, attention_mask_of
from aligncap.captioner.prompts import padded_features
from aligncap.errors import RecipeError

Model = CaptionModel | PreTrainedModel
"""A model of ours, or a causal LM alone, whose prompts are ids."""

Prompts = Sequence[Sequence[int]]
Choose = Callable[[Tensor], Tensor]

PROMPTS_AT_ONCE = 32
"""Padded to one length and run together."""


class TorchRuntime:
    """A model of ours, or a causal LM of transformers, as a `LanguageRuntime`."""

    def __init__(
        self, model: Any, rules: runtimes.ResponseRules, *, batch_size: int = PROMPTS_AT_ONCE
    ) -> None:
        """`batch_size` prompts are padded to one length and run together."""
        self._model = model
        self._rules = rules
        self._batch_size = batch_size
        self._process = os.getpid()

    def generate(
        self, prompts: Prompts, options: runtimes.DecodeOptions
    ) -> list[list[runtimes.Hypothesis]]:
        """For each prompt `options.captions` responses, best first; dropout is off meanwhile.

        In the child of a fork one thread does the work: OpenMP's others are the parent's.
        RecipeError where the model is on a GPU, which no child can use.
        """
        if os.getpid() != self._process:
            if self._model.device.type != "cpu":
                raise RecipeError(
                    "a model on a GPU cannot be used after a fork; start the process by 'spawn', "
                    "or load the model in it"
                )
            torch.set_num_threads(1)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: list[list[runtimes.Hypothesis]] = [[] for _ in prompts]
        training = self._model.training
        self._model.eval()
        try:
            for start in range(0, len(order), self._batch_size):
                numbers = order[start : start + self._batch_size]
                batch = [prompts[number] for number in numbers]
                responses = search(self._model, batch, self._rules, options)
                for number, hypotheses in zip(numbers, responses, strict=True):
                    found[number] = hypotheses
        finally:
            self._model.train(training)
        return found


@torch.inference_mode()
def search(
    model: Model,
    prompts: Prompts,
    rules: runtimes.ResponseRules,
    options: runtimes.DecodeOptions,
) -> list[list[runtimes.Hypothesis]]:
    """For each prompt `options.captions` responses, best first."""
    if options.sampling is not None:
        return stepwise_search(model, prompts, rules, options, _sampler(model, options.sampling))
    if options.beam_size == 1:
        return stepwise_search(model, prompts, rules, options, lambda log_p: log_p.argmax(dim=-1))
    if options.groups > 1:
        return diverse_beam_search(model, prompts, rules, options)
    return beam_search(model, prompts, rules, options)


class Continuation:
    """Partial texts that share prompts: the key-value cache, and the logits of the next token.

    A prompt's cache is never copied for its texts. Their tokens are appended to it side by side,
    and a mask selects those that each text consists of: continuing some of the texts, in another
    order or several times, only changes the mask.
    """

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]]) -> None:
        """Run the prompts once, padded on the left to one length; each is one text."""
        whole = model if isinstance(model, CaptionModel) else None
        model = model.causal_lm if isinstance(model, CaptionModel) else model
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
        given = {"input_ids": ids.to(model.device)}
        if whole is not None and whole.connector is not None:
            found = padded_features(prompts).values()
            features = (torch.from_numpy(array).to(model.device) for array in found)
            given = {"inputs_embeds": whole.embed(given["input_ids"], *features)}
        output = self._model(
            **given,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: self.cache},
        )
        self.logits: Tensor = output.logits[:, -1]
        self._owner = torch.arange(len(prompts), device=model.device)
        """The prompt of each text, [texts]."""
        self._seen = mask.bool()
        """The cached tokens of its prompt that a text consists of, [texts, cached]."""
        self._length = mask.sum(dim=1)
        """Tokens of each text, [texts]."""

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Continue the texts `rows` (any, in any order, also repeatedly), each by one token."""
        device = self._model.device
        index = torch.tensor(rows, device=device)
        needed, owner = torch.unique(self._owner[index], return_inverse=True)
        if len(needed) < int(self._owner.max()) + 1:  # drop prompts that no text continues
            self.cache.batch_select_indices(needed)
        taken: Counter[int] = Counter()
        places = []  # of each text its number among those of the same prompt
        for prompt in owner.tolist():
            places.append(taken[prompt])
            taken[prompt] += 1
        count, width, cached = int(owner.max()) + 1, max(places) + 1, self._seen.shape[1]
        place = torch.tensor(places, device=device)
        ids = torch.zeros(count, width, dtype=torch.long, device=device)
        positions = torch.zeros_like(ids)
        ids[owner, place] = torch.tensor(tokens, device=device)
        positions[owner, place] = self._length[index]
        # Every new token attends to itself; padding attends to nothing else and is never attended.
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


def begin(model: Model, prompts: Prompts) -> Continuation | DecoderContinuation:
    """Each prompt as one text, still empty."""
    if isinstance(model, EncoderDecoderModel):
        return DecoderContinuation(model, prompts)
    return Continuation(model, prompts)


def response_log_probabilities(
    logits: Tensor, rules: runtimes.ResponseRules, options: runtimes.DecodeOptions, *, length: int
) -> Tensor:
    """Log-softmax over text [rows, text_vocab_size] for responses of `length` tokens: no stop token
    before the minimum length."""
    logits = logits[..., : rules.text_vocab_size].float()
    if length < options.min_length:
        stops = torch.tensor(rules.stop_ids, device=logits.device)
        logits = logits.index_fill(-1, stops, -torch.inf)
    return logits.log_softmax(dim=-1)


def _sampler(model: Model, sampling: runtimes.Sampling) -> Choose:
    generator = torch.Generator(device=model.device).manual_seed(sampling.seed)

    def sample(log_p: Tensor) -> Tensor:
        weights = sampling_distribution(log_p, sampling)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]

    return sample


def sampling_distribution(log_p: Tensor, sampling: runtimes.Sampling) -> Tensor:
    """Probabilities [rows, text_vocab_size] to sample from: temperature, top-k, then top-p."""
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
class _Response:
    """A partial response."""

    row: int
    """Its place in the running batch."""
    ids: list[int] = field(default_factory=list)
    total: float = 0.0


def stepwise_search(
    model: Model,
    prompts: Prompts,
    rules: runtimes.ResponseRules,
    options: runtimes.DecodeOptions,
    choose: Choose,
) -> list[list[runtimes.Hypothesis]]:
    """Greedy search or sampling: each response grows by one chosen token a step."""
    state = begin(model, prompts)
    stops = frozenset(rules.stop_ids)
    responses = [
        _Response(number) for number in range(len(prompts)) for _ in range(options.captions)
    ]
    alive = responses
    state.logits = state.logits.repeat_interleave(options.captions, dim=0)
    for length in range(options.max_length):
        log_p = response_log_probabilities(state.logits, rules, options, length=length)
        chosen = choose(log_p)
        gained = log_p.gather(-1, chosen[:, None])[:, 0]
        for one, token, gain in zip(alive, chosen.tolist(), gained.tolist(), strict=True):
            one.ids.append(token)
            one.total += gain
        alive = [one for one in alive if one.ids[-1] not in stops]
        if not alive or length + 1 == options.max_length:
            break
        state.advance([one.row for one in alive], [one.ids[-1] for one in alive])
        for row, one in enumerate(alive):
            one.row = row
    found = [
        runtimes.Hypothesis.of(tuple(one.ids), one.total, options.length_penalty)
        for one in responses
    ]
    return [
        runtimes.sorted_by_score(found[start : start + options.captions])
        for start in range(0, len(found), options.captions)
    ]


class BeamCandidate(NamedTuple):
    """A continuation: the log-probability with this token, the beam it extends, the token."""

    total: float
    beam: int
    token: int


def _candidates(totals: Tensor, places: Tensor, size: int) -> list[BeamCandidate]:
    """From places in beams x tokens of `size`, flattened."""
    pairs = zip(totals.tolist(), places.tolist(), strict=True)
    return [BeamCandidate(total, at // size, at % size) for total, at in pairs]


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


def beam_search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rules: runtimes.ResponseRules,
    options: runtimes.DecodeOptions,
) -> list[list[runtimes.Hypothesis]]:
    """For each prompt the best `options.captions` responses, best first."""
    state = begin(model, prompts)
    stops = frozenset(rules.stop_ids)
    searches = [BeamSearch(options, stops) for _ in prompts]
    alive = searches
    for length in range(options.max_length):
        log_p = response_log_probabilities(state.logits, rules, options, length=length)
        totals = torch.tensor([one.totals for one in alive], device=log_p.device)
        width, size = totals.shape[1], rules.text_vocab_size
        sums = log_p.view(len(alive), width, size) + totals[:, :, None]
        # A tiny vocabulary has fewer ways to begin than there are beams.
        best = sums.flatten(1).topk(min(2 * options.beam_size, width * size))
        still: list[BeamSearch] = []
        rows: list[int] = []
        tokens: list[int] = []
        for number, one in enumerate(alive):
            candidates = _candidates(best.values[number], best.indices[number], size)
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
    """What they continue with; empty when the search is over."""

    def step(self, log_p: Tensor, cost: Tensor, *, last: bool) -> None:
        """Choose by log-probability [all rows, text_vocab_size] less the `cost` of each token."""
        size = log_p.shape[1]
        totals = torch.tensor(self.beams.totals, device=log_p.device)
        sums = (log_p[self.rows] + totals[:, None]).flatten()
        costly = sums - cost.repeat(len(self.rows))
        best = costly.topk(min(2 * self.beams.options.beam_size, len(sums))).indices
        kept = self.beams.step(_candidates(sums[best], best, size), last=last) or []
        self.rows = [self.rows[one.beam] for one in kept]
        self.tokens = [one.token for one in kept]


def diverse_beam_search(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rules: runtimes.ResponseRules,
    options: runtimes.DecodeOptions,
) -> list[list[runtimes.Hypothesis]]:
    """For each prompt up to `options.captions` different responses, best first.

    The best of each group is taken before the second of any.
    """
    state = begin(model, prompts)
    stops = frozenset(rules.stop_ids)
    alike = replace(options, beam_size=options.beam_size // options.groups, groups=1, captions=1)
    found = [
        [_Group(BeamSearch(alike, stops), [row]) for _ in range(options.groups)]
        for row in range(len(prompts))
    ]
    alive = found
    for length in range(options.max_length):
        log_p = response_log_probabilities(state.logits, rules, options, length=length)
        for groups in alive:
            cost = log_p.new_zeros(rules.text_vocab_size)
            for group in groups:
                group.step(log_p, cost, last=length + 1 == options.max_length)
                for token in group.tokens:
                    cost[token] += options.diversity
        alive = [[group for group in groups if group.tokens] for groups in alive]
        going = list(chain.from_iterable(alive))
        if not going:
            break
        rows = [row for group in going for row in group.rows]
        state.advance(rows, [token for group in going for token in group.tokens])
        start = 0
        for group in going:
            group.rows = list(range(start, start + len(group.tokens)))
            start += len(group.tokens)
    return [_interleaved(groups, options.captions, stops) for groups in found]


def _interleaved(
    groups: Sequence[_Group], count: int, stops: frozenset[int]
) -> list[runtimes.Hypothesis]:
    ended = [
        runtimes.ended_once(runtimes.sorted_by_score(group.beams.ended), stops) for group in groups
    ]
    turns = (one for turn in zip_longest(*ended) for one in turn if one is not None)
    different = {one.ids: one for one in turns}
    return runtimes.sorted_by_score(list(different.values())[:count])
