"""Kill -9 while judging, pairing or annotating, at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preference.killing import CLIPS, EACH

TESTS = Path(__file__).resolve().parent.parent
ROUNDS = 50


@pytest.mark.slow
def test_killed_fifty_times_the_store_opens_and_nothing_is_lost_or_counted_twice(
    tmp_path: Path,
) -> None:
    script = TESTS / "preference" / "killing.py"
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "s.sqlite", str(ROUNDS), "3"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    versions = 1 + (ROUNDS - 1) // 9
    assert found["cut_short"] > ROUNDS // 4  # most were killed at their work
    assert found["told"] > ROUNDS  # and had got some of it done
    assert found["judgements"] == CLIPS * EACH * (1 + versions)
    assert found["annotations"] == 60 * (versions + 1)
    assert found["pairs_now"] == CLIPS * (EACH - 1)
    assert found["candidates"] == CLIPS * EACH
