"""A small int8 model in ONNX Runtime: as CTranslate2 finds, alone as together, and in a child."""

import multiprocessing
from pathlib import Path

import numpy as np
import onnx
import pytest

import aligncap
from aligncap.captioner.export import convert
from aligncap.captioner.llama import LlamaRuntime, build, is_small_llama, layers_of
from aligncap.captioner.runtimes import (
    CT2Runtime,
    DecodeOptions,
    ResponseRules,
    Sampling,
    ct2_arrays,
)
from aligncap.errors import RecipeError
from support.captioner import KINDS, random_rows, sharpened, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
STOPS = ResponseRules.of(VOCABULARY).stop_ids
RULES = ResponseRules(
    VOCABULARY.text_vocab_size,
    tuple(sorted({*STOPS, *range(10, VOCABULARY.text_vocab_size, 9)})),
)
PROMPTS = [row.prompt_ids for row in random_rows(VOCABULARY, seed=5, rows=20, responses=1)]
BEAMS = DecodeOptions(beam_size=3, captions=3, min_length=3, max_length=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "int8"
    convert(sharpened("llama"), VOCABULARY, made, quantization="int8")
    return made


@pytest.fixture(scope="module")
def runtime(folder: Path) -> LlamaRuntime:
    return LlamaRuntime(folder, RULES)


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(beam_size=1, min_length=1, max_length=16),
        BEAMS,
        DecodeOptions(beam_size=4, captions=4, min_length=6, max_length=9),
        DecodeOptions(beam_size=4, captions=3, min_length=2, max_length=24, length_penalty=0.0),
        DecodeOptions(beam_size=5, captions=5, min_length=3, max_length=20, patience=2.0),
    ],
)
def test_it_finds_what_ctranslate2_finds(
    folder: Path, runtime: LlamaRuntime, options: DecodeOptions
) -> None:
    """Sums in another order tip an activation between two integers: one beam in twenty may differ,
    and scores by as much as that."""
    theirs, ours = (one.generate(PROMPTS, options) for one in (CT2Runtime(folder, RULES), runtime))
    same = [
        (a, b)
        for one, other in zip(theirs, ours, strict=True)
        for a, b in zip(one, other, strict=True)
        if a.ids == b.ids
    ]
    assert len(same) >= 0.95 * sum(map(len, theirs))
    scores = [[hypothesis.score for hypothesis in pair] for pair in zip(*same, strict=True)]
    assert np.allclose(*scores, atol=0.05)


def test_a_prompt_is_answered_alike_whatever_is_beside_it(folder: Path, runtime) -> None:
    together = runtime.generate(PROMPTS, BEAMS)
    assert len({len(prompt) for prompt in PROMPTS}) > 3
    assert runtime.generate([], BEAMS) == []
    threads = LlamaRuntime(folder, RULES, workers=2).generate(PROMPTS, BEAMS)
    for number, prompt in enumerate(PROMPTS):
        [alone] = runtime.generate([prompt], BEAMS)
        for beside in (together[number], threads[number]):
            assert [one.ids for one in beside] == [one.ids for one in alone]
            assert np.allclose([o.score for o in beside], [o.score for o in alone], atol=1e-4)


def test_the_graph_is_an_onnx_file_as_onnx_reads_it(folder: Path) -> None:
    arrays = ct2_arrays(folder)
    model = onnx.load_from_string(build(arrays, 1e-6))
    names = [node.op_type for node in model.graph.node]
    assert names.count("MultiHeadAttention") == layers_of(arrays)
    assert names.count("MatMulIntegerToFloat") == 4 * layers_of(arrays) + 1
    kept = {onnx.numpy_helper.to_array(one).tobytes() for one in model.graph.initializer}
    assert arrays["decoder/projection/weight"].T.tobytes() in kept


def test_only_such_a_model_is_opened(folder: Path, tmp_path: Path) -> None:
    assert is_small_llama(ct2_arrays(folder))
    others = [(kind, "int8") for kind in KINDS if kind != "llama"]
    for kind, quantization in [*others, ("llama", "float32")]:
        made = tmp_path / f"{kind}-{quantization}"
        convert(sharpened(kind), VOCABULARY, made, quantization=quantization)
        assert not is_small_llama(ct2_arrays(made))
    with pytest.raises(RecipeError, match="runtime='ct2'"):
        LlamaRuntime(made, RULES)


def test_mini_runs_on_it_unless_told_otherwise() -> None:
    kinds = {
        runtime: type(aligncap.load("mini", threads=1, runtime=runtime).generator.runtime)
        for runtime in ("auto", "onnx", "ct2")
    }
    assert kinds == {"auto": LlamaRuntime, "onnx": LlamaRuntime, "ct2": CT2Runtime}


def test_samples_are_those_of_ctranslate2(folder: Path, runtime: LlamaRuntime) -> None:
    options = DecodeOptions(min_length=1, max_length=8, sampling=Sampling(top_k=1))
    theirs = CT2Runtime(folder, RULES).generate(PROMPTS[:2], options)
    ours = runtime.generate(PROMPTS[:2], options)
    assert [[one.ids for one in row] for row in ours] == [
        [one.ids for one in row] for row in theirs
    ]


@pytest.mark.filterwarnings("ignore")  # of a fork with threads
def test_it_answers_in_a_child(runtime: LlamaRuntime) -> None:
    here = runtime.generate(PROMPTS[:2], BEAMS)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=lambda: answers.put(runtime.generate(PROMPTS[:2], BEAMS)))
    child.start()
    assert answers.get(timeout=60) == here
    child.join()
