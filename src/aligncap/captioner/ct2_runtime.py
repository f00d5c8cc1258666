"""The language model on CTranslate2: no torch, int8 on any CPU."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from aligncap.captioner.runtime import DecodeOptions, Hypothesis, ResponseRules, that_end_once
from aligncap.errors import MissingModelError, RecipeError


class CT2Runtime:
    """An exported language model; `generate` and `score` as `LanguageRuntime` has them."""

    def __init__(
        self,
        folder: Path,
        rules: ResponseRules,
        *,
        threads: int = 1,
        replicas: int = 1,
        compute_type: str = "default",
        seed: int = 0,
    ) -> None:
        """Open the `ct2` folder of an export.

        `replicas` prompts groups run at a time with `threads` threads each; they share the
        weights. `seed` is that of sampling: it can be set only before the first draw.
        """
        for name in ("model.bin", "vocabulary.json"):
            if not (folder / name).is_file():
                raise MissingModelError(f"{folder}: no {name}; export the model again")
        ctranslate2.set_random_seed(seed)
        self._rules = rules
        self._names: list[str] = json.loads((folder / "vocabulary.json").read_text("utf-8"))
        self._generator = ctranslate2.Generator(
            str(folder), intra_threads=threads, inter_threads=replicas, compute_type=compute_type
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` responses, best first."""
        if options.groups > 1:
            raise RecipeError("diverse beams need the torch runtime: load with runtime='torch'")
        arguments = self._arguments(options)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        # One length at a time: CTranslate2 4.8 applies the minimum length to the wrong beams of
        # a ragged batch, and takes what is over the shortest prompt as steps of the search.
        running: list[tuple[int, Any]] = []
        for _, group in groupby(order, key=lambda number: len(prompts[number])):
            numbers = list(group)
            names = [[self._names[i] for i in prompts[number]] for number in numbers]
            started = self._generator.generate_batch(names, asynchronous=True, **arguments)
            running.extend(zip(numbers, started, strict=True))
        found: list[list[Hypothesis]] = [[] for _ in prompts]
        for number, one in running:
            found[number] = that_end_once(_hypotheses(one.result(), options), self._rules.stop_ids)
        return found

    def score(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each response after the prompt, summed over its tokens."""
        return [self._score(list(prompt), list(response)) for response in responses]

    def _score(self, prompt: list[int], response: list[int]) -> float:
        fed = [*prompt, *response[:-1]]
        # One at a time: the table is [time, text], hundreds of megabytes for a large vocabulary.
        table = np.array(self._generator.forward_batch([fed], return_log_probs=True))[0]
        return float(table[np.arange(len(prompt) - 1, len(fed)), response].sum(dtype=np.float64))

    def _arguments(self, options: DecodeOptions) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "num_hypotheses": options.captions,
            "min_length": options.min_length,
            "max_length": options.max_length,
            "length_penalty": options.length_penalty,
            "end_token": list(self._rules.stop_ids),
            "return_end_token": True,
            "include_prompt_in_result": False,
            "return_scores": True,
        }
        if options.sampling is None:
            return arguments | {"beam_size": options.beam_size, "patience": options.patience}
        return arguments | {
            "beam_size": 1,
            "sampling_topk": options.sampling.top_k,
            "sampling_topp": options.sampling.top_p,
            "sampling_temperature": options.sampling.temperature,
        }


def _hypotheses(result: Any, options: DecodeOptions) -> list[Hypothesis]:
    return [
        Hypothesis(tuple(ids), score * len(ids) ** options.length_penalty, score)
        for ids, score in zip(result.sequences_ids, result.scores, strict=True)
    ]
