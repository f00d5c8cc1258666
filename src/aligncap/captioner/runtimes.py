"""What a captioner needs of a language model, and the runtimes that need no torch.

`CT2Runtime` runs an exported model; `EndpointRuntime` asks an OpenAI-compatible completions server,
such as vLLM; `decoding.TorchRuntime` runs a model of transformers. In float CTranslate2 and torch
agree token for token, so a model is trained with the one and used with the other.

A server has the checkpoint that `aligncap merge` writes; prompts go to it as ids, so that no
tokenizer stands between. The protocol knows greedy search and sampling, no beams: where several
captions are wanted without sampling, the first is the greedy one and the rest are sampled at
temperature 1. Log-probabilities are the server's, over its whole vocabulary.
"""

import ctypes
import math
import os
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, Self
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from aligncap import foreign
from aligncap.captioner.prompts import features_of
from aligncap.captioner.vocabulary import STOP_CHARACTERS, Vocabulary
from aligncap.endpoints import COMPLETIONS, Endpoint, NoReplyError, ServerSettings
from aligncap.errors import DataError, EndpointError, MissingModelError, RecipeError
from aligncap.tokenizers.builtin import after_fork, leave_threads_alone

CT2_FOLDER = "ct2"
"""Where an exported model folder keeps its language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling from the `top_k` most probable tokens (0 = all), of them the fewest whose
    probability exceeds `top_p`, with the softmax of log-probability over `temperature`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise RecipeError(f"temperature is {self.temperature}, must be above 0")
        if self.top_k < 0:
            raise RecipeError(f"top_k is {self.top_k}, must be 0 (all) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise RecipeError(f"top_p is {self.top_p}, must be in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How responses are searched for. One beam without `sampling` is greedy search."""

    beam_size: int = 4
    captions: int = 1
    """Responses wanted for each prompt."""
    min_length: int = 3
    """Tokens before a response may end; at least one."""
    max_length: int = 64
    """Tokens at most, the last one included."""
    length_penalty: float = 1.0
    """Hypotheses are ranked by log-probability / length ** length_penalty."""
    patience: float = 1.0
    """A beam search ends when round(beam_size * patience) hypotheses have ended."""
    groups: int = 1
    """Groups of beams kept apart (diverse beam search); 1 = plain beam search."""
    diversity: float = 0.5
    """What a token costs for each earlier group that has just chosen it."""
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        for name in ("beam_size", "captions", "min_length", "groups"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.max_length < self.min_length:
            raise RecipeError(
                f"max_length is {self.max_length}, must not be under min_length {self.min_length}"
            )
        if self.patience <= 0.0:
            raise RecipeError(f"patience is {self.patience}, must be above 0")
        if self.beam_size % self.groups:
            raise RecipeError(f"beam_size {self.beam_size} does not divide by {self.groups} groups")
        if self.sampling is None and self.captions > self.hypotheses_wanted:
            raise RecipeError(
                f"{self.captions} captions need beam_size * patience of at least as many, "
                f"not {self.hypotheses_wanted}"
            )

    @property
    def hypotheses_wanted(self) -> int:
        """Ended hypotheses after which a beam search stops."""
        # Halves upward, as C's round does, unlike Python's.
        return int(self.beam_size * self.patience + 0.5)


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """Which tokens a response may hold, and which end it (decision 8)."""

    text_vocab_size: int
    """Ids [0, text_vocab_size) are text, eos among them; a response holds no others."""
    stop_ids: tuple[int, ...]
    """The end of text, and every token with a character that ends a sentence."""

    def __post_init__(self) -> None:
        if not self.stop_ids:
            raise RecipeError("a response needs at least one token that ends it")
        if not 0 <= min(self.stop_ids) <= max(self.stop_ids) < self.text_vocab_size:
            raise RecipeError(f"tokens that end a response must lie in [0, {self.text_vocab_size})")

    @classmethod
    def of(cls, vocabulary: Vocabulary, stop_characters: str = STOP_CHARACTERS) -> Self:
        """Text only, ended by eos or a token that contains one of the characters."""
        return cls(vocabulary.text_vocab_size, vocabulary.stop_ids(stop_characters))


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One response: its ids with the token that ended it, and what the model thinks of it."""

    ids: tuple[int, ...]
    log_probability: float
    """Sum of the log-probabilities of `ids`, natural logarithm."""
    score: float
    """What hypotheses are ranked by: log_probability / len(ids) ** length_penalty."""

    @classmethod
    def of(cls, ids: tuple[int, ...], log_probability: float, length_penalty: float) -> Self:
        """A response with its score."""
        return cls(ids, log_probability, log_probability / len(ids) ** length_penalty)

    @property
    def mean_log_probability(self) -> float:
        """Log-probability per token."""
        return self.log_probability / len(self.ids)


def sorted_by_score(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Ranked by score."""
    return sorted(hypotheses, key=lambda one: one.score, reverse=True)


def ended_once(hypotheses: Sequence[Hypothesis], stop_ids: Collection[int]) -> list[Hypothesis]:
    """Those without a stop token before their last; all of them where each has one.

    A beam continues after its end where most candidates of a step are ends, which is rare.
    """
    kept = [one for one in hypotheses if not any(i in stop_ids for i in one.ids[:-1])]
    return kept or list(hypotheses)


class LanguageRuntime(Protocol):
    """A language model that captions: prompts in, responses out."""

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` responses, at least one, best first."""


CT2_BYTES = (4, 1, 2, 4, 2, 2)
"""Of a number by CTranslate2's types: float32, int8, int16, int32, float16, bfloat16."""

CT2_SHAPES = {
    "embeddings/weight": ("rows", "narrow"),
    "projection/weight": ("text", "narrow"),
    "self_attention/linear_0/weight": (None, "width"),
    "self_attention/linear_1/weight": ("width", "width"),
    "ffn/linear_0/weight": ("inner", "width"),
    "ffn/linear_0_noact/weight": ("inner", "width"),
    "ffn/linear_1/weight": ("width", "inner"),
}
"""Endings of the matrices of a decoder, and what their sides must be."""


def check_ct2(folder: Path, text_rows: int) -> list[str]:
    """The names of a `ct2` folder's ids; DataError where its files do not hold one decoder whose
    shapes fit together and whose numbers are finite."""
    names = foreign.read_json(folder / "vocabulary.json", hint=foreign.AGAIN)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / 'vocabulary.json'}: is no list of names; {foreign.AGAIN}")
    foreign.read_table(folder / "config.json", hint=foreign.AGAIN)
    path = folder / "model.bin"
    foreign.check_regular(path, hint=foreign.AGAIN)
    with foreign.reading(path, hint=foreign.AGAIN):
        arrays = _ct2_arrays(np.memmap(path, dtype=np.uint8, mode="r"))
        rows, narrow = arrays["decoder/embeddings/weight"].shape
        width = narrow  # OPT's small models project embeddings to another width
        if "decoder/project_in/weight" in arrays:
            width = arrays["decoder/project_in/weight"].shape[0]
        sides = {"rows": len(names), "text": text_rows, "width": width, "narrow": narrow}
        if rows != len(names):
            raise ValueError(f"{rows} embeddings for {len(names)} names")
        for name, array in arrays.items():
            _check_ct2_array(name, array, arrays, sides)
        heads = int(arrays["decoder/num_heads"])
        if not 1 <= heads <= width or width % heads:
            raise ValueError(f"{heads} heads in a width of {width}")
        rotated = (int(array) for name, array in arrays.items() if name.endswith("rotary_dim"))
        if not all(0 <= size <= width // heads for size in rotated):
            raise ValueError("positions turn more than a head")
    return names


def _ct2_arrays(data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The arrays of a model.bin by name; ValueError or a struct.error where it is cut short."""
    types = (np.float32, np.int8, np.int16, np.int32, np.float16, np.uint16)
    place = 0

    def take(form: str) -> Any:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data.data, place)
        place += struct.calcsize(f"<{form}")
        return value

    def text() -> str:
        return str(take(f"{take('H')}s")[:-1].decode("utf-8"))

    version, kind, _, count = take("I"), text(), take("I"), take("I")
    if version > 6 or kind != "TransformerDecoderSpec" or count > len(data) // 8:
        raise ValueError(f"holds a {kind[:40]!r} in format {version}")
    arrays: dict[str, NDArray[Any]] = {}
    for _ in range(count):
        name = text()
        shape = tuple(take("I") for _ in range(take("B")))
        kind_of, size = take("B"), take("I")
        if size != math.prod(shape) * CT2_BYTES[kind_of] or size > len(data) - place:
            raise ValueError(f"{name[:60]} does not have the size of its shape")
        arrays[name] = data[place : place + size].view(types[kind_of]).reshape(shape)
        place += size
    for _ in range(take("I")):
        alias, name = text(), text()
        arrays[alias] = arrays[name]
    if place != len(data):
        raise ValueError(f"has {len(data):,} bytes, not {place:,}")
    return arrays


def ct2_weights(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a checked `ct2` folder by name, matrices of int8 as the numbers they stand
    for: each row over its scale. RecipeError where they are kept as int16 or halves."""
    arrays = _ct2_arrays(np.memmap(folder / "model.bin", dtype=np.uint8, mode="r"))
    found = dict(arrays)
    for name, array in arrays.items():
        scale = arrays.get(f"{name}_scale")
        if scale is not None and array.dtype == np.int8:
            found[name] = array.astype(np.float32) / scale[:, None]
        elif array.ndim and array.dtype != np.float32:
            raise RecipeError(
                f"{folder}: its weights are {array.dtype}; export with int8 or float32 to go on"
            )
    return found


def _check_ct2_array(
    name: str, array: NDArray[Any], arrays: Mapping[str, NDArray[Any]], sides: dict[str, int]
) -> None:
    """ValueError where an array is not as its name and its neighbours say."""
    layer, _, end = name.rpartition("/")
    # The scale of int16 is one number.
    rows = arrays[f"{layer}/weight"].shape[:1] if end in ("weight_scale", "bias") else array.shape
    if array.shape not in (rows, ()):
        raise ValueError(f"{name} does not fit its weight")
    if end in ("gamma", "beta") and array.shape != (sides["width"],):
        raise ValueError(f"{name} has the shape {array.shape}")
    for ending, wanted in CT2_SHAPES.items():
        if name.endswith("/" + ending):
            known = dict(sides)
            if "inner" in wanted:
                last = arrays[name.partition("ffn/")[0] + "ffn/linear_1/weight"]
                known["inner"] = last.shape[-1] if last.ndim else 0
            if array.ndim != 2 or any(
                side is not None and known[side] != found
                for side, found in zip(wanted, array.shape, strict=True)
            ):
                raise ValueError(f"{name} has the shape {array.shape}")
    if array.dtype.kind == "f" and array.ndim:
        largest = np.abs(array).max(initial=0.0)
        too_small = end == "weight_scale" and array.min(initial=1.0) < 127 / foreign.LARGEST_WEIGHT
        too_large = end != "weight_scale" and largest > foreign.LARGEST_WEIGHT
        if too_small or too_large or not np.isfinite(largest):
            raise ValueError(f"{name} holds a number that is not finite or too large")


class CT2Runtime:
    """An exported language model on CTranslate2: int8 on any CPU.

    After a fork the child opens the model again, with one thread a group of prompts.
    """

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

        `replicas` groups of prompts run at a time with `threads` threads each; they share the
        weights. `seed` is that of sampling: it can be set only before the first sample.
        """
        for name in ("model.bin", "vocabulary.json", "config.json"):
            if not (folder / name).exists():
                raise MissingModelError(f"{folder}: no {name}; export the model again")
        self._names = check_ct2(folder, rules.text_vocab_size)
        import ctranslate2

        ctranslate2.set_random_seed(seed)
        self._rules = rules
        self._open = partial(
            ctranslate2.Generator, str(folder), inter_threads=replicas, compute_type=compute_type
        )
        with foreign.reading(folder, hint=foreign.AGAIN):
            self._generator = self._open(intra_threads=threads)
        leave = WeakMethod(self._leave)
        after_fork(lambda: (living := leave()) and living())

    def _leave(self) -> None:
        """Give the generator up in the child of a fork, where its threads are not. It must not be
        freed either, which would wait for them; OpenMP's threads, too, are the parent's."""
        if self._generator is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._generator))
            self._generator = None
        leave_threads_alone()

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` responses, best first."""
        if options.groups > 1:
            raise RecipeError("diverse beams need the torch runtime: load with runtime='torch'")
        if self._generator is None:
            self._generator = self._open(intra_threads=1)
        generator, arguments = self._generator, self._arguments(options)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        # One length at a time: CTranslate2 4.8 applies the minimum length to the wrong beams of
        # a ragged batch, and takes what is over the shortest prompt as steps of the search.
        running: list[tuple[int, Any]] = []
        for _, group in groupby(order, key=lambda number: len(prompts[number])):
            numbers = list(group)
            names = [[self._names[i] for i in prompts[number]] for number in numbers]
            started = generator.generate_batch(names, asynchronous=True, **arguments)
            running.extend(zip(numbers, started, strict=True))
        found: list[list[Hypothesis]] = [[] for _ in prompts]
        for number, one in running:
            result = one.result()
            hypotheses = [
                Hypothesis(tuple(ids), score * len(ids) ** options.length_penalty, score)
                for ids, score in zip(result.sequences_ids, result.scores, strict=True)
            ]
            found[number] = ended_once(hypotheses, self._rules.stop_ids)
        return found

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


FORBIDDEN = -100
"""The logit bias of a forbidden token: the lowest that the protocol allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings(ServerSettings):
    """Where a merged model is served, and how it is asked."""

    url: str
    model: str | None = None
    """The name it is served under; that of the model folder where not given."""
    concurrency: int = 16
    attempts: int = 6

    def __post_init__(self) -> None:
        self.check("the endpoint's", COMPLETIONS)


class EndpointRuntime:
    """A served language model; `generate` as `LanguageRuntime` has it."""

    def __init__(
        self,
        settings: EndpointSettings,
        vocabulary: Vocabulary,
        rules: ResponseRules,
        *,
        name: str,
    ) -> None:
        """`name` is what the model is called where the settings do not say."""
        self._vocabulary, self._rules = vocabulary, rules
        self._name = settings.model or name
        self._concurrency = settings.concurrency
        self._bias = {str(i): FORBIDDEN for i in range(rules.text_vocab_size, vocabulary.size)}
        self._open = partial(
            Endpoint,
            settings,
            COMPLETIONS,
            _choices_in,
            what="completion with log-probabilities",
            refused=EndpointError,
            hints={
                401: "set ALIGNCAP_ENDPOINT_KEY to a key that the server accepts",
                403: "set ALIGNCAP_ENDPOINT_KEY to a key that may use this model",
                404: "give the base URL up to and with /v1, and the name the model is served under",
                0: "start the server with a checkpoint of `aligncap merge`",
            },
        )
        self._endpoint, self._process = self._open(), os.getpid()

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` different responses, best first."""
        if options.groups > 1:
            raise RecipeError("diverse beams need the torch runtime: load with runtime='torch'")
        if any(features_of(prompt) is not None for prompt in prompts):
            raise RecipeError("prompts that hold vectors are for no server; leave out the endpoint")
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda prompt: self._generate(prompt, options), prompts))

    def _generate(self, prompt: Sequence[int], options: DecodeOptions) -> list[Hypothesis]:
        found: list[Hypothesis] = []
        if options.sampling is None:
            found = self._complete(prompt, options, {"temperature": 0.0, "n": 1})
        missing = options.captions - len(found)
        if missing > 0:
            given = options.sampling or Sampling()
            fields = {"temperature": given.temperature, "top_p": given.top_p, "seed": given.seed}
            if given.top_k:
                fields["top_k"] = given.top_k
            found += self._complete(prompt, options, {**fields, "n": missing})
        return sorted_by_score({one.ids: one for one in found}.values())

    def _complete(
        self, prompt: Sequence[int], options: DecodeOptions, how: Mapping[str, object]
    ) -> list[Hypothesis]:
        fields = {
            "logprobs": 1,
            "add_special_tokens": False,
            "max_tokens": options.max_length,
            "min_tokens": options.min_length,
            "stop_token_ids": list(self._rules.stop_ids),
            "logit_bias": self._bias,
            "return_token_ids": True,
            **how,
        }
        if self._process != os.getpid():  # a connection must not be shared with a parent process
            self._endpoint, self._process = self._open(), os.getpid()
        try:
            choices, _ = self._endpoint.ask(
                model=self._name, prompt=list(prompt), extra_body=fields
            )
        except NoReplyError as error:
            raise EndpointError(f"{self._name}: {error}") from error
        said = (choice for choice in choices if choice["text"].strip())  # an empty one is none
        return [self._hypothesis(choice, options) for choice in said]

    def _hypothesis(self, choice: Any, options: DecodeOptions) -> Hypothesis:
        """One answer, up to its first end."""
        log_probabilities = choice["logprobs"]["token_logprobs"]
        given = (choice.get("token_ids") or [])[: options.max_length]
        given = given or self._ids_of(choice, options)
        stops = set(self._rules.stop_ids)
        ends = (n for n, i in enumerate(given, 1) if i in stops and n >= options.min_length)
        ids = given[: next(ends, len(given))]
        if not ids or max(ids) >= self._rules.text_vocab_size:
            raise EndpointError(
                f"{self._name}: its answer is no text; start the server with a checkpoint of "
                "`aligncap merge`"
            )
        # Ids made of a text may be others, or fewer, than those that the server counts.
        whole = not choice.get("token_ids") and len(ids) == len(given)
        total = sum(log_probabilities if whole else log_probabilities[: len(ids)])
        return Hypothesis.of(tuple(ids), total, options.length_penalty)

    def _ids_of(self, choice: Any, options: DecodeOptions) -> list[int]:
        """The ids of the text, where a server does not give its own."""
        longest = 100 * options.max_length  # characters; no token has more on average
        ids = self._vocabulary.encode_text(choice["text"][:longest])
        ended = choice.get("finish_reason") == "stop"
        if ended and (not ids or ids[-1] not in self._rules.stop_ids):
            ids.append(self._vocabulary.eos_id)
        return ids


def empty_answer(model: str) -> EndpointError:
    """What is wrong where a server's answer has no words."""
    return EndpointError(
        f"{model}: the server's answer is empty; start it with a checkpoint of `aligncap merge`"
    )


def _choices_in(table: Any) -> list[Any]:
    """The choices of a completion; fails where they have no text or no log-probabilities."""
    for choice in table["choices"]:
        _ = choice["text"] + "", [float(p) for p in choice["logprobs"]["token_logprobs"]]
    return [table["choices"][0], *table["choices"][1:]]
