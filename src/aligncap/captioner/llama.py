"""A small exported language model of Llama's form in ONNX Runtime.

CTranslate2 packs int8 weights anew for every step of a search and copies what beams remember when
they change places; of a model of a few million parameters that is most of the time. Here weights
are packed once, and what the beams of a prompt have in common, the prompt above all, is kept once:
a mask says which of the kept tokens a beam consists of. Numbers are quantised as CTranslate2 does,
row by row, so that both write the same, and a prompt is answered alike whatever is beside it. The
graph is made in memory from the `ct2` folder.
"""

import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aligncap import foreign
from aligncap.captioner import runtimes
from aligncap.captioner.beams import BeamCandidate, BeamSearch
from aligncap.errors import RecipeError
from aligncap.tokenizers.builtin import leave_threads_alone

Floats = NDArray[np.float32]

OPSET, IR_VERSION = 17, 8
CONTRIBUTED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

LONGEST = 2048
"""Positions of a prompt and its response; far more than both take."""

_TYPES: Mapping[str, int] = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}


def _varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes((*found, number))


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """A field of a message of protocol buffers."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


class Graph:
    """An ONNX graph as it is made, node by node; names of values are numbered."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def input(self, name: str, *sides: int | str, kind: str = "float32") -> str:
        """An input; a side is a number or the name of one that is known when it runs."""
        self._parts.append(_field(11, self._value(name, sides, kind)))
        return name

    def output(self, name: str, *sides: int | str, kind: str = "float32") -> None:
        """A value that the graph gives."""
        self._parts.append(_field(12, self._value(name, sides, kind)))

    @staticmethod
    def _value(name: str, sides: Iterable[int | str], kind: str) -> bytes:
        shape = (_field(1, _field(1 if isinstance(side, int) else 2, side)) for side in sides)
        tensor = _field(1, _TYPES[kind]) + _field(2, b"".join(shape))
        return _field(1, name) + _field(2, _field(1, tensor))

    def constant(self, array: Any) -> str:
        """A tensor of the graph."""
        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        name = self._name("c")
        sides = b"".join(_field(1, side) for side in array.shape)
        kind = _field(2, _TYPES[array.dtype.name])
        data = sides + kind + _field(8, name) + _field(9, array.tobytes())
        self._parts.append(_field(5, data))
        return name

    def node(
        self, kind: str, *inputs: str, outputs: int = 1, named: Sequence[str] = (), **given: Any
    ) -> list[str]:
        """A node's outputs: `outputs` new ones, the last of them called as `named` says."""
        names = [self._name("v") for _ in range(outputs - len(named))] + list(named)
        domain = given.pop("domain", "")
        attributes = b"".join(_field(5, self._attribute(*one)) for one in given.items())
        data = b"".join(_field(1, one) for one in inputs) + b"".join(_field(2, n) for n in names)
        self._parts.append(_field(1, data + _field(4, kind) + attributes + _field(7, domain)))
        return names

    @staticmethod
    def _attribute(name: str, value: float | int | list[int]) -> bytes:
        if isinstance(value, list):
            return _field(1, name) + b"".join(_field(8, one) for one in value) + _field(20, 7)
        place, kind = (2, 1) if isinstance(value, float) else (3, 2)
        return _field(1, name) + _field(place, value) + _field(20, kind)

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"

    def model(self) -> bytes:
        """The whole as an ONNX file has it."""
        graph = b"".join(self._parts) + _field(2, "llama")
        opsets = (("", OPSET), (CONTRIBUTED, 1))
        used = b"".join(_field(8, _field(1, name) + _field(2, n)) for name, n in opsets)
        return _field(1, IR_VERSION) + _field(7, graph) + used


class _Layers:
    """The layers of a decoder as nodes of a graph."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], epsilon: float) -> None:
        self.graph, self._arrays, self._epsilon = Graph(), arrays, epsilon
        self.heads = int(arrays["decoder/num_heads"])
        self.width = len(arrays["decoder/layer_norm/gamma"])
        self._zero = self.graph.constant(np.uint8(128))
        self._one = self.graph.constant(np.float32(1))
        self._full = self.graph.constant(np.float32(127))

    def _op(self, kind: str, *inputs: str, **given: Any) -> str:
        return self.graph.node(kind, *inputs, **given)[0]

    def linear(self, x: str, *names: str) -> str:
        """x times matrices beside each other, in integers: each row of x over its largest number,
        each row of a matrix over its scale."""
        largest = self._op("ReduceMax", self._op("Abs", x), axes=[-1], keepdims=1)
        # A row of zeros is not a number here, whatever integers it gives; their product is 0.
        scaled = self._op("Mul", x, self._op("Div", self._full, largest))
        whole = self._op("QuantizeLinear", scaled, self._one, self._zero)
        weights = np.concatenate([self._arrays[f"decoder/{name}/weight"] for name in names])
        scales = np.concatenate([self._arrays[f"decoder/{name}/weight_scale"] for name in names])
        matrix = self.graph.constant(weights.T)
        scale = self.graph.constant((1 / (127 * scales)).astype("f4"))
        product = self._op(
            *("MatMulIntegerToFloat", whole, matrix, self._one, scale, self._zero),
            domain=CONTRIBUTED,
        )
        return self._op("Mul", product, largest)

    def norm(self, x: str, more: str, name: str) -> tuple[str, str]:
        """The sum of both, normalised by its mean square, and as it is."""
        gamma = self.graph.constant(self._arrays[f"decoder/{name}/gamma"].astype("f4"))
        found = self.graph.node(
            "SkipSimplifiedLayerNormalization",
            *(x, more, gamma),
            outputs=4,
            domain=CONTRIBUTED,
            epsilon=self._epsilon,
        )
        return found[0], found[3]

    def attention(self, x: str, number: int, places: Sequence[str]) -> str:
        """What each token takes from those kept and those beside it that its mask allows."""
        layer, (positions, cosines, sines, mask) = f"layer_{number}/self_attention", places
        sides = self.graph.constant(np.full(3, self.width))
        query, key, value = self.graph.node(
            "Split", self.linear(x, f"{layer}/linear_0"), sides, outputs=3, axis=-1
        )
        query, key = (
            self._op(
                *("RotaryEmbedding", one, positions, cosines, sines),
                domain=CONTRIBUTED,
                num_heads=self.heads,
            )
            for one in (query, key)
        )
        past = [
            self.graph.input(f"{what}{number}", "B", self.heads, "M", self.width // self.heads)
            for what in ("key", "value")
        ]
        found, *_ = self.graph.node(
            "MultiHeadAttention",
            *(query, key, value, "", "", mask, *past),
            outputs=3,
            named=(f"keys{number}", f"values{number}"),
            domain=CONTRIBUTED,
            num_heads=self.heads,
        )
        for name in (f"keys{number}", f"values{number}"):
            self.graph.output(name, "B", self.heads, "all", self.width // self.heads)
        return self.linear(found, f"{layer}/linear_1")

    def forward(self, x: str, number: int) -> str:
        """The feed-forward part of a layer (SwiGLU)."""
        layer = f"layer_{number}/ffn"
        inner = len(self._arrays[f"decoder/{layer}/linear_0/weight"])
        both = self.linear(x, f"{layer}/linear_0", f"{layer}/linear_0_noact")
        sides = self.graph.constant(np.full(2, inner))
        gate, up = self.graph.node("Split", both, sides, outputs=2, axis=-1)
        gate = self._op("QuickGelu", gate, domain=CONTRIBUTED, alpha=1.0)
        return self.linear(self._op("Mul", gate, up), f"{layer}/linear_1")

    def choose(self, logits: str) -> None:
        """The most probable continuations of all texts of a prompt together."""
        text = len(self._arrays["decoder/projection/weight"])
        allowed = self.graph.input("allowed", text)
        totals = self.graph.input("totals", "B", "P", 1)
        sums = self._op("LogSoftmax", self._op("Add", logits, allowed), axis=-1)
        sums = self._op("Add", sums, totals)
        sums = self._op("Reshape", sums, self.graph.constant(np.array([0, -1])))
        count = self.graph.input("count", 1, kind="int64")
        self.graph.node("TopK", sums, count, outputs=2, named=("best", "places"), axis=-1)
        self.graph.output("best", "B", "count")
        self.graph.output("places", "B", "count", kind="int64")


def build(arrays: Mapping[str, NDArray[Any]], epsilon: float) -> bytes:
    """The decoder as an ONNX file: embedded tokens [B, N, width] with their positions [B, N], what
    is kept of each layer [B, heads, M, size] and a mask [B, 1, N, M + N] in, with what the tokens
    that `wanted` numbers have so far, `totals` [B, P, 1]; their `count` most probable continuations
    together, log-probabilities and places [B, count], and what is to be kept out.

    `allowed`, [text], is 0, and minus infinity for what must not follow."""
    made = _Layers(arrays, epsilon)
    graph, half = made.graph, made.width // made.heads // 2
    x = graph.input("x", "B", "N", made.width)
    more = graph.input("zero", "B", "N", made.width)
    turns = np.outer(np.arange(LONGEST), ROTARY_BASE ** (-np.arange(half) / half))
    places = (
        graph.input("positions", "B", "N", kind="int64"),
        graph.constant(np.cos(turns).astype("f4")),
        graph.constant(np.sin(turns).astype("f4")),
        graph.input("mask", "B", 1, "N", "total"),
    )
    for number in range(layers_of(arrays)):
        layer = f"layer_{number}"
        normal, x = made.norm(x, more, f"{layer}/self_attention/layer_norm")
        more = made.attention(normal, number, places)
        normal, x = made.norm(x, more, f"{layer}/ffn/layer_norm")
        more = made.forward(normal, number)
    wanted = graph.input("wanted", "P", kind="int64")
    normal, _ = made.norm(x, more, "layer_norm")
    (normal,) = graph.node("Gather", normal, wanted, axis=1)
    made.choose(made.linear(normal, "projection"))
    return graph.model()


def layers_of(arrays: Mapping[str, NDArray[Any]]) -> int:
    """How many layers a decoder has."""
    return sum(name.endswith("self_attention/layer_norm/gamma") for name in arrays)


def open_session(model: bytes) -> Any:
    """ONNX Runtime's session of a graph, with one thread: several may run it at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # With one thread the session itself is usable in a child.
    os.register_at_fork(after_in_child=leave_threads_alone)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


AT_ONCE = 16
"""Prompts of one search; the next ones of a batch are another."""


class LlamaRuntime:
    """A small int8 model of Llama's form on ONNX Runtime; `generate` as `LanguageRuntime` has it.

    Sampling is CTranslate2's, as in `CT2Runtime`.
    """

    def __init__(
        self, folder: Path, rules: runtimes.ResponseRules, *, workers: int = 1, seed: int = 0
    ) -> None:
        """Open the `ct2` folder of an export; `workers` searches run at a time.

        RecipeError where it holds no such model.
        """
        runtimes.check_ct2(folder, rules.text_vocab_size)
        arrays = runtimes.ct2_arrays(folder)
        if not is_small_llama(arrays):
            raise RecipeError(
                f"{folder}: is no small int8 model of Llama's form; load it with runtime='ct2'"
            )
        settings = foreign.read_table(folder / "config.json", hint=foreign.AGAIN)
        with foreign.reading(folder, hint=foreign.AGAIN):
            model = build(arrays, float(settings.get("layer_norm_epsilon", 1e-5)))
            self._session = open_session(model)
        scales = np.array(arrays["decoder/embeddings/weight_scale"])
        self._embeddings: Floats = arrays["decoder/embeddings/weight"] / scales[:, None]
        self._rules, self._workers = rules, workers
        self._open_sampler = partial(
            runtimes.CT2Runtime, folder, rules, replicas=workers, seed=seed
        )
        heads = int(arrays["decoder/num_heads"])
        nothing = np.zeros((1, heads, 0, self._embeddings.shape[1] // heads), np.float32)
        self._layers = range(layers_of(arrays))
        self._nothing = _values(dict.fromkeys(kept_names(self._layers, ""), nothing))
        self._any = np.zeros(rules.text_vocab_size, np.float32)
        self._unended = self._any.copy()
        self._unended[list(rules.stop_ids)] = -np.inf

    @cached_property
    def _sampler(self) -> runtimes.CT2Runtime:
        return self._open_sampler()

    def generate(
        self, prompts: Sequence[Sequence[int]], options: runtimes.DecodeOptions
    ) -> list[list[runtimes.Hypothesis]]:
        """For each prompt up to `options.captions` responses, best first."""
        if options.sampling is not None or options.groups > 1:
            return self._sampler.generate(prompts, options)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        size = max(1, min(AT_ONCE, math.ceil(len(order) / self._workers)))
        parts = [order[start : start + size] for start in range(0, len(order), size)]

        def search(numbers: list[int]) -> list[list[runtimes.Hypothesis]]:
            return self._search([prompts[number] for number in numbers], options)

        if len(parts) > 1 and self._workers > 1:
            with ThreadPoolExecutor(self._workers) as pool:
                answers = list(pool.map(search, parts))
        else:
            answers = list(map(search, parts))
        found: list[list[runtimes.Hypothesis]] = [[] for _ in prompts]
        for numbers, answer in zip(parts, answers, strict=True):
            for number, hypotheses in zip(numbers, answer, strict=True):
                found[number] = hypotheses
        return found

    def _search(
        self, prompts: Sequence[Sequence[int]], options: runtimes.DecodeOptions
    ) -> list[list[runtimes.Hypothesis]]:
        state = _Continuation(self, prompts, options)
        searches = [BeamSearch(options, frozenset(self._rules.stop_ids)) for _ in prompts]
        alive = searches
        for length in range(1, options.max_length + 1):
            last = length == options.max_length
            kept = [one.step(best, last=last) for one, best in zip(alive, state.best, strict=True)]
            going = [number for number, chosen in enumerate(kept) if chosen is not None]
            if not going:
                break
            alive = [alive[number] for number in going]
            state.advance(going, [chosen for chosen in kept if chosen is not None])
        return [one.best() for one in searches]

    def run(
        self, texts: "Texts", kept: dict[str, Any], *, count: int, unended: bool
    ) -> tuple[list[list[BeamCandidate]], dict[str, Any]]:
        """The `count` best continuations of each prompt's texts, or all there are, and what is kept
        of all now; none of them ends where they must stay `unended`."""
        x, size = self._embeddings[texts.ids], len(self._any)
        given: dict[str, NDArray[Any]] = {
            "x": x,
            "zero": np.zeros_like(x),
            "positions": texts.positions,
            "mask": np.where(texts.mask, np.float32(0), np.float32(-1e9))[:, None],
            "wanted": texts.wanted,
            "totals": texts.totals,
            "allowed": self._unended if unended else self._any,
            "count": np.array([min(count, len(texts.wanted) * size)]),
        }
        outputs = ["best", "places", *kept_names(self._layers, "s")]
        best, places, *others = self._session.run_with_ort_values(outputs, _values(given) | kept)
        found = [
            [BeamCandidate(total, at // size, at % size) for total, at in zip(*row, strict=True)]
            for row in zip(best.numpy().tolist(), places.numpy().tolist(), strict=True)
        ]
        return found, dict(zip(kept_names(self._layers, ""), others, strict=True))

    def prefilled(
        self, prompt: Sequence[int], options: runtimes.DecodeOptions
    ) -> tuple[list[BeamCandidate], dict[str, Any]]:
        """The best first tokens after a prompt, and what is kept of it."""
        length = len(prompt)
        texts = Texts(
            ids=np.array([prompt], np.int64),
            positions=np.arange(length)[None],
            mask=np.tri(length, dtype=np.bool_)[None],
            wanted=np.array([length - 1]),
            totals=np.zeros((1, 1, 1), np.float32),
        )
        (best,), kept = self.run(
            texts, self._nothing, count=2 * options.beam_size, unended=options.min_length > 0
        )
        return best, kept


class Texts(NamedTuple):
    """What follows what is kept: of each prompt some tokens, and what they attend to."""

    ids: NDArray[np.int64]
    """[B, N]"""
    positions: NDArray[np.int64]
    """[B, N]"""
    mask: NDArray[np.bool_]
    """[B, N, M + N]: of the kept tokens, and of those beside it."""
    wanted: NDArray[np.int64]
    """[P]: which of them are continued."""
    totals: Floats
    """[B, P, 1]: the log-probability of the text that each ends."""


class _Continuation:
    """Partial texts of several prompts: what is kept of them, and how they go on best.

    The tokens of a prompt's texts are kept side by side, and a mask says which a text consists of.
    """

    def __init__(
        self,
        runtime: LlamaRuntime,
        prompts: Sequence[Sequence[int]],
        options: runtimes.DecodeOptions,
    ) -> None:
        self._runtime, self._options, self._texts = runtime, options, 0
        found = [runtime.prefilled(prompt, options) for prompt in prompts]
        self.best = [best for best, _ in found]
        """Of each prompt."""
        self._lengths = np.array([len(prompt) for prompt in prompts])
        self._seen = (np.arange(self._lengths.max()) < self._lengths[:, None])[:, None]
        """The kept tokens that a text consists of, [prompts, texts of each, kept]."""
        self._kept = found[0][1] if len(prompts) == 1 else _side_by_side([k for _, k in found])

    def advance(self, going: Sequence[int], chosen: Sequence[Sequence[BeamCandidate]]) -> None:
        """Go on with the prompts `going`, each with the tokens `chosen` after its texts."""
        if len(going) < len(self._lengths):
            self._kept = _values({name: one.numpy()[going] for name, one in self._kept.items()})
            self._lengths, self._seen = self._lengths[going], self._seen[going]
        ids = np.array([[one.token for one in beams] for beams in chosen])
        parents = np.array([[one.beam for one in beams] for beams in chosen])
        own = np.broadcast_to(np.eye(ids.shape[1], dtype=np.bool_), (*ids.shape, ids.shape[1]))
        before = self._seen[np.arange(len(ids))[:, None], parents]
        self._seen = np.concatenate((before, own), axis=2)
        self._texts += 1
        texts = Texts(
            ids=ids,
            positions=np.repeat(self._lengths[:, None], ids.shape[1], axis=1),
            mask=self._seen,
            wanted=np.arange(ids.shape[1]),
            totals=np.array([[[one.total] for one in beams] for beams in chosen], np.float32),
        )
        self.best, self._kept = self._runtime.run(
            texts,
            self._kept,
            count=2 * self._options.beam_size,
            unended=self._texts < self._options.min_length,
        )
        self._lengths = self._lengths + 1


def kept_names(layers: Iterable[int], ending: str) -> list[str]:
    """What the graph calls what is kept of each layer: its inputs, with "s" its outputs."""
    return [f"{what}{ending}{number}" for number in layers for what in ("key", "value")]


def _side_by_side(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept of several prompts, each with zeros up to the longest."""

    def padded(one: Floats, length: int) -> Floats:
        return np.pad(one, ((0, 0), (0, 0), (0, length - one.shape[2]), (0, 0)))

    longest = max(next(iter(one.values())).shape()[2] for one in kept)
    return _values(
        {name: np.concatenate([padded(k[name].numpy(), longest) for k in kept]) for name in kept[0]}
    )


def _values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Arrays as ONNX Runtime holds them."""
    import onnxruntime

    make = onnxruntime.OrtValue.ortvalue_from_numpy
    return {name: make(np.ascontiguousarray(array)) for name, array in arrays.items()}


MOST_WIDTH = 512
"""Of a model that is opened here; CTranslate2 is for larger ones."""


def is_small_llama(arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the arrays of a `ct2` folder are those of a small int8 decoder as this module builds
    them: RMS norms, rotary positions, SwiGLU, no biases, as many heads for keys as for queries."""
    layer = "decoder/layer_0/"
    known = {f"{layer}ffn/linear_0_noact/weight", f"{layer}self_attention/rotary_dim"}
    width = len(arrays.get("decoder/layer_norm/gamma", ()))
    queries = arrays.get(f"{layer}self_attention/linear_0/weight", np.zeros(0))
    return bool(
        known <= arrays.keys()
        and 0 < width <= MOST_WIDTH
        and queries.dtype == np.int8
        and len(queries) == 3 * width
        and arrays["decoder/embeddings/weight"].dtype == np.int8
        and not any(name.endswith(("bias", "beta")) for name in arrays)
        and not any(name.startswith("decoder/project_") for name in arrays)
        and all(int(arrays[name]) == wanted for name, wanted in SAME.items() if name in arrays)
        and math.isclose(float(arrays[f"{layer}self_attention/rotary_base"]), ROTARY_BASE)
    )


ROTARY_BASE = 10_000.0

SAME = {
    "decoder/activation": 2,  # SiLU
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "decoder/layer_0/self_attention/rotary_dim": 0,
    "decoder/layer_0/self_attention/rotary_interleave": 0,
}
"""What a decoder's settings must be."""


LARGE_MODEL_BYTES = 500_000_000
"""Above this, all cores share one response: a single one would take long."""

SMALL_MODEL_BYTES = 50_000_000
"""Below this it is seen whether a model can be opened here."""


def open_exported(
    folder: Path, rules: runtimes.ResponseRules, *, runtime: str, cores: int, seed: int
) -> runtimes.LanguageRuntime:
    """The language model of a `ct2` folder on "onnx", "ct2" or, with "auto", what suits it."""
    weights = folder / "model.bin"
    size = weights.stat().st_size if weights.is_file() else 0
    if runtime == "onnx" or (runtime == "auto" and size < SMALL_MODEL_BYTES):
        try:
            return LlamaRuntime(folder, rules, workers=cores, seed=seed)
        except RecipeError:
            if runtime == "onnx":
                raise
    threads, replicas = (cores, 1) if size > LARGE_MODEL_BYTES else (1, cores)
    return runtimes.CT2Runtime(folder, rules, threads=threads, replicas=replicas, seed=seed)
