"""Search for responses with a torch language model: greedy, sampled, beam.

The prompt is run once; its key-value cache is then picked row by row, which expands it to the
beams or samples, reorders them and drops what has ended in one operation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from aligncap.captioner.beam import beam_search
from aligncap.captioner.continuation import Continuation, TextDistribution
from aligncap.captioner.diverse import diverse_beam_search
from aligncap.captioner.reading import CACHE
from aligncap.captioner.runtime import (
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    Sampling,
    best_first,
)

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
        best_first(found[start : start + options.captions])
        for start in range(0, len(found), options.captions)
    ]
