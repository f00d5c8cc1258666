"""Judges of candidates, and how far they agree: against scipy, a textbook's numbers, and laws."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from aligncap.errors import DataError, JudgeError, MissingModelError, RecipeError, UnknownNameError
from aligncap.preference.judges import (
    HumanJudge,
    JudgeOptions,
    LlmJudge,
    accuracy_against,
    combined,
    judge_all,
    kendall_tau_b,
    krippendorff_alpha,
    open_judge,
    ratings_of,
)
from aligncap.preference.store import (
    Annotation,
    Clip,
    ClipCandidates,
    Judgement,
    PreferenceStore,
    Provenance,
)
from support.models import FakeChatModel, judge_of
from support.preferences import PROVENANCE, FakeJudge, candidate, fill, finding


def test_judges_are_opened_by_name() -> None:
    assert open_judge("evidence", JudgeOptions()).signature.startswith("evidence|weights:")
    with pytest.raises(UnknownNameError, match="did you mean 'evidence'"):
        open_judge("evidense", JudgeOptions())
    with pytest.raises(DataError, match="nobody has judged a pair yet"):
        open_judge("human", JudgeOptions(annotations=(Annotation("i", "a", "x", "y", "skip"),)))
    with pytest.raises(RecipeError, match="give --judge-model"):
        open_judge("llm", JudgeOptions())


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_only_what_is_missing_is_judged(store: PreferenceStore, batch_size: int) -> None:
    judge = FakeJudge(batch_size=batch_size)
    fill(store, 5)
    assert sum(judge_all(store, judge)) == 15
    assert list(judge_all(store, judge)) == [0] * 5
    store.add_findings([(finding("One more.", utterance="c03"), PROVENANCE)])
    assert list(judge_all(store, judge)) == [0, 0, 0, 1, 0]
    assert store.count_judgements(judge.signature) == 16


def test_judges_combine_to_the_weighted_mean() -> None:
    first = {
        key: Judgement(key, "a|1", score, reason="why") for key, score in {"x": 1, "y": 0}.items()
    }
    second = {"x": Judgement("x", "b|1", -1.0)}
    found = combined({"a": first, "b": second}, {"a": 3.0, "b": 1.0})
    assert found.keys() == {"x"}  # what one of them has not judged has no score
    assert found["x"].score == (3 * 1 - 1) / 4
    assert found["x"].parts == {"a": 1.0, "b": -1.0}
    assert found["x"].judge == "3*a|1+1*b|1"
    with pytest.raises(RecipeError, match="weights above 0"):
        combined({"a": first}, {"a": 0.0})


def test_people_score_by_wins_less_losses() -> None:
    a, b, c, d = (candidate(text) for text in ("a", "b", "c", "d"))
    choices = (
        Annotation("1", "anna", a.key, b.key, "first"),
        Annotation("2", "bo", b.key, a.key, "second"),
        Annotation("3", "bo", a.key, c.key, "second"),
        Annotation("4", "anna", c.key, b.key, "tie"),
        Annotation("5", "anna", c.key, d.key, "skip"),
    )
    judge = HumanJudge(choices)
    (found,) = judge.judge([(Clip("u1", "u1.wav"), [a, b, c, d])])
    by_key = {one.candidate: one.score for one in found}
    assert by_key == {a.key: (2 - 1) / 3, b.key: -2 / 3, c.key: 1 / 2}
    assert found[0].reason == "preferred 2 times in 3, 0 ties"
    assert judge.signature.startswith("human|people:2|choices:5|")
    assert judge.signature != HumanJudge(choices[:4]).signature
    assert judge.signature == HumanJudge(choices[::-1]).signature


def by_length(prompt: str) -> str:
    """Rates a caption by its length; "wrong" in it is a contradicted clue."""
    shown = re.search(r"^Captions: (.*)$", prompt, re.MULTILINE)
    assert shown
    rows = {
        name: {
            "richness": min(10, len(caption)),
            "consistency": 10,
            "fluency": 10,
            "adherence": 10,
            "contradicted": ["wrong"] if "wrong" in caption else [],
            "unsupported": [],
        }
        for name, caption in json.loads(shown[1]).items()
    }
    return json.dumps(rows)


def test_a_language_model_judges_all_candidates_of_a_clip_together(
    store: PreferenceStore, tmp_path: Path
) -> None:
    told = Clip("u1", "u1.wav", references={"en": ("He sounds very sad.",)})
    untold = Clip("u2", "u2.wav")
    for clip in (told, untold):
        texts = [candidate(text, clip.utterance) for text in ("ab", "abcd wrong")]
        gold = candidate("A gold caption.", clip.utterance, method="gold")
        corpus = Provenance(model="corpus", fingerprint="", method="gold")
        found = ClipCandidates(clip, "en", tuple(texts)), ClipCandidates(clip, "en", (gold,))
        store.add_findings([(found[0], PROVENANCE), (found[1], corpus)])
    model = FakeChatModel(by_length)
    judge = LlmJudge(judge_of(model, tmp_path))
    assert sum(judge_all(store, judge)) == 6
    assert len(model.prompts) == 2
    # What people say is the reference, or else what was written from the labels.
    assert sum("He sounds very sad." in prompt for prompt in model.prompts) == 1
    assert sum('References: ["A gold caption."]' in prompt for prompt in model.prompts) <= 1
    scores = store.judgements("u1", "en", judge.signature)
    short, wrong = (scores[candidate(text).key] for text in ("ab", "abcd wrong"))
    assert short.score == pytest.approx((2 + 30) / 4 / 10)
    assert wrong.score == pytest.approx((10 + 30) / 4 / 10 - 0.1)
    assert wrong.reason == "contradicted: wrong"
    assert judge.signature.startswith("llm|judge:fake|settings:")
    assert sum(judge_all(store, judge)) == 0
    judge.close()


def test_a_language_model_that_says_nothing_usable_is_an_error(
    store: PreferenceStore, tmp_path: Path
) -> None:
    fill(store, 2)
    judge = LlmJudge(judge_of(FakeChatModel(lambda prompt: "I would rather not."), tmp_path))
    with pytest.raises(JudgeError, match="judge fake could rate none of 2 clips"):
        list(judge_all(store, judge))
    judge.close()


N = None
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Four observers, twelve units: "Computing Krippendorff's Alpha-Reliability", section C."""

scores = st.lists(st.integers(0, 4), min_size=2, max_size=20)


@given(st.data())
def test_tau_b_is_scipys(data: st.DataObject) -> None:
    first = data.draw(scores)
    second = data.draw(st.lists(st.integers(0, 4), min_size=len(first), max_size=len(first)))
    expected = kendalltau(first, second, variant="b").statistic
    assert kendall_tau_b([(first, second)]) == pytest.approx(expected, nan_ok=True)


def test_clips_are_not_compared_with_each_other() -> None:
    # Within each of two clips the judges agree; that one scores the second clip lower is nothing.
    assert kendall_tau_b([([1, 2, 3], [10, 20, 30]), ([4, 5], [1, 2])]) == 1.0
    assert kendall_tau_b([([1, 2, 3, 4, 5], [10, 20, 30, 1, 2])]) < 0.0
    # 1 + 1 pairs in the same order, 1 opposite, 1 tied by the second only: 1 / sqrt(4 * 3).
    together = [([1, 2, 3], [1, 3, 1]), ([1, 2], [0, 1])]
    assert kendall_tau_b(together) == pytest.approx(1 / math.sqrt(12))
    assert math.isnan(kendall_tau_b([]))


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_textbooks_numbers(level: str, alpha: float) -> None:
    assert krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_alpha_of_agreement_chance_and_nothing(level: str) -> None:
    assert krippendorff_alpha([[1, 2, 3, 1], [1, 2, 3, 1]], level) == 1.0
    assert math.isnan(krippendorff_alpha([], level))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]], level))
    assert math.isnan(krippendorff_alpha([[1, N], [N, 2]], level))
    draws = np.random.default_rng(0).integers(0, 3, (2, 4000)).astype(float).tolist()
    assert krippendorff_alpha(draws, level) == pytest.approx(0.0, abs=0.05)


@given(
    st.lists(
        st.lists(st.integers(0, 3) | st.none(), min_size=6, max_size=6), min_size=2, max_size=4
    )
)
def test_alpha_does_not_ask_who_rated_or_in_which_order(ratings: list[list[float | None]]) -> None:
    for level in ("nominal", "ordinal"):
        alpha = krippendorff_alpha(ratings, level)
        assert alpha <= 1.0 or math.isnan(alpha)
        turned = [row[::-1] for row in reversed(ratings)]
        assert krippendorff_alpha(turned, level) == pytest.approx(alpha, nan_ok=True)


def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(MissingModelError, match=r"pip install 'aligncap\[serve\]'"):
        krippendorff_alpha([[1, 2], [1, 2]], "ordinal")
    assert math.isnan(krippendorff_alpha([[1, 2]], "ordinal"))


def choice(annotator: str, first: str, second: str, what: str) -> Annotation:
    return Annotation(f"{annotator}/{first}{second}", annotator, first, second, what)


def test_accuracy_counts_preferences_and_half_of_ties() -> None:
    choices = [
        choice("anna", "a", "b", "first"),
        choice("anna", "c", "b", "second"),
        choice("bo", "b", "a", "first"),
        choice("bo", "c", "a", "second"),
        choice("bo", "c", "d", "second"),
        choice("bo", "b", "c", "tie"),
        choice("cy", "b", "c", "skip"),
    ]
    # a over b: right; b over c: a tie of the judge; b over a: wrong; a over c: right.
    found = accuracy_against(choices, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert (found.value, found.compared) == ((1 + 0.5 + 0 + 1) / 4, 4)
    assert math.isnan(accuracy_against([], {}).value)


def test_choices_become_ratings_whoever_was_shown_first() -> None:
    choices = [
        choice("anna", "a", "b", "first"),
        choice("bo", "b", "a", "second"),
        choice("bo", "c", "d", "tie"),
        choice("anna", "d", "c", "skip"),
        choice("cy", "d", "c", "first"),
    ]
    assert ratings_of(choices) == [[1, None], [1, 0], [None, -1]]
