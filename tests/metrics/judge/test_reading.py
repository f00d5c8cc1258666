"""Replies of a model: one JSON object of what was asked for, or a complaint."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.metrics.aes import read_overlap
from aligncap.metrics.judge import MalformedReplyError, read_object

GOOD = '{"reason": "both are low", "score": 7}'


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"\n  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"Here is my rating:\n\n{GOOD}\n\nI hope that helps.",
        f"<think>Perhaps {{6}}, or {{7}}?</think>\n{GOOD}",
        '{"score": 7.0, "reason": "braces {in} a text"}',
    ],
)
def test_an_object_is_found_where_there_is_only_one(reply: str) -> None:
    assert read_overlap(reply) == 7.0


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("", "no whole JSON object"),
        ("seven", "no whole JSON object"),
        ("[7]", "no whole JSON object"),
        ('{"reason": "cut in the mid', "no whole JSON object"),
        (f"{GOOD} {GOOD}", "not one JSON object"),
        (f"In the form {{score}}: {GOOD}", "not one JSON object"),
        (f"}} {GOOD}", "not one JSON object"),
        (f'{{"note": {GOOD}', "not one JSON object"),
        ('{"reason": "x", "score": 7, "score": 9}', "twice"),
        ('{"reason": "x", "score": NaN}', "NaN is no number"),
        ('{"reason": "x", "score": -Infinity}', "no number"),
        ('{"reason": "x", "score": 1e999}', "infinite"),
        ('{"reason": "x", "score": 11}', "must be 1 to 10"),
        ('{"reason": "x", "score": 0.99}', "must be 1 to 10"),
        (f'{{"reason": "x", "score": {"9" * 900}}}', "very many digits"),
        (f'{{"reason": "x", "score": {"9" * 9000}}}', "not one JSON object"),
        ('{"reason": "x", "score": "7"}', "must be a number, not '7'"),
        ('{"reason": "x", "score": true}', "must be a number, not True"),
        ('{"reason": "x", "score": null}', "must be a number"),
        ('{"reason": "x", "score": [7]}', "must be a number"),
        ('{"reason": " ", "score": 7}', "'reason' must be text"),
        ('{"reason": 3, "score": 7}', "'reason' must be text"),
        ('{"score": 7}', "lacks 'reason'"),
        ("{}", "lacks 'reason', 'score'"),
        ('{"reason": "x", "score": 7, "scale": 10}', "has 'scale', which nobody asked for"),
        ('{"a":' * 100_000 + "}" * 100_000, "RecursionError"),
    ],
)
def test_what_is_wrong_with_a_reply_is_said(reply: str, complaint: str) -> None:
    with pytest.raises(MalformedReplyError, match=complaint):
        read_overlap(reply)


@settings(max_examples=60, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,0 ab\\<think>\ud800'))
def test_no_reply_is_a_crash(reply: str) -> None:
    with suppress(MalformedReplyError):
        assert 1 <= read_overlap(reply) <= 10


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none(), min_size=1),
    st.text(alphabet=st.characters(exclude_characters="{}<>")),
)
def test_prose_without_braces_changes_nothing(table: dict[str, object], prose: str) -> None:
    assert read_object(f"{prose}{json.dumps(table)}{prose}") == table
