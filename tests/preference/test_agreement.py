"""Agreement: against scipy, the numbers of a textbook, and laws."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from aligncap.errors import MissingModelError
from aligncap.preference.judges import (
    accuracy_against,
    kendall_tau_b,
    krippendorff_alpha,
    ratings_of,
)
from aligncap.preference.store import Annotation

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
