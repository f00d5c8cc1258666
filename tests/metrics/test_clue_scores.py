"""Clue scores beside numbers counted by hand, and what they may not depend on."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions, open_metric

NAMES = ("clue-precision", "clue-recall", "clue-f1")


def values(*clips: ScoredClip, language: str = "en") -> tuple[float, ...]:
    options = MetricOptions(language=language)
    return tuple(open_metric(name, options).measure(list(clips)).value for name in NAMES)


def clip(hypothesis: str, *references: str, name: str = "c") -> ScoredClip:
    return ScoredClip(name, hypothesis, references)


# Claims: female, sad, slow.
SAD_SLOW = "A sad woman speaks slowly."


def test_a_caption_that_says_the_same_in_other_words_is_right():
    assert values(clip("The lady is unhappy and talks at a slow pace.", SAD_SLOW)) == (1, 1, 1)


def test_counted_by_hand():
    # Claims female, angry, fast and loud; female is right, of female, sad, slow one is recalled.
    precision, recall, f1 = values(clip("An angry woman speaks fast and loudly.", SAD_SLOW))
    assert (precision, recall) == (1 / 4, 1 / 3)
    assert f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_counted_by_hand_in_chinese():
    # 男 高兴 语速快 against 男 高兴 语速慢 音量大: two of three, two of four.
    found = values(
        clip("一位男性高兴地说话，语速很快。", "一位男性高兴地说话，语速很慢，声音响亮。"),
        language="zh",
    )
    assert found == pytest.approx((2 / 3, 2 / 4, 4 / 7))


def test_claims_are_counted_over_clips():
    # 3 of 3 and 0 of 1 right; 3 of 3 and 0 of 2 recalled.
    found = values(clip(SAD_SLOW, SAD_SLOW), clip("It is loud.", "A quiet man."))
    assert found == pytest.approx((3 / 4, 3 / 5, 2 / 3))


def test_what_is_denied_is_another_claim():
    assert values(clip("She is not angry.", "She is angry."))[:2] == (1 / 2, 1 / 2)
    assert values(clip("She is not angry.", "She isn't angry.")) == (1, 1, 1)


def test_of_several_references_any_makes_right_and_the_nearest_is_recalled():
    # Right: female and sad by the first, loud by the second. Nearest: the first, 2 of 3.
    found = values(clip("A sad woman speaks loudly.", SAD_SLOW, "Loud and angry."))
    assert found[:2] == (1, 2 / 3)


def test_of_references_recalled_alike_the_one_that_says_little_else_is_nearest():
    assert values(clip("A woman.", "A sad woman.", "A sad, loud woman who hurries."))[1] == 1 / 2


@pytest.mark.parametrize("text", ["", "   ", "Nothing of the voice."])
def test_a_caption_that_claims_nothing_has_nothing(text):
    assert values(clip(text, SAD_SLOW)) == (0, 0, 0)


def test_claims_beside_references_without_any_are_wrong_and_recall_cannot_be_told():
    precision, recall, f1 = values(clip(SAD_SLOW, "Hello."))
    assert (precision, f1) == (0, 0)
    assert math.isnan(recall)


def test_nothing_beside_nothing_cannot_be_told():
    assert all(map(math.isnan, values(clip("Hello.", "Goodbye."))))


CAPTIONS = st.lists(
    st.sampled_from(["a woman", "sad", "very loud", "not fast", "low-pitched", "trembling", "xyz"]),
    max_size=5,
).map(", ".join)
CLIPS = st.lists(
    st.builds(
        lambda hypothesis, references: clip(hypothesis, *references),
        CAPTIONS,
        st.lists(CAPTIONS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(CLIPS, st.randoms())
def test_neither_the_order_of_clips_nor_of_references_matters(clips, random):
    shuffled = [
        clip(one.hypothesis, *random.sample(one.references, len(one.references))) for one in clips
    ]
    random.shuffle(shuffled)
    assert values(*shuffled) == pytest.approx(values(*clips), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(CLIPS)
def test_shares_stay_shares_and_f1_lies_between(clips):
    precision, recall, f1 = values(*clips)
    for value in (precision, recall, f1):
        assert math.isnan(value) or 0 <= value <= 1
    if not math.isnan(recall) and not math.isnan(precision):
        assert min(precision, recall) - 1e-9 <= f1 <= max(precision, recall) + 1e-9


@settings(max_examples=60, deadline=None)
@given(CAPTIONS, st.lists(CAPTIONS, max_size=2))
def test_a_caption_that_is_one_of_the_references_is_right(caption, others):
    assume(values(clip(caption, "Hello."))[0] == 0)  # it claims something
    assert values(clip(caption, caption, *others)) == (1, 1, 1)


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.sampled_from(["en", "zh"]))
def test_any_text_is_scored(hypothesis, reference, language):
    for value in values(clip(hypothesis, reference), language=language):
        assert math.isnan(value) or 0 <= value <= 1
