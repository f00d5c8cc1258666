"""Diversity counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import UnknownNameError
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import MetricOptions, open_set_metric


def value(name: str, captions: list[str], language: str = "en") -> float:
    clips = [ScoredClip(str(n), text, ("Speech.",)) for n, text in enumerate(captions)]
    return open_set_metric(name, MetricOptions(language=language)).value(clips)


def test_counted_by_hand():
    captions = ["A man speaks.", "A man shouts."]
    # a man speaks shouts of six; "a man" twice, "man speaks", "man shouts".
    assert value("distinct1", captions) == 4 / 6
    assert value("distinct2", captions) == 3 / 4
    assert value("repeated", captions) == 0


def test_chinese_is_counted_by_characters():
    assert value("distinct1", ["他很高兴", "她很高兴"], "zh") == 5 / 8


def test_a_caption_repeats_what_another_clip_has():
    assert value("repeated", ["A man.", "A man. ", "A woman.", "A man."]) == 2 / 4


@pytest.mark.parametrize("name", ["distinct1", "distinct2", "repeated"])
def test_one_caption_that_says_nothing_is_no_variety(name):
    assert value(name, [""]) == 0


@given(st.lists(st.text(), min_size=1, max_size=6), st.sampled_from(["en", "zh"]), st.randoms())
def test_any_captions_in_any_order(captions, language, random):
    shuffled = random.sample(captions, len(captions))
    for name in ("distinct1", "distinct2", "repeated"):
        found = value(name, captions, language)
        assert 0 <= found <= 1
        assert value(name, shuffled, language) == found


def test_what_is_not_of_a_set_is_refused():
    with pytest.raises(UnknownNameError, match="no metric of a set called 'distinct3'"):
        open_set_metric("distinct3", MetricOptions())
