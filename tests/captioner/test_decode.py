"""Search by hand and by brute force: what greedy, sampled and beam search must find."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from aligncap.captioner.decoding import (
    BeamCandidate,
    BeamSearch,
    TorchRuntime,
    sampling_distribution,
)
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules, Sampling
from aligncap.errors import RecipeError
from captioner.tiny import random_rows, separate_log_probs, tiny_lm, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
RULES = ResponseRules(VOCABULARY.text_rows, VOCABULARY.stop_ids())
ONLY_EOS = ResponseRules(VOCABULARY.text_rows, (VOCABULARY.eos_id,))


def prompts(count: int) -> list[list[int]]:
    rows = random_rows(VOCABULARY, seed=1, rows=count, responses=1)
    return [list(row.prompt_ids) for row in rows]


def sharpened(kind: str) -> torch.nn.Module:
    """A random model with opinions: the tiny ones are almost indifferent."""
    model = tiny_lm(kind, tied=False).eval()
    with torch.no_grad():
        logits = model(torch.tensor(prompts(1))).logits
        model.get_output_embeddings().weight.mul_(2.0 / logits.std())
    return model


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_greedy_is_transformers_greedy(kind: str) -> None:
    model = sharpened(kind)
    options = DecodeOptions(beam_size=1, min_length=2, max_length=12)
    found = TorchRuntime(model, ONLY_EOS).generate(prompts(4), options)
    beyond_text = list(range(VOCABULARY.text_rows, model.config.vocab_size))
    for prompt, [hypothesis] in zip(prompts(4), found, strict=True):
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=12,
            min_new_tokens=2,
            eos_token_id=VOCABULARY.eos_id,
            pad_token_id=VOCABULARY.pad_id,
            suppress_tokens=beyond_text,
        )
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
        assert list(hypothesis.ids) == expected[0, len(prompt) :].tolist()


def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all() -> None:
    """Two tokens and one that ends, up to four of them: every response is scored one by one."""
    runtime = TorchRuntime(sharpened("llama"), ResponseRules(3, (2,)))
    [prompt] = prompts(1)
    responses = [
        (*begin, last)
        for length in (2, 3, 4)
        for begin in product((0, 1), repeat=length - 1)
        for last in ((2,) if length < 4 else (0, 1, 2))
    ]
    # The first token cannot end: its distribution is over the two others.
    first = np.logaddexp(*runtime.score(prompt, [(0,), (1,)]))
    totals = [total - first for total in runtime.score(prompt, responses)]
    by_score = sorted(zip(totals, responses, strict=True), key=lambda p: -p[0] / len(p[1]) ** 0.7)
    options = DecodeOptions(
        beam_size=16, captions=40, min_length=1, max_length=4, patience=9, length_penalty=0.7
    )
    [found] = runtime.generate([prompt], options)
    # With so few tokens there are not always others to take an ended one's place.
    found = [one for one in found if 2 not in one.ids[:-1]][:5]
    assert [one.ids for one in found] == [response for _, response in by_score[:5]]
    assert [one.log_probability for one in found] == pytest.approx(
        [total for total, _ in by_score[:5]], abs=1e-4
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_scores_are_sums_of_log_softmax(kind: str) -> None:
    model = tiny_lm(kind).eval()
    rows = random_rows(VOCABULARY, seed=3, rows=3, responses=4)
    runtime = TorchRuntime(model, RULES)
    found = [s for row in rows for s in runtime.score(row.prompt_ids, row.responses)]
    with torch.no_grad():
        expected = separate_log_probs(model, rows, VOCABULARY.text_rows)
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)


def test_a_padded_batch_gives_what_each_prompt_gives_alone() -> None:
    for kind in ("llama", "gpt2", "opt"):
        runtime = TorchRuntime(sharpened(kind), RULES)
        for options in (
            DecodeOptions(beam_size=1, max_length=12),
            DecodeOptions(beam_size=3, captions=2, max_length=12),
        ):
            together = runtime.generate(prompts(5), options)
            alone = [runtime.generate([prompt], options)[0] for prompt in prompts(5)]
            assert [[h.ids for h in row] for row in together] == [
                [h.ids for h in row] for row in alone
            ]


def test_drawn_tokens_follow_the_softmax() -> None:
    """Chi-square of 2,000 first tokens against the distribution; its 99.9 % point is used."""
    from scipy.stats import chi2

    model = sharpened("gpt2")
    [prompt] = prompts(1)
    sampling = Sampling(temperature=1.5, top_k=12, seed=7)
    options = DecodeOptions(captions=2000, min_length=1, max_length=1, sampling=sampling)
    [drawn] = TorchRuntime(model, RULES).generate([prompt], options)
    counts = np.bincount([one.ids[0] for one in drawn], minlength=VOCABULARY.text_rows)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1, : VOCABULARY.text_rows].double()
    logits[list(RULES.stop_ids)] = -torch.inf
    best = logits.topk(12)
    expected = 2000 * (best.values / 1.5).softmax(0).numpy()
    seen = counts[best.indices.numpy()]
    assert seen.sum() == 2000, "a token outside the twelve best was drawn"
    statistic = float(((seen - expected) ** 2 / expected).sum())
    assert statistic < chi2.ppf(0.999, df=11)


def test_a_draw_is_repeated_by_its_seed_only() -> None:
    runtime = TorchRuntime(sharpened("llama"), RULES)

    def draw(seed: int) -> list[tuple[int, ...]]:
        sampling = Sampling(temperature=2.0, seed=seed)
        options = DecodeOptions(captions=3, max_length=6, sampling=sampling)
        return [one.ids for row in runtime.generate(prompts(2), options) for one in row]

    assert draw(1) == draw(1) != draw(2)


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    kept = sampling_distribution(p.log(), Sampling(top_p=0.6))
    torch.testing.assert_close(kept, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    kept = sampling_distribution(p.log(), Sampling(top_p=0.5))
    torch.testing.assert_close(kept, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))


def test_top_k_keeps_exactly_k_of_equals() -> None:
    kept = sampling_distribution(torch.zeros(1, 6), Sampling(top_k=2))
    assert int((kept > 0).sum()) == 2


class TestBeamStep:
    """The rules of a step, on numbers that can be followed by eye; token 9 ends."""

    def search(self, **options: float) -> BeamSearch:
        given = {"beam_size": 2, "min_length": 1, **options}
        return BeamSearch(DecodeOptions(**given), frozenset({9}))  # type: ignore[arg-type]

    def test_an_ended_candidate_gives_its_place_to_the_next_best(self) -> None:
        one = self.search()
        kept = one.step(
            [
                BeamCandidate(-1, 0, 9),
                BeamCandidate(-2, 0, 5),
                BeamCandidate(-3, 0, 9),
                BeamCandidate(-4, 0, 6),
            ],
            last=False,
        )
        assert kept == [BeamCandidate(-4, 0, 6), BeamCandidate(-2, 0, 5)]
        assert [(h.ids, h.score) for h in one.ended] == [((9,), -1.0)]

    def test_an_ended_candidate_outside_the_beams_is_not_a_hypothesis(self) -> None:
        one = self.search()
        one.step(
            [
                BeamCandidate(-1, 0, 4),
                BeamCandidate(-2, 0, 5),
                BeamCandidate(-3, 0, 9),
                BeamCandidate(-4, 0, 6),
            ],
            last=False,
        )
        assert one.ended == []
        assert one.ids == [(4,), (5,)]

    def test_the_search_ends_with_enough_hypotheses_ranked_by_length(self) -> None:
        one = self.search(length_penalty=1.0)
        start = [BeamCandidate(-1.0, 0, 4), BeamCandidate(-1.1, 0, 5), BeamCandidate(-3.0, 0, 9)]
        assert one.step([*start, BeamCandidate(-4.0, 0, 6)], last=False)
        both_end = [BeamCandidate(-1.5, 1, 9), BeamCandidate(-1.6, 0, 9), BeamCandidate(-9.0, 0, 1)]
        assert one.step([*both_end, BeamCandidate(-9.5, 0, 2)], last=False) is None
        assert [(h.ids, h.score) for h in one.best()] == [((5, 9), -0.75)]

    def test_patience_asks_for_more(self) -> None:
        one = self.search(patience=2.0)
        ends = [
            BeamCandidate(-1, 0, 9),
            BeamCandidate(-2, 0, 9),
            BeamCandidate(-3, 0, 1),
            BeamCandidate(-4, 0, 2),
        ]
        assert one.step(ends, last=False) == ends[2:]

    def test_at_the_last_step_every_beam_is_a_hypothesis(self) -> None:
        one = self.search(captions=2)
        rest = [BeamCandidate(-3, 0, 6), BeamCandidate(-4, 0, 7)]
        assert (
            one.step([BeamCandidate(-1, 0, 4), BeamCandidate(-2, 0, 5), *rest], last=True) is None
        )
        assert [h.ids for h in one.best()] == [(4,), (5,)]

    def test_without_length_penalty_the_best_beam_ends_the_search(self) -> None:
        one = self.search(length_penalty=0.0)
        rest = [BeamCandidate(-3, 0, 6), BeamCandidate(-4, 0, 7)]
        assert one.step([BeamCandidate(-1, 0, 4), BeamCandidate(-2, 0, 9), *rest], last=False)
        assert (
            one.step([BeamCandidate(-2, 0, 9), BeamCandidate(-3, 0, 5), *rest], last=False) is None
        )


def test_the_stop_rule() -> None:
    """A response ends with its first token that contains a stop character, never before."""
    model = sharpened("llama")
    stops = set(RULES.stop_ids)
    assert {VOCABULARY.eos_id, *VOCABULARY.encode_text("。")} <= stops
    options = DecodeOptions(beam_size=4, captions=4, min_length=4, max_length=20)
    found = [h for row in TorchRuntime(model, RULES).generate(prompts(6), options) for h in row]
    for hypothesis in found:
        assert not stops.intersection(hypothesis.ids[:-1])
        assert len(hypothesis.ids) > 4
        assert len(hypothesis.ids) == 20 or hypothesis.ids[-1] in stops
        assert max(hypothesis.ids) < VOCABULARY.text_rows
    assert any(hypothesis.ids[-1] in stops for hypothesis in found)


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
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        DecodeOptions(**wrong)  # type: ignore[arg-type]


class TestDiverseBeams:
    def test_without_a_cost_each_group_is_the_plain_search(self) -> None:
        runtime = TorchRuntime(sharpened("llama"), RULES)
        alike = DecodeOptions(beam_size=6, groups=3, diversity=0.0, captions=2, max_length=12)
        plain = DecodeOptions(beam_size=2, captions=2, max_length=12)
        found, expected = (runtime.generate(prompts(4), options) for options in (alike, plain))
        assert [[h.ids for h in row] for row in found] == [[h.ids for h in row] for row in expected]

    def test_a_high_cost_gives_each_group_a_beginning_of_its_own(self) -> None:
        runtime = TorchRuntime(sharpened("gpt2"), RULES)
        options = DecodeOptions(beam_size=4, groups=4, diversity=99.0, captions=4, max_length=8)
        for row in runtime.generate(prompts(4), options):
            assert len({h.ids[0] for h in row}) == 4

    def test_log_probabilities_stay_the_models(self) -> None:
        runtime = TorchRuntime(sharpened("opt"), RULES)
        options = DecodeOptions(
            beam_size=4, groups=2, diversity=2.0, captions=4, min_length=1, max_length=8
        )
        [prompt] = prompts(1)
        [found] = runtime.generate([prompt], options)
        ends = np.logaddexp.reduce(runtime.score(prompt, [(stop,) for stop in RULES.stop_ids]))
        expected = runtime.score(prompt, [h.ids for h in found]) - np.log1p(-np.exp(ends))
        assert [h.log_probability for h in found] == pytest.approx(list(expected), abs=1e-3)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
