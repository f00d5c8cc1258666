"""Judges of candidates, and how far they agree: against scipy, a textbook's numbers, and laws."""

import json
import math
import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from aligncap.errors import AlignCapError, JudgeError, MissingModelError, RecipeError
from aligncap.preference import judges
from aligncap.preference.judges import JudgeOptions, judge_all, kendall_tau_b, krippendorff_alpha
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


def choices(*lines: str) -> list[Annotation]:
    """Of "annotator first second choice"."""
    return [Annotation(f"{number}", *line.split()) for number, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evidense", {}, "did you mean 'evidence'"),
        ("human", {"annotations": choices("a x y skip")}, "nobody has judged a pair yet"),
        ("llm", {}, "give --judge-model"),
    ],
)
def test_a_judge_that_cannot_be_opened_is_named(name: str, options: Any, message: str) -> None:
    with pytest.raises(AlignCapError, match=message):
        judges.open_judge(name, JudgeOptions(**options))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_only_what_is_missing_is_judged(store: PreferenceStore, batch_size: int) -> None:
    judge = FakeJudge(batch_size=batch_size)
    fill(store, 5)
    assert list(judge_all(store, judge)) == [3] * 5
    assert list(judge_all(store, judge)) == [0] * 5
    store.add_findings([(finding("One more.", utterance="c03"), PROVENANCE)])
    assert list(judge_all(store, judge)) == [0, 0, 0, 1, 0]
    assert store.count_judgements(judge.signature) == 16


def test_judges_combine_to_the_weighted_mean() -> None:
    first = {"x": Judgement("x", "a|1", 1.0, reason="why"), "y": Judgement("y", "a|1", 0.0)}
    second = {"x": Judgement("x", "b|1", -1.0)}
    found = judges.combined({"a": first, "b": second}, {"a": 3.0, "b": 1.0})
    assert found.keys() == {"x"}  # what one of them has not judged has no score
    one = found["x"]
    assert (one.score, one.judge) == ((3 * 1 - 1) / 4, "3*a|1+1*b|1")
    assert one.parts == {"a": 1.0, "b": -1.0}
    with pytest.raises(RecipeError, match="weights above 0"):
        judges.combined({"a": first}, {"a": 0.0})


def test_people_score_by_wins_less_losses() -> None:
    a, b, c, d = (candidate(text) for text in ("a", "b", "c", "d"))
    made = choices(
        f"anna {a.key} {b.key} first",
        f"bo {b.key} {a.key} second",
        f"bo {a.key} {c.key} second",
        f"anna {c.key} {b.key} tie",
        f"anna {c.key} {d.key} skip",
    )
    judge = judges.HumanJudge(tuple(made))
    (found,) = judge.judge([(Clip("u1", "u1.wav"), [a, b, c, d])])
    by_key = {one.candidate: one.score for one in found}
    assert by_key == {a.key: (2 - 1) / 3, b.key: -2 / 3, c.key: 1 / 2}
    assert found[0].reason == "preferred 2 times in 3, 0 ties"
    assert judge.signature.startswith("human|people:2|choices:5|")
    assert judge.signature != judges.HumanJudge(tuple(made[:4])).signature
    assert judge.signature == judges.HumanJudge(tuple(made[::-1])).signature


def by_length(prompt: str) -> str:
    """Rates a caption by its length; "wrong" in it is a contradicted clue."""
    shown = re.search(r"^Captions: (.*)$", prompt, re.MULTILINE)
    tens = dict.fromkeys(("consistency", "fluency", "adherence"), 10)
    rows = {
        name: {
            **tens,
            "richness": min(10, len(caption)),
            "contradicted": ["wrong"] if "wrong" in caption else [],
            "unsupported": [],
        }
        for name, caption in json.loads(shown[1]).items()
    }
    return json.dumps(rows)


def test_a_language_model_judges_all_candidates_of_a_clip_together(store, tmp_path) -> None:
    told = Clip("u1", "u1.wav", references={"en": ("He sounds very sad.",)})
    corpus = Provenance(model="corpus", fingerprint="", method="gold")
    for clip in (told, Clip("u2", "u2.wav")):
        texts = tuple(candidate(text, clip.utterance) for text in ("ab", "abcd wrong"))
        gold = candidate("A gold caption.", clip.utterance, method="gold")
        store.add_findings([(ClipCandidates(clip, "en", texts), PROVENANCE)])
        store.add_findings([(ClipCandidates(clip, "en", (gold,)), corpus)])
    model = FakeChatModel(by_length)
    judge = judges.LlmJudge(judge_of(model, tmp_path))
    assert list(judge_all(store, judge)) == [3, 3]
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


def test_a_language_model_that_says_nothing_usable_is_an_error(store, tmp_path) -> None:
    fill(store, 2)
    judge = judges.LlmJudge(judge_of(FakeChatModel(lambda prompt: "I would rather not."), tmp_path))
    with pytest.raises(JudgeError, match="judge fake could rate none of 2 clips"):
        list(judge_all(store, judge))
    judge.close()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20))
def test_tau_b_is_scipys(rated: list[tuple[int, int]]) -> None:
    first, second = zip(*rated, strict=True)
    expected = kendalltau(first, second, variant="b").statistic
    assert kendall_tau_b([(first, second)]) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("clips", "tau"),
    [
        # Within each of two clips they agree; that one scores the second clip lower is nothing.
        ([([1, 2, 3], [10, 20, 30]), ([4, 5], [1, 2])], 1.0),
        # 1 + 1 pairs in the same order, 1 opposite, 1 tied by the second only.
        ([([1, 2, 3], [1, 3, 1]), ([1, 2], [0, 1])], 1 / math.sqrt(12)),
        ([], math.nan),
    ],
)
def test_clips_are_not_compared_with_each_other(clips: Any, tau: float) -> None:
    assert kendall_tau_b(clips) == pytest.approx(tau, nan_ok=True)


N = None
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Four observers, twelve units: "Computing Krippendorff's Alpha-Reliability", section C."""


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_the_textbook_agreement_chance_and_nothing(level: str, alpha: float) -> None:
    assert krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(alpha, abs=5e-4)
    assert krippendorff_alpha([[1, 2, 3, 1], [1, 2, 3, 1]], level) == 1.0
    for nothing in ([], [[1, 1], [1, 1]], [[1, N], [N, 2]]):
        assert math.isnan(krippendorff_alpha(nothing, level))
    draws = np.random.default_rng(0).integers(0, 3, (2, 4000)).astype(float).tolist()
    assert krippendorff_alpha(draws, level) == pytest.approx(0.0, abs=0.05)


ratings = st.lists(st.integers(0, 3) | st.none(), min_size=6, max_size=6)


@given(st.lists(ratings, min_size=2, max_size=4), st.sampled_from(["nominal", "ordinal"]))
def test_alpha_does_not_ask_who_rated_or_in_which_order(rows, level) -> None:
    alpha = krippendorff_alpha(rows, level)
    assert alpha <= 1.0 or math.isnan(alpha)
    turned = [row[::-1] for row in reversed(rows)]
    assert krippendorff_alpha(turned, level) == pytest.approx(alpha, nan_ok=True)


def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(MissingModelError, match=r"pip install 'aligncap\[serve\]'"):
        krippendorff_alpha([[1, 2], [1, 2]], "ordinal")
    assert math.isnan(krippendorff_alpha([[1, 2]], "ordinal"))


def test_accuracy_counts_preferences_and_half_of_ties() -> None:
    # Of the judge's order: right, a tie, wrong, right; the rest does not count.
    counted = ("anna a b first", "anna c b second", "bo b a first", "bo c a second")
    made = choices(*counted, "bo c d second", "bo b c tie", "cy b c skip")
    found = judges.accuracy_against(made, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert (found.value, found.compared) == ((1 + 0.5 + 0 + 1) / 4, 4)
    assert math.isnan(judges.accuracy_against([], {}).value)


def test_choices_become_ratings_whoever_was_shown_first() -> None:
    lines = ("anna a b first", "bo b a second", "bo c d tie", "anna d c skip", "cy d c first")
    assert judges.ratings_of(choices(*lines)) == [[1, None], [1, 0], [None, -1]]
