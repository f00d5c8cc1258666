"""The token cache: what it keeps and finds again, its errors, and SIGKILL."""

import gc
import os
import random
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from aligncap.audio import load
from aligncap.errors import DataError
from aligncap.tokenizers import cache as caching
from aligncap.tokenizers.cache import (
    TokenCache,
    TokenizeSummary,
    store_waveforms,
    tokenize_manifest,
)
from aligncap.tokenizers.encoder_training import load_utterance
from aligncap.values import RATE_HZ, SpeechTokens, Waveform
from support.killer import kill, start, wait_until
from support.scripts import ROOT
from support.speech_tokenizers import Clip, FakeTokenizer, noise


@pytest.fixture
def tokenizer() -> FakeTokenizer:
    return FakeTokenizer()


@pytest.fixture
def cache(tokenizer: FakeTokenizer, tmp_path: Path) -> Iterator[TokenCache]:
    with TokenCache(tmp_path, tokenizer) as opened:
        yield opened


@pytest.fixture
def write_clips(tmp_path: Path) -> Callable[[int], list[Clip]]:
    """Writes that many short wav files, each with its own sound."""

    def write(count: int) -> list[Clip]:
        clips = [Clip(f"clip{n}", tmp_path / "corpus" / f"{n}.wav") for n in range(count)]
        (tmp_path / "corpus").mkdir()
        for number, clip in enumerate(clips):
            soundfile.write(clip.path, noise(4000 + 320 * number, number).samples, RATE_HZ)
        return clips

    return write


def assert_kept(cache: TokenCache, clips: list[Clip]) -> None:
    """The tokens are what the fake tokenizer gives, by id and by file."""
    for clip in clips:
        expected = FakeTokenizer().encode(load(clip.path))
        for found in (cache.get(clip.id), cache.get(clip.path)):
            assert found.codes.dtype == np.int64
            np.testing.assert_array_equal(found.codes, expected.codes)
            assert found.readout == expected.readout


def test_what_comes_back_is_what_the_tokenizer_gave(write_clips, cache):
    clips = write_clips(3)
    summary = cache.fill(clips)
    # 4000, 4320 and 4640 samples at 320 a frame
    assert summary == TokenizeSummary(added=3, present=0, frames=13 + 14 + 15, failures=())
    assert list(cache) == ["clip0", "clip1", "clip2"]
    assert len(cache) == 3
    assert_kept(cache, clips)


def test_a_second_fill_encodes_nothing(write_clips, tokenizer, tmp_path):
    clips = write_clips(3)
    tokenize_manifest(clips[:2], tokenizer, tmp_path)
    tokenizer.asked.clear()
    seen: list[int] = []
    summary = tokenize_manifest(iter(clips), tokenizer, tmp_path, progress=seen.append)
    assert (summary.added, summary.present, len(tokenizer.asked)) == (1, 2, 1)
    assert seen == [1, 2, 3]


def test_the_same_sound_is_encoded_once_wherever_it_lies(write_clips, tokenizer, cache, tmp_path):
    first, second = write_clips(2)
    shutil.copyfile(first.path, second.path)
    cache.fill([first, second])
    moved = Clip(first.id, first.path.rename(tmp_path / "moved.wav"))
    assert cache.fill([moved]).present == 1
    assert len(tokenizer.asked) == 1
    assert_kept(cache, [moved, second])


def test_a_changed_file_is_encoded_again_and_a_touched_one_is_not(write_clips, cache):
    changed, touched = write_clips(2)
    cache.fill([changed, touched])
    soundfile.write(changed.path, noise(4000, 77).samples, RATE_HZ)
    os.utime(touched.path, ns=(1, 1))
    summary = cache.fill([changed, touched])
    assert (summary.added, summary.present) == (1, 1)
    assert_kept(cache, [changed])


def test_bad_files_are_listed_and_the_rest_goes_on(write_clips, cache):
    clips = write_clips(6)
    clips[0].path.unlink()
    clips[2].path.write_bytes(b"")
    clips[3].path.write_text("this is no sound")
    clips[4].path.unlink()
    clips[4].path.mkdir()
    failures = cache.fill(clips).failures
    assert [failure.id for failure in failures] == ["clip0", "clip2", "clip3", "clip4"]
    for failure in failures:
        assert str(failure.path) in failure.reason
        assert "\n" not in failure.reason
    assert list(cache) == ["clip1", "clip5"]


def test_one_id_for_two_sounds_is_refused(write_clips, cache):
    first, second = write_clips(2)
    summary = cache.fill([first, Clip(first.id, second.path)])
    assert summary.added == 1
    assert "'clip0' belongs to" in summary.failures[0].reason
    assert_kept(cache, [first])


def test_another_tokenizer_finds_nothing_of_it(write_clips, tokenizer, tmp_path):
    [clip] = write_clips(1)
    tokenize_manifest([clip], tokenizer, tmp_path)
    other = replace(tokenizer, fingerprint="0" * 64, codebooks=1)
    with TokenCache(tmp_path, other) as cache:
        assert len(cache) == 0
        for key in (clip.id, clip.path):
            with pytest.raises(DataError, match="aligncap tokens"):
                cache.get(key)
    with TokenCache(tmp_path, tokenizer) as ours:
        shutil.copyfile(ours.path, cache.path)
    with pytest.raises(DataError, match="was made with fingerprint"):
        TokenCache(tmp_path, other)


def test_samples_are_read_again_where_a_file_or_what_is_read_of_it_is_another(
    write_clips, tmp_path, monkeypatch
):
    paths = [clip.path for clip in write_clips(3)]
    asked: list[Path] = []

    def read(path: Path) -> Waveform:
        asked.append(path)
        return load(path)

    def stored() -> caching.WaveformStore:
        asked.clear()
        return store_waveforms(tmp_path / "kept", paths, read)

    first = stored()
    assert asked == paths
    again = stored()
    assert asked == []
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.samples, first.samples)
    # Another sound under the old name, as long as the one before.
    sound = -load(paths[1]).samples
    soundfile.write(paths[1], sound, RATE_HZ)
    other = stored()
    assert asked == paths
    place = slice(other.starts[1], other.starts[1] + other.lengths[1])
    assert np.abs(other.samples[place] - 32767 * sound).max() <= 2
    monkeypatch.setattr(caching, "UTTERANCES", "another way")
    assert len({first.fingerprint, other.fingerprint, stored().fingerprint}) == 3
    assert asked == paths


def test_what_is_read_of_a_file_is_what_its_number_says():
    """Where utterances have become others on purpose, `UTTERANCES` needs another number."""
    clips = sorted((ROOT / "examples/clips").glob("*.ogg"))[:4]
    lengths = [len(load_utterance(clip).samples) for clip in clips]
    assert (caching.UTTERANCES, lengths) == ("utterances, 1", [47200, 80480, 39680, 73760])


@pytest.mark.parametrize("keep_bytes", [None, 100, 4096, 9000])
def test_a_damaged_file_is_one_clear_line(write_clips, tokenizer, tmp_path, keep_bytes):
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill(write_clips(20))
    content = cache.path.read_bytes()
    cache.path.write_bytes(b"no database" * 999 if keep_bytes is None else content[:keep_bytes])
    with pytest.raises(DataError, match=f"{cache.path.name}.*delete it") as caught:
        TokenCache(tmp_path, tokenizer).get("clip19")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("manifest.jsonl:3: not JSON")])
def test_an_interrupt_or_a_broken_manifest_keeps_what_was_done(
    write_clips, tokenizer, tmp_path, error
):
    clips = write_clips(4)

    def manifest() -> Iterator[Clip]:
        yield from clips[:2]
        raise error

    with pytest.raises(type(error)):
        tokenize_manifest(manifest(), tokenizer, tmp_path)
    assert tokenize_manifest(clips, tokenizer, tmp_path).present == 2


@dataclass
class Replying(FakeTokenizer):
    """Gives the codes that it is made with."""

    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 1), np.int64))

    def encode(self, waveform: Waveform) -> SpeechTokens:
        return SpeechTokens(self.codes)


@settings(max_examples=30)
@given(
    data=st.data(),
    size=st.sampled_from([2, 256, 1024, 1 << 16, (1 << 16) + 1, 1 << 20]),
    books=st.integers(1, 8),
)
def test_any_codes_come_back_as_they_were(tmp_path_factory, data, size, books):
    shape = (books, data.draw(st.integers(0, 30)))
    codes = data.draw(arrays(np.int64, shape, elements=st.integers(0, size - 1)))
    folder = tmp_path_factory.mktemp("store")
    soundfile.write(folder / "a.wav", noise(400).samples, RATE_HZ)
    tokenizer = Replying(codebook_size=size, codebooks=books, codes=codes)
    with TokenCache(folder, tokenizer) as cache:
        cache.fill([Clip("a", folder / "a.wav")])
        np.testing.assert_array_equal(cache.get("a").codes, codes)


@pytest.mark.parametrize("codes", [[[0, 4]], [[-1, 0]], [[0], [1]]])
def test_codes_out_of_range_are_refused(write_clips, tmp_path, codes):
    tokenizer = Replying(codebook_size=4, codebooks=1, codes=np.array(codes, np.int64))
    with TokenCache(tmp_path, tokenizer) as cache:
        [failure] = cache.fill(write_clips(1)).failures
        assert "do not fit 1 codebooks of 4 entries" in failure.reason
        assert len(cache) == 0


def test_a_forked_reader_opens_its_own_connection(write_clips, cache):
    cache.fill(write_clips(2))
    if (child := os.fork()) == 0:
        frames = 0
        try:
            frames = cache.get("clip1").codes.shape[1]
        finally:
            os._exit(frames)  # nothing of pytest may run in the child
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 14
    assert cache.get("clip0").codes.shape == (2, 13)


def test_memory_does_not_grow_with_the_corpus(write_clips, tokenizer, tmp_path):
    [clip] = write_clips(1)
    held: dict[int, int] = {}

    def many() -> Iterator[Clip]:
        for number in range(320):
            soundfile.write(clip.path, noise(2000, number).samples, RATE_HZ)
            yield Clip(f"clip{number}", clip.path)

    def measure(number: int) -> None:
        tokenizer.asked.clear()
        if number in (64, 320):
            gc.collect()  # what waits to be collected is not held
            held[number] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        tokenize_manifest(many(), tokenizer, tmp_path / "tokens", progress=measure)
    finally:
        tracemalloc.stop()
    assert held[320] - held[64] < 20_000  # bytes, for 256 clips more


FILL = """
import sys
from pathlib import Path
from aligncap.tokenizers import cache
from support.speech_tokenizers import Clip, FakeTokenizer
from support.killer import hold

cache._FLUSH_CLIPS = 3
folder = Path(sys.argv[1])
clips = [Clip(path.stem, path) for path in sorted(folder.glob("*.wav"))]
most = int(sys.argv[3])
cache.tokenize_manifest(
    clips, FakeTokenizer(), sys.argv[2], progress=lambda done: hold() if done >= most else None
)
"""


@pytest.mark.slow
def test_a_fill_killed_again_and_again_ends_with_every_clip(write_clips, tokenizer, tmp_path):
    clips = write_clips(40)
    out = tmp_path / "tokens"
    moments, done = random.Random(5), [0]

    def grown() -> bool:
        if not out.is_dir() or not any(out.iterdir()):
            return False
        with TokenCache(out, tokenizer) as cache:
            return len(cache) > done[-1]

    for _ in range(4):
        process = start("-c", FILL, clips[0].path.parent, out, done[-1] + 9)
        wait_until(grown, process)
        kill(process, after_s=moments.uniform(0, 0.1))
        with TokenCache(out, tokenizer) as cache:
            done.append(len(cache))
            with closing(sqlite3.connect(cache.path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert all(len(cache.get(clip_id).codes) == 2 for clip_id in cache)
    assert done == sorted(done)
    assert 0 < done[1] < done[-1] < 40
    with TokenCache(out, tokenizer) as cache:
        summary = cache.fill(clips)
        assert (summary.added, summary.present) == (40 - done[-1], done[-1])
        assert_kept(cache, clips)
