"""The language model behind an OpenAI-compatible completions server, such as vLLM.

The server has the checkpoint that `aligncap merge` writes; prompts go to it as ids, so that no
tokenizer stands between. The protocol knows greedy search and sampling, no beams: where several
captions are wanted without sampling, the first is the greedy one and the rest are drawn at
temperature 1. Log-probabilities are the server's, over its whole vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from threading import Event
from typing import Any, TypeVar

from aligncap.captioner.runtime import (
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    Sampling,
    best_first,
)
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.endpoints import NoAnswerError, Wait, check_server, open_client
from aligncap.errors import EndpointError, RecipeError

T = TypeVar("T")

PATH = "/completions"
FORBIDDEN = -100
"""The bias of a token that is never to be said: the least that the protocol knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """Where a merged model is served, and how it is asked."""

    url: str
    """Base URL, up to and with "/v1"."""
    model: str | None = None
    """The name it is served under; that of the model folder where not given."""
    key: str | None = field(default=None, repr=False)
    proxy: str | None = None
    concurrency: int = 16
    """Prompts under way at once."""
    attempts: int = 6
    timeout_s: float = 120.0
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        check_server(self, whose="the endpoint's", path=PATH)


class EndpointRuntime:
    """A served language model; `generate` and `score` as `LanguageRuntime` has them."""

    def __init__(
        self,
        settings: EndpointSettings,
        vocabulary: Vocabulary,
        rules: ResponseRules,
        *,
        name: str,
        wait: Wait | None = None,
    ) -> None:
        """`name` is what the model is called where the settings do not say; `wait` is a clock."""
        self._vocabulary, self._rules = vocabulary, rules
        self._name = settings.model or name
        self._concurrency = settings.concurrency
        self._bias = {str(i): FORBIDDEN for i in range(rules.text_size, vocabulary.size)}
        self._client = open_client(
            settings,
            PATH,
            refused=EndpointError,
            key_from="ALIGNCAP_ENDPOINT_KEY",
            model="the name the model is served under",
            otherwise="start the server with a checkpoint of `aligncap merge`",
            wait=wait or Event().wait,
            random=Random(),
        )

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` different responses, best first."""
        if options.groups > 1:
            raise RecipeError("diverse beams need the torch runtime: load with runtime='torch'")
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda prompt: self._generate(prompt, options), prompts))

    def score(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each response after the prompt, summed over its tokens."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda response: self._score(prompt, response), responses))

    def _generate(self, prompt: Sequence[int], options: DecodeOptions) -> list[Hypothesis]:
        found: list[Hypothesis] = []
        if options.sampling is None:
            found = self._complete(prompt, options, {"temperature": 0.0, "n": 1})
        drawn = options.captions - len(found)
        if drawn > 0:
            sampling = options.sampling or Sampling()
            found += self._complete(prompt, options, {**_drawing(sampling), "n": drawn})
        return best_first({one.ids: one for one in found}.values())

    def _complete(
        self, prompt: Sequence[int], options: DecodeOptions, how: Mapping[str, object]
    ) -> list[Hypothesis]:
        fields = {
            "prompt": list(prompt),
            "max_tokens": options.max_length,
            "min_tokens": options.min_length,
            "stop_token_ids": list(self._rules.stop_ids),
            "logit_bias": self._bias,
            "return_token_ids": True,
            **how,
        }

        def read(table: Any) -> list[Hypothesis]:
            return [self._hypothesis(choice, options) for choice in table["choices"]]

        return self._ask(fields, read)

    def _hypothesis(self, choice: Any, options: DecodeOptions) -> Hypothesis:
        """One answer, up to its first end."""
        log_probabilities = [float(p) for p in choice["logprobs"]["token_logprobs"]]
        given = choice.get("token_ids") or self._ids_of(choice)
        stops = set(self._rules.stop_ids)
        ends = (n for n, i in enumerate(given, 1) if i in stops and n >= options.min_length)
        ids = given[: next(ends, len(given))]
        if not ids or max(ids) >= self._rules.text_size:
            raise ValueError("a caption of no text")
        # Ids made of a text may be others, or fewer, than those that the server counts.
        whole = not choice.get("token_ids") and len(ids) == len(given)
        total = sum(log_probabilities if whole else log_probabilities[: len(ids)])
        return Hypothesis.of(tuple(ids), total, options.length_penalty)

    def _ids_of(self, choice: Any) -> list[int]:
        """The ids of the text, where a server does not give its own."""
        ids = self._vocabulary.encode_text(choice["text"])
        ended = choice.get("finish_reason") == "stop"
        if ended and (not ids or ids[-1] not in self._rules.stop_ids):
            ids.append(self._vocabulary.eos_id)
        return ids

    def _score(self, prompt: Sequence[int], response: Sequence[int]) -> float:
        start, stop = len(prompt), len(prompt) + len(response)

        def read(table: Any) -> float:
            given = table["choices"][0]["logprobs"]["token_logprobs"][start:stop]
            if len(given) < len(response):
                raise ValueError("no log-probabilities of the prompt")
            return sum(map(float, given))

        return self._ask(
            {"prompt": [*prompt, *response], "echo": True, "max_tokens": 1, "temperature": 0.0},
            read,
        )

    def _ask(self, fields: Mapping[str, object], read: Callable[[Any], T]) -> T:
        shared = {"model": self._name, "logprobs": 1, "add_special_tokens": False}
        try:
            answer, _ = self._client.ask(
                {**shared, **fields}, read, what="completion with log-probabilities"
            )
        except NoAnswerError as error:
            raise EndpointError(f"{self._name}: {error}") from error
        return answer


def _drawing(sampling: Sampling) -> Mapping[str, object]:
    fields = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    return {**fields, "top_k": sampling.top_k} if sampling.top_k else fields
