"""torch and CTranslate2 write the same captions, and give them the same probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.export import convert
from aligncap.captioner.runtimes import (
    CT2Runtime,
    DecodeOptions,
    Hypothesis,
    ResponseRules,
    Sampling,
)
from aligncap.errors import MissingModelError, RecipeError
from captioner.dequantized import torch_twin
from captioner.tiny import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

KINDS = ["llama", "gpt2", "opt", "qwen2"]

SEARCHES = [
    DecodeOptions(beam_size=1, min_length=1, max_length=16),
    DecodeOptions(beam_size=1, min_length=6, max_length=16, length_penalty=0.0),
    DecodeOptions(beam_size=2, captions=2, min_length=3, max_length=16),
    DecodeOptions(beam_size=4, captions=4, min_length=1, max_length=24),
    DecodeOptions(beam_size=4, captions=4, min_length=1, max_length=5),
    DecodeOptions(beam_size=4, captions=3, min_length=2, max_length=24, length_penalty=0.0),
    DecodeOptions(beam_size=5, captions=5, min_length=3, max_length=20, patience=2.0),
    DecodeOptions(beam_size=3, captions=3, max_length=12, patience=1.5, length_penalty=0.6),
]

VOCABULARY = tiny_vocabulary()
# Many other tokens end as well: most random responses would never meet a stop character.
STOPS = tuple(sorted({*VOCABULARY.stop_ids(), *range(10, VOCABULARY.text_rows, 9)}))
RULES = ResponseRules(VOCABULARY.text_rows, STOPS)


def opinionated(kind: str):
    """A random model whose choices are far enough apart for float to see.

    The tiny ones say everything with nearly the same probability; here logits have a standard
    deviation of 2.
    """
    model = tiny_lm(kind, tied=False).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompts()[0]])).logits[..., : VOCABULARY.text_rows]
        model.get_output_embeddings().weight.mul_(2.0 / logits.std())
    return model


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory) -> tuple[TorchRuntime, CT2Runtime]:
    folder = tmp_path_factory.mktemp("models") / request.param
    convert(opinionated(request.param), VOCABULARY, folder, quantization="float32")
    return TorchRuntime(opinionated(request.param), RULES), CT2Runtime(folder, RULES)


def prompts() -> list[tuple[int, ...]]:
    """Of different lengths, some of them the same."""
    rows = random_rows(VOCABULARY, seed=5, rows=14, responses=1)
    return [row.prompt_ids for row in rows]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_both_runtimes_find_the_same(both, options: DecodeOptions) -> None:
    torch_found, ct2_found = (runtime.generate(prompts(), options) for runtime in both)
    assert [[h.ids for h in row] for row in torch_found] == [
        [h.ids for h in row] for row in ct2_found
    ]
    flat = [(h.score, h.log_probability) for row in torch_found for h in row]
    assert np.allclose(
        flat, [(h.score, h.log_probability) for row in ct2_found for h in row], atol=2e-3
    )


def test_some_responses_end_early_and_some_do_not(both) -> None:
    """Otherwise the test above would not see the stop rule."""
    found = both[0].generate(prompts(), SEARCHES[3])
    ends = [h.ids[-1] in STOPS for row in found for h in row]
    assert any(ends)
    assert len({len(h.ids) for row in found for h in row}) > 3


def test_a_score_is_the_sum_of_log_softmax(both) -> None:
    rows = random_rows(VOCABULARY, seed=8, rows=3, responses=3)
    model = both[0]._model
    expected = separate_log_probs(model, rows, VOCABULARY.text_rows).tolist()
    for runtime in both:
        found = [s for row in rows for s in runtime.score(row.prompt_ids, row.responses)]
        assert np.allclose(found, expected, atol=2e-3)


def test_what_greedy_search_says_of_itself_is_its_score(both) -> None:
    """Of a response long enough that its minimum length forbade nothing likely: no minimum."""
    options = DecodeOptions(beam_size=1, min_length=1, max_length=10)
    [prompt, *_] = prompts()
    for runtime in both:
        [[one]] = runtime.generate([prompt], options)
        [whole] = runtime.score(prompt, [one.ids])
        # The first token could not end: its probability is among the others.
        ends = np.logaddexp.reduce(runtime.score(prompt, [(stop,) for stop in STOPS]))
        assert one.log_probability == pytest.approx(whole - np.log1p(-np.exp(ends)), abs=2e-3)


def test_no_prompts_no_responses(both) -> None:
    for runtime in both:
        assert runtime.generate([], SEARCHES[0]) == []
        assert runtime.score((1, 2), []) == []


def test_samples_of_both_come_from_one_distribution(both) -> None:
    """Two samples of 3,000 first tokens, compared by chi-square (99.9 % point)."""
    from scipy.stats import chi2_contingency

    sampling = Sampling(temperature=1.3, top_k=8, top_p=0.95, seed=11)
    options = DecodeOptions(captions=3000, min_length=1, max_length=1, sampling=sampling)
    [prompt, *_] = prompts()
    counts = [
        np.bincount([h.ids[0] for h in runtime.generate([prompt], options)[0]], minlength=400)
        for runtime in both
    ]
    table = np.array(counts)[:, np.sum(counts, axis=0) > 0]
    assert table.shape[1] <= 8
    if table.shape[1] > 1:
        assert chi2_contingency(table).pvalue > 1e-3


def test_diverse_beams_are_refused_by_ctranslate2(both) -> None:
    with pytest.raises(RecipeError, match="torch"):
        both[1].generate(prompts(), DecodeOptions(beam_size=4, groups=2))


def test_int8_is_near(tmp_path: Path) -> None:
    """Its log-probabilities of given responses differ by little; see the model card for words."""
    convert(tiny_lm("llama"), VOCABULARY, tmp_path / "int8", quantization="int8")
    rows = random_rows(VOCABULARY, seed=8, rows=4, responses=3)
    small = CT2Runtime(tmp_path / "int8", RULES)
    whole = TorchRuntime(tiny_lm("llama"), RULES)
    for row in rows:
        per_token = np.subtract(
            small.score(row.prompt_ids, row.responses), whole.score(row.prompt_ids, row.responses)
        ) / [len(response) for response in row.responses]
        assert np.abs(per_token).max() < 0.05


def test_int8_weights_computed_in_float_are_the_same_in_torch(tmp_path: Path) -> None:
    """What is compared on the built-in model is compared rightly."""
    convert(opinionated("llama"), VOCABULARY, tmp_path / "int8", quantization="int8")
    twin = TorchRuntime(torch_twin(tmp_path / "int8", VOCABULARY), RULES)
    file = CT2Runtime(tmp_path / "int8", RULES, compute_type="float32")
    for row in random_rows(VOCABULARY, seed=8, rows=4, responses=3):
        scores = [runtime.score(row.prompt_ids, row.responses) for runtime in (twin, file)]
        assert np.allclose(*scores, atol=2e-3)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"model\.bin"):
        CT2Runtime(tmp_path, RULES)


def test_a_hypothesis_with_its_scores() -> None:
    one = Hypothesis.of((4, 5, 6, 7), -6.0, 0.5)
    assert (one.score, one.mean_log_probability) == (-3.0, -1.5)
