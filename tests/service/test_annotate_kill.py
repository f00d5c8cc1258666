"""The annotation server and kill -9: a page that sends again loses nothing and counts once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

TESTS = Path(__file__).resolve().parent.parent
KILLS = 10


@pytest.mark.slow
def test_no_choice_is_lost_or_counted_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    script = TESTS / "service" / "killing_server.py"
    ran = subprocess.run(
        [sys.executable, script, tmp_path / "s.sqlite", str(KILLS), "1"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["killed"] == KILLS
    assert found["same"]
    assert found["kept"] == 8 * KILLS
    assert found["whole"] == "ok"
