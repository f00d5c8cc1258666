"""The annotation server and kill -9: a page that sends again loses nothing and counts once."""

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

from support.killer import finish, start

KILLS = 10


@pytest.mark.slow
def test_no_choice_is_lost_or_counted_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killing_server.py")
    found = json.loads(finish(start(script, tmp_path / "s.sqlite", KILLS, 1))[0])
    assert found["killed"] == KILLS
    assert found["same"]
    assert found["kept"] == 8 * KILLS
    assert found["whole"] == "ok"
