"""Kill -9 while judging, pairing or annotating, at random moments."""

import json
from pathlib import Path

import pytest

from preference.killing import CLIPS, EACH
from support.killer import finish, start

ROUNDS = 50


@pytest.mark.slow
def test_killed_fifty_times_the_store_opens_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path,
) -> None:
    script = Path(__file__).with_name("killing.py")
    found = json.loads(finish(start(script, tmp_path / "s.sqlite", ROUNDS, 3))[0])
    versions = 1 + (ROUNDS - 1) // 9
    assert found["cut_short"] >= ROUNDS * 4 // 5  # most were killed at their work
    assert found["told"] > ROUNDS  # and had got some of it done
    assert found["judgements"] == CLIPS * EACH * (1 + versions)
    assert found["annotations"] == 60 * (versions + 1)
    assert found["pairs_now"] == CLIPS * (EACH - 1)
    assert found["candidates"] == CLIPS * EACH
