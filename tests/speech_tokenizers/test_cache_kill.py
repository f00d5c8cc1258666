"""The token cache and SIGKILL: whatever was written before is whole, and the rest is done again."""

import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.tokenizers.cache import TokenCache
from speech_tokenizers.small import Clip, FakeTokenizer
from support.killer import finish, kill, start, wait_until

FILL = """
import sys
from pathlib import Path
from aligncap.tokenizers import cache
from speech_tokenizers.small import Clip, FakeTokenizer
from support.killer import hold

cache._FLUSH_CLIPS = 3
folder = Path(sys.argv[1])
clips = [Clip(path.stem, path) for path in sorted(folder.glob("*.wav"))]
most = int(sys.argv[3])
cache.tokenize_manifest(
    clips, FakeTokenizer(), sys.argv[2], progress=lambda done: hold() if done >= most else None
)
"""

DIE_INSIDE_A_TRANSACTION = """
import os, signal, sys
from aligncap.tokenizers.cache import TokenCache
from speech_tokenizers.small import FakeTokenizer

cache = TokenCache(sys.argv[1], FakeTokenizer())
with cache._database.transaction() as connection:
    connection.execute("PRAGMA cache_size = 1")  # so that half-done pages reach the file
    for number in range(2000):
        connection.execute("INSERT INTO tokens VALUES (?, ?, '{}')", (str(number), b"x" * 999))
    connection.execute("DELETE FROM clips")
    print(os.path.getsize(cache.path), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def check_whole(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.slow
def test_a_fill_killed_again_and_again_ends_with_every_clip(
    write_clips: Callable[[int], list[Clip]], tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(40)
    out = tmp_path / "tokens"
    moments, done = random.Random(5), [0]
    for _ in range(4):
        process = start("-c", FILL, clips[0].path.parent, out, done[-1] + 9)
        wait_until(lambda: _grown(out, tokenizer, beyond=done[-1]), process)
        kill(process, after_s=moments.uniform(0, 0.1))
        with TokenCache(out, tokenizer) as cache:
            done.append(len(cache))
            check_whole(cache.path)
            for clip_id in cache:
                assert cache.get(clip_id).codes.shape[0] == 2
    assert done == sorted(done)
    assert 0 < done[1] < done[-1] < 40
    with TokenCache(out, tokenizer) as cache:
        summary = cache.fill(clips)
        assert (summary.added, summary.present) == (40 - done[-1], done[-1])
        for clip in clips:
            expected = tokenizer.encode(load(clip.path)).codes
            np.testing.assert_array_equal(cache.get(clip.id).codes, expected)


def _grown(out: Path, tokenizer: FakeTokenizer, *, beyond: int) -> bool:
    if not out.is_dir() or not any(out.iterdir()):
        return False
    with TokenCache(out, tokenizer) as cache:
        return len(cache) > beyond


@pytest.mark.slow
def test_a_transaction_cut_by_a_kill_leaves_no_trace(
    write_clips: Callable[[int], list[Clip]], tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(3)
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill(clips)
    written, _ = finish(start("-c", DIE_INSIDE_A_TRANSACTION, tmp_path), -signal.SIGKILL)
    assert int(written) > 1_000_000  # the half-done work had reached the file
    with TokenCache(tmp_path, tokenizer) as cache:
        assert cache.fill(clips).present == 3
        np.testing.assert_array_equal(
            cache.get("clip2").codes, tokenizer.encode(load(clips[2].path)).codes
        )
        check_whole(cache.path)
        with sqlite3.connect(cache.path) as connection:
            assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (3,)
        connection.close()
