"""How long to wait before an attempt is repeated."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

FIRST_WAIT_S = 1.0


def wait_s(failures: int, *, longest_s: float, random: Random) -> float:
    """A wait after so many failures: it doubles each time up to `longest_s`, less up to half of it.

    The part left to chance keeps prompts that failed together from coming back together.
    """
    # The exponent is bounded: 2.0 ** 1024 is an error.
    full = min(longest_s, FIRST_WAIT_S * 2.0 ** min(failures - 1, 30))
    return full * random.uniform(0.5, 1.0)


def asked_wait_s(header: str | None, now: datetime) -> float | None:
    """What a Retry-After header asks for: seconds, or a date; None where it says nothing usable."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:  # "-0000": a date that says no zone is UTC
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())
