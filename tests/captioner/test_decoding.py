"""Search by hand, by brute force and against transformers; torch and CTranslate2 agree."""

import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chi2_contingency
from transformers import GenerationConfig

from aligncap.captioner.decoding import (
    BeamCandidate,
    BeamSearch,
    Continuation,
    TorchRuntime,
    sampling_distribution,
)
from aligncap.captioner.export import convert
from aligncap.captioner.runtimes import (
    CT2Runtime,
    DecodeOptions,
    LanguageRuntime,
    ResponseRules,
    Sampling,
)
from aligncap.errors import MissingModelError, RecipeError
from support.captioner import (
    KINDS,
    log_probability,
    random_rows,
    sharpened,
    tiny_lm,
    tiny_vocabulary,
)

VOCABULARY = tiny_vocabulary()
RULES = ResponseRules.of(VOCABULARY)
ONLY_EOS = ResponseRules(VOCABULARY.text_vocab_size, (VOCABULARY.eos_id,))
# Many other tokens end as well: most random responses would never meet a stop character.
MANY_STOPS = tuple(sorted({*RULES.stop_ids, *range(10, VOCABULARY.text_vocab_size, 9)}))
MANY = ResponseRules(VOCABULARY.text_vocab_size, MANY_STOPS)


def prompts(count: int) -> list[tuple[int, ...]]:
    """Of different lengths, some of them the same."""
    return [row.prompt_ids for row in random_rows(VOCABULARY, seed=5, rows=count, responses=1)]


def ids_of(runtime: LanguageRuntime, options: DecodeOptions, count: int) -> list[list[tuple]]:
    return [[one.ids for one in row] for row in runtime.generate(prompts(count), options)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_any_texts_in_any_order_continue_as_if_alone(kind: str, attention: str) -> None:
    model = tiny_lm(kind).eval()
    model.set_attn_implementation(attention)
    chance = random.Random(7)
    texts: list[tuple[int, ...]] = [(1, 5, 6, 7, 8), (1, 9), (1, 4, 4, 11)]
    with torch.inference_mode():
        state = Continuation(model, texts)
        for _ in range(6):
            # Some are dropped, some doubled, whole prompts among them, all shuffled.
            rows = [chance.randrange(len(texts)) for _ in range(chance.randint(1, 6))]
            tokens = [chance.randrange(3, 200) for _ in rows]
            state.advance(rows, tokens)
            texts = [(*texts[row], token) for row, token in zip(rows, tokens, strict=True)]
            alone = [model(input_ids=torch.tensor([text])).logits[0, -1] for text in texts]
            torch.testing.assert_close(state.logits, torch.stack(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_greedy_is_transformers_greedy(kind: str) -> None:
    model = sharpened(kind)
    options = DecodeOptions(beam_size=1, min_length=2, max_length=12)
    found = TorchRuntime(model, ONLY_EOS).generate(prompts(4), options)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=12,
        min_new_tokens=2,
        eos_token_id=VOCABULARY.eos_id,
        pad_token_id=VOCABULARY.pad_id,
        suppress_tokens=list(range(VOCABULARY.text_vocab_size, model.config.vocab_size)),
    )
    for prompt, [hypothesis] in zip(prompts(4), found, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        expected = model.generate(ids, attention_mask=mask, generation_config=config)
        assert list(hypothesis.ids) == expected[0, len(prompt) :].tolist()


def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all() -> None:
    """Two tokens and one that ends, up to four of them: every response is scored one by one."""
    model, rules = sharpened("llama"), ResponseRules(3, (2,))
    [prompt] = prompts(1)
    responses = [
        (*begin, last)
        for length in (2, 3, 4)
        for begin in product((0, 1), repeat=length - 1)
        for last in ((2,) if length < 4 else (0, 1, 2))
    ]
    totals = [log_probability(model, prompt, one, rules, min_length=1) for one in responses]
    best = sorted(zip(totals, responses, strict=True), key=lambda p: -p[0] / len(p[1]) ** 0.7)[:5]
    options = DecodeOptions(
        beam_size=16, captions=40, min_length=1, max_length=4, patience=9, length_penalty=0.7
    )
    [found] = TorchRuntime(model, rules).generate([prompt], options)
    # With so few tokens there are not always others to take an ended one's place.
    found = [one for one in found if 2 not in one.ids[:-1]][:5]
    assert [one.ids for one in found] == [response for _, response in best]
    expected = [total for total, _ in best]
    assert [one.log_probability for one in found] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("beams", [{"beam_size": 1}, {"beam_size": 3, "captions": 2}])
def test_a_padded_batch_gives_what_each_prompt_gives_alone(kind: str, beams: dict) -> None:
    runtime = TorchRuntime(sharpened(kind), RULES)
    options = DecodeOptions(**beams, max_length=12)
    alone = [runtime.generate([prompt], options)[0] for prompt in prompts(5)]
    assert ids_of(runtime, options, 5) == [[one.ids for one in row] for row in alone]


def test_sampled_tokens_follow_the_softmax() -> None:
    """Chi-square of 2,000 first tokens against the distribution; its 99.9 % point is used."""
    model = sharpened("gpt2")
    [prompt] = prompts(1)
    sampling = Sampling(temperature=1.5, top_k=12, seed=7)
    options = DecodeOptions(captions=2000, min_length=1, max_length=1, sampling=sampling)
    [sampled] = TorchRuntime(model, RULES).generate([prompt], options)
    counts = np.bincount([one.ids[0] for one in sampled], minlength=VOCABULARY.text_vocab_size)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1, : VOCABULARY.text_vocab_size].double()
    logits[list(RULES.stop_ids)] = -torch.inf
    best = logits.topk(12)
    expected = 2000 * (best.values / 1.5).softmax(0).numpy()
    seen = counts[best.indices.numpy()]
    assert seen.sum() == 2000, "a token outside the twelve best was sampled"
    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(0.999, df=11)


def test_samples_are_repeated_by_their_seed_only() -> None:
    runtime = TorchRuntime(sharpened("llama"), RULES)

    def sample(seed: int) -> list[list[tuple]]:
        sampling = Sampling(temperature=2.0, seed=seed)
        return ids_of(runtime, DecodeOptions(captions=3, max_length=6, sampling=sampling), 2)

    assert sample(1) == sample(1) != sample(2)


def test_top_p_keeps_the_token_that_crosses_it_and_top_k_exactly_k_of_equals() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, expected in ((0.6, [[0.625, 0.375, 0.0, 0.0]]), (0.5, [[1.0, 0.0, 0.0, 0.0]])):
        kept = sampling_distribution(p, Sampling(top_p=top_p))
        torch.testing.assert_close(kept, torch.tensor(expected))
    assert int((sampling_distribution(torch.zeros(1, 6), Sampling(top_k=2)) > 0).sum()) == 2


STEPS = [
    # An ended candidate gives its place to the next best; outside the beams it does not count.
    ({}, [[(-1, 0, 9), (-2, 0, 5), (-3, 0, 9), (-4, 0, 6)]], [(6,), (5,)], [((9,), -1.0)]),
    ({}, [[(-1, 0, 4), (-2, 0, 5), (-3, 0, 9), (-4, 0, 6)]], [(4,), (5,)], []),
    # Enough hypotheses end the search, and are ranked by length; patience asks for more.
    ({"length_penalty": 1.0},
     [[(-1.0, 0, 4), (-1.1, 0, 5), (-3.0, 0, 9), (-4.0, 0, 6)],
      [(-1.5, 1, 9), (-1.6, 0, 9), (-9.0, 0, 1), (-9.5, 0, 2)]], None, [((5, 9), -0.75)]),
    ({"patience": 2.0},
     [[(-1, 0, 9), (-2, 0, 9), (-3, 0, 1), (-4, 0, 2)]], [(1,), (2,)], [((9,), -1.0)]),
    # At the last step, the third, every beam is a hypothesis.
    ({"captions": 2}, [[(-1, 0, 4), (-2, 0, 5)], [(-1, 0, 4), (-2, 1, 5)],
     [(-3, 0, 4), (-6, 1, 5)]], None, [((4, 4, 4), -1.0), ((5, 5, 5), -2.0)]),
    # Without length penalty the search ends with the best beam, not with another.
    ({"length_penalty": 0.0},
     [[(-1, 0, 4), (-2, 0, 9), (-3, 0, 6)]], [(4,), (6,)], [((9,), -2)]),
    ({"length_penalty": 0.0},
     [[(-1, 0, 4), (-2, 0, 9), (-3, 0, 6)], [(-2, 0, 9), (-3, 0, 5)]], None, [((9,), -2)]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "steps", "ids", "best"), STEPS)
def test_a_step_of_the_beams_by_hand(options, steps, ids, best) -> None:
    """Candidates are total, beam and token; token 9 ends."""
    one = BeamSearch(DecodeOptions(**{"beam_size": 2, "min_length": 1, **options}), frozenset({9}))
    for number, rows in enumerate(steps, start=1):
        kept = one.step([BeamCandidate(*row) for row in rows], last=number == 3)
        assert (kept is None) == (ids is None and number == len(steps))
    if kept is not None:
        assert (
            one.ids == ids == [(*given[:-1], k.token) for given, k in zip(ids, kept, strict=True)]
        )
    assert [(h.ids, h.score) for h in one.best()] == best


def test_a_response_ends_with_its_first_stop_token_never_before() -> None:
    stops = set(RULES.stop_ids)
    assert {VOCABULARY.eos_id, *VOCABULARY.encode_text("。")} <= stops
    options = DecodeOptions(beam_size=4, captions=4, min_length=4, max_length=20)
    rows = ids_of(TorchRuntime(sharpened("llama"), RULES), options, 6)
    found = [ids for row in rows for ids in row]
    for ids in found:
        assert not stops.intersection(ids[:-1])
        assert len(ids) > 4
        assert len(ids) == 20 or ids[-1] in stops
        assert max(ids) < VOCABULARY.text_vocab_size
    assert any(ids[-1] in stops for ids in found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"captions": 5, "beam_size": 4},
        {"min_length": 10, "max_length": 9},
        {"patience": 0.0},
        {"beam_size": 4, "groups": 3},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(RecipeError):
        DecodeOptions(**wrong)


class TestDiverseBeams:
    def test_without_a_cost_each_group_is_the_plain_search(self) -> None:
        runtime = TorchRuntime(sharpened("llama"), RULES)
        alike = DecodeOptions(beam_size=6, groups=3, diversity=0.0, captions=2, max_length=12)
        plain = DecodeOptions(beam_size=2, captions=2, max_length=12)
        assert ids_of(runtime, alike, 4) == ids_of(runtime, plain, 4)

    def test_a_high_cost_gives_each_group_a_beginning_of_its_own(self) -> None:
        options = DecodeOptions(beam_size=4, groups=4, diversity=99.0, captions=4, max_length=8)
        for row in ids_of(TorchRuntime(sharpened("gpt2"), RULES), options, 4):
            assert len({ids[0] for ids in row}) == 4

    def test_log_probabilities_stay_the_models(self) -> None:
        model = sharpened("opt")
        options = DecodeOptions(
            beam_size=4, groups=2, diversity=2.0, captions=4, min_length=1, max_length=8
        )
        [prompt] = prompts(1)
        [found] = TorchRuntime(model, RULES).generate([prompt], options)
        expected = [log_probability(model, prompt, h.ids, RULES, min_length=1) for h in found]
        assert [h.log_probability for h in found] == pytest.approx(expected, abs=1e-3)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory) -> tuple[TorchRuntime, CT2Runtime]:
    folder = tmp_path_factory.mktemp("models") / request.param
    convert(sharpened(request.param), VOCABULARY, folder, quantization="float32")
    return TorchRuntime(sharpened(request.param), MANY), CT2Runtime(folder, MANY)


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


@pytest.mark.parametrize("number", range(len(SEARCHES)))
def test_both_runtimes_find_the_same(both, number: int) -> None:
    in_torch, in_ct2 = (
        [h for row in runtime.generate(prompts(14), SEARCHES[number]) for h in row]
        for runtime in both
    )
    assert [h.ids for h in in_torch] == [h.ids for h in in_ct2]
    ours, theirs = ([(h.score, h.log_probability) for h in f] for f in (in_torch, in_ct2))
    assert np.allclose(ours, theirs, atol=2e-3)
    if number == 0:  # one greedy response a prompt
        for prompt, one in zip(prompts(3), in_torch, strict=False):
            exact = log_probability(both[0]._model, prompt, one.ids, MANY, min_length=1)
            assert one.log_probability == pytest.approx(exact, abs=2e-3)
        assert [runtime.generate([], SEARCHES[0]) for runtime in both] == [[], []]
    if number == 3:  # some responses end early and some do not, or the stop rule would not be seen
        assert any(h.ids[-1] in MANY_STOPS for h in in_torch)
        assert len({len(h.ids) for h in in_torch}) > 3


def test_samples_of_both_come_from_one_distribution(both) -> None:
    """Two samples of 3,000 first tokens, compared by chi-square (99.9 % point)."""
    sampling = Sampling(temperature=1.3, top_k=8, top_p=0.95, seed=11)
    options = DecodeOptions(captions=3000, min_length=1, max_length=1, sampling=sampling)
    counts = [
        np.bincount([ids[0] for ids in ids_of(runtime, options, 1)[0]], minlength=400)
        for runtime in both
    ]
    table = np.array(counts)[:, np.sum(counts, axis=0) > 0]
    assert table.shape[1] <= 8
    if table.shape[1] > 1:
        assert chi2_contingency(table).pvalue > 1e-3


def test_what_ctranslate2_cannot_do_is_one_line(both, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="torch"):
        both[1].generate(prompts(1), DecodeOptions(beam_size=4, groups=2))
    with pytest.raises(MissingModelError, match=r"model\.bin"):
        CT2Runtime(tmp_path, RULES)


def test_int8_is_near(tmp_path: Path) -> None:
    """The log-probabilities of its own responses, a token; see the model card for words."""
    convert(tiny_lm("llama"), VOCABULARY, tmp_path / "int8", quantization="int8")
    options = DecodeOptions(beam_size=1, min_length=1, max_length=12)
    found = CT2Runtime(tmp_path / "int8", RULES).generate(prompts(6), options)
    for prompt, [one] in zip(prompts(6), found, strict=True):
        exact = log_probability(tiny_lm("llama").eval(), prompt, one.ids, RULES, min_length=1)
        assert one.mean_log_probability == pytest.approx(exact / len(one.ids), abs=0.2)
