"""`annotate` killed twenty times at random comes to what it would have come to undisturbed."""

import random
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support import killer
from tts.made import open_fake, read_out, write_folder

CLIPS = 60

SCRIPT = """
import sys
from pathlib import Path
from aligncap.tts import AnnotateSettings
from aligncap.tts.runs import AnnotateRun
from aligncap.tts.sources import open_corpus
from tts.made import open_fake

if __name__ == "__main__":
    corpus, out = map(Path, sys.argv[1:3])
    run = AnnotateRun(open_corpus(corpus, 2), out, AnnotateSettings(), jobs=int(sys.argv[3]),
                      open_model=open_fake)
    print(run().rows)
"""


def whole(out: Path) -> bool:
    return len(list(out.glob("data/*.parquet"))) == CLIPS // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine is no failure
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    corpus = write_folder(tmp_path / "in", CLIPS)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT, "utf-8")
    killer.finish(killer.start(script, corpus, tmp_path / "whole", 1))
    out, chance = tmp_path / "out", random.Random(7)
    done, kills = 0, 0
    while kills < 20:
        process = killer.start(script, corpus, out, 1 + kills % 2)
        # It is killed some time after it has written another file or two.
        goal = done + chance.choice([0, 1, 2])
        while process.poll() is None and files(out) < min(goal, 2 * (CLIPS // 2) - 1):
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        if process.poll() is not None:
            break  # it ended before it could be killed
        killer.kill(process)
        kills += 1
        done = files(out)
        for file in out.glob("data/*.parquet"):
            pq.read_table(file)
    output, _ = killer.finish(killer.start(script, corpus, out, 1))
    assert output == f"{CLIPS}\n"
    assert whole(out)
    rows = read_out(out)
    assert len({row["id"] for row in rows}) == len(rows) == CLIPS
    assert rows == read_out(tmp_path / "whole")
    assert kills >= 15
    orphans = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, text=True)
    assert orphans.stdout == ""


def files(out: Path) -> int:
    """How many files are finished, of what is found and of what is written."""
    return sum(1 for _ in out.glob(".annotate/[0-9]*.jsonl")) + sum(
        1 for _ in out.glob("data/*.parquet")
    )


assert open_fake  # the script's
