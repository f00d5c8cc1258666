"""Waits between attempts."""

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.endpoints.backoff import asked_wait_s, wait_s

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers())
def test_a_wait_is_never_longer_than_allowed_nor_shorter_than_half(
    failures: int, seed: int
) -> None:
    wait = wait_s(failures, longest_s=20.0, random=Random(seed))
    full = {1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0, 5: 16.0}.get(failures, 20.0)
    assert full / 2 <= wait <= full


def test_those_that_failed_together_come_back_apart() -> None:
    random = Random(0)
    assert len({wait_s(3, longest_s=60.0, random=random) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sat, 31 Jan 2026 12:01:30 GMT", 90.0),
        ("Sat, 31 Jan 2026 12:01:30 -0000", 90.0),
        ("Sat, 31 Jan 2026 13:01:30 +0100", 90.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert asked_wait_s(header, NOON) == expected
