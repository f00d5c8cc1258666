"""The language model in torch: for training's rollouts and candidates, and as the reference."""

from collections.abc import Sequence
from typing import Any

from aligncap.captioner import decode
from aligncap.captioner.runtime import DecodeOptions, Hypothesis, ResponseRules

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
        with decode.evaluation(self._model):
            for start in range(0, len(order), self._batch_size):
                numbers = order[start : start + self._batch_size]
                batch = [prompts[number] for number in numbers]
                responses = decode.search(self._model, batch, self._rules, options)
                for number, hypotheses in zip(numbers, responses, strict=True):
                    found[number] = hypotheses
        return found

    def score(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each response after the prompt, summed over its tokens."""
        with decode.evaluation(self._model):
            return decode.score(self._model, prompt, responses, self._rules)
