"""The judge and SIGKILL: started again, it asks only for what is missing."""

import sqlite3
from pathlib import Path

import pytest

from aligncap.metrics.aes import read_overlap
from aligncap.metrics.judge import JudgeSettings, Question
from aligncap.metrics.judge_clients import open_judge
from metrics.judge.fakes import rating
from support.killer import finish, kill, start, wait_until
from support.server import Asked, saying, serving

COUNT, CONCURRENCY = 60, 3

ASK = """
import sys
from pathlib import Path
from metrics.judge.test_kill import ask

ask(sys.argv[1], Path(sys.argv[2]))
"""


def ask(url: str, cache: Path) -> list[object]:
    settings = JudgeSettings(model="small", url=url, cache=cache, concurrency=CONCURRENCY)
    with open_judge(settings) as judge:
        return judge.ask([Question(f"clip{n}", f"rate {n}", read_overlap) for n in range(COUNT)])


def kept(cache: Path) -> int:
    with sqlite3.connect(cache) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM replies").fetchone()
    connection.close()
    return int(count)


@pytest.mark.slow
def test_killed_in_the_middle_it_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"

    def behave(asked: Asked) -> object:
        return saying(rating(1 + int(asked.prompt.split()[1]) % 10), after_s=0.02)

    with serving(behave) as server:
        for stop_at in (15, 35):
            process = start("-c", ASK, server.url, cache)
            wait_until(lambda least=stop_at: len(server.asked) >= least, process)
            kill(process)
        wait_until(lambda: server._under_way == 0)
        asked, there = len(server.asked), kept(cache)
        # A kill costs at most what was under way.
        assert 0 < asked - 2 * CONCURRENCY <= there < COUNT
        assert ask(server.url, cache) == [1.0 + n % 10 for n in range(COUNT)]
        assert len(server.asked) - asked == COUNT - there
        assert len(set(server.prompts)) == COUNT
        asked = len(server.asked)
        ask(server.url, cache)
        assert len(server.asked) == asked


@pytest.mark.slow
def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "replies.sqlite"
    with serving(lambda asked: saying(rating(5))) as server:
        for process in [start("-c", ASK, server.url, cache) for _ in range(2)]:
            finish(process)
        assert kept(cache) == COUNT
        assert COUNT <= len(server.asked) <= 2 * COUNT
