"""The token cache: what is kept, what is found again, and what is said when it cannot be."""

import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
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
from aligncap.tokenizers.cache import TokenCache, tokenize_manifest
from aligncap.values import RATE_HZ, SpeechTokens, Waveform
from speech_tokenizers.small import Clip, FakeTokenizer, noise

SIZES = [2, 256, 1024, 1 << 16, (1 << 16) + 1, 1 << 20]

WriteClips = Callable[[int], list[Clip]]


def test_what_comes_back_is_what_the_tokenizer_gave(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(3)
    with TokenCache(tmp_path / "tokens", tokenizer) as cache:
        summary = cache.fill(clips)
        assert (summary.added, summary.present, summary.failures) == (3, 0, ())
        assert summary.frames == 13 + 14 + 15  # of 4000, 4320 and 4640 samples at 320 a frame
        assert len(cache) == 3
        assert list(cache) == ["clip0", "clip1", "clip2"]
        for clip in clips:
            expected = tokenizer.encode(load(clip.path))
            for key in (clip.id, clip.path):
                found = cache.get(key)
                assert found.codes.dtype == np.int64
                np.testing.assert_array_equal(found.codes, expected.codes)
                assert found.readout == expected.readout


def test_a_second_fill_encodes_nothing(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(3)
    tokenize_manifest(clips[:2], tokenizer, tmp_path)
    tokenizer.asked.clear()
    seen: list[int] = []
    summary = tokenize_manifest(iter(clips), tokenizer, tmp_path, progress=seen.append)
    assert (summary.added, summary.present) == (1, 2)
    assert len(tokenizer.asked) == 1
    assert seen == [1, 2, 3]


def test_the_same_sound_is_encoded_once_wherever_it_lies(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    first, second = write_clips(2)
    shutil.copyfile(first.path, second.path)
    moved = tmp_path / "moved.wav"
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill([first, second])
        assert len(tokenizer.asked) == 1
        shutil.move(first.path, moved)
        assert cache.fill([Clip(first.id, moved)]).present == 1
        assert len(tokenizer.asked) == 1
        np.testing.assert_array_equal(cache.get(moved).codes, cache.get(second.id).codes)


def test_a_file_that_changed_is_encoded_again_and_a_touched_one_is_not(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    changed, touched = write_clips(2)
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill([changed, touched])
        before = cache.get(changed.id).codes
        soundfile.write(changed.path, noise(4000, 77).samples, RATE_HZ)
        os.utime(touched.path, ns=(1, 1))
        summary = cache.fill([changed, touched])
        assert (summary.added, summary.present) == (1, 1)
        assert not np.array_equal(cache.get(changed.id).codes, before)
        np.testing.assert_array_equal(
            cache.get(changed.path).codes, tokenizer.encode(load(changed.path)).codes
        )


def test_bad_files_are_listed_and_the_rest_goes_on(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(6)
    clips[0].path.unlink()
    clips[2].path.write_bytes(b"")
    clips[3].path.write_text("this is no sound")
    clips[4].path.unlink()
    clips[4].path.mkdir()
    summary = tokenize_manifest(clips, tokenizer, tmp_path / "tokens")
    assert [failure.id for failure in summary.failures] == ["clip0", "clip2", "clip3", "clip4"]
    for failure in summary.failures:
        assert str(failure.path) in failure.reason
        assert "\n" not in failure.reason
    with TokenCache(tmp_path / "tokens", tokenizer) as cache:
        assert list(cache) == ["clip1", "clip5"]


def test_one_id_for_two_sounds_is_refused(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    first, second = write_clips(2)
    summary = tokenize_manifest([first, Clip(first.id, second.path)], tokenizer, tmp_path)
    assert summary.added == 1
    assert "'clip0' belongs to" in summary.failures[0].reason
    with TokenCache(tmp_path, tokenizer) as cache:
        np.testing.assert_array_equal(
            cache.get(first.id).codes, tokenizer.encode(load(first.path)).codes
        )


def test_another_tokenizer_finds_nothing_of_it(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    clips = write_clips(1)
    tokenize_manifest(clips, tokenizer, tmp_path)
    other = replace(tokenizer, fingerprint="0" * 64, codebooks=1)
    with TokenCache(tmp_path, other) as cache:
        assert len(cache) == 0
        for key in ("clip0", clips[0].path):
            with pytest.raises(DataError, match="aligncap tokens"):
                cache.get(key)


def test_a_file_of_another_tokenizer_under_this_name_is_refused(
    tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    other = replace(tokenizer, fingerprint="0" * 64)
    with TokenCache(tmp_path, tokenizer) as cache, TokenCache(tmp_path, other) as theirs:
        shutil.copyfile(cache.path, theirs.path)
    with pytest.raises(DataError, match="was made with fingerprint"):
        TokenCache(tmp_path, other)


@pytest.mark.parametrize("keep_bytes", [None, 100, 4096, 9000])
def test_a_damaged_file_is_one_clear_line(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path, keep_bytes: int | None
) -> None:
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill(write_clips(20))
    content = cache.path.read_bytes()
    cache.path.write_bytes(b"no database" * 999 if keep_bytes is None else content[:keep_bytes])
    with pytest.raises(DataError, match=cache.path.name) as caught:
        TokenCache(tmp_path, tokenizer).get("clip19")
    assert "delete it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interrupt_keeps_what_was_done(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    clips = write_clips(4)
    with pytest.raises(KeyboardInterrupt):
        tokenize_manifest(clips, tokenizer, tmp_path, progress=interrupt)
    assert tokenize_manifest(clips, tokenizer, tmp_path).present == 2


def test_a_broken_manifest_keeps_what_was_done(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    def manifest() -> Iterator[Clip]:
        yield from write_clips(2)
        raise DataError("manifest.jsonl:3: not JSON")

    with pytest.raises(DataError, match=r"manifest.jsonl:3"):
        tokenize_manifest(manifest(), tokenizer, tmp_path)
    with TokenCache(tmp_path, tokenizer) as cache:
        assert len(cache) == 2


@dataclass
class Replying(FakeTokenizer):
    """Gives the codes that it is made with."""

    codes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 1), np.int64))

    def encode(self, waveform: Waveform) -> SpeechTokens:
        return SpeechTokens(self.codes)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=st.sampled_from(SIZES), books=st.integers(1, 8))
def test_any_codes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, books: int
) -> None:
    shape = (books, data.draw(st.integers(0, 30)))
    codes = data.draw(arrays(np.int64, shape, elements=st.integers(0, size - 1)))
    folder = tmp_path_factory.mktemp("store")
    soundfile.write(folder / "a.wav", noise(400).samples, RATE_HZ)
    tokenizer = Replying(codebook_size=size, codebooks=books, codes=codes)
    tokenize_manifest([Clip("a", folder / "a.wav")], tokenizer, folder)
    with TokenCache(folder, tokenizer) as cache:
        np.testing.assert_array_equal(cache.get("a").codes, codes)


@pytest.mark.parametrize(
    "codes", [[[0, 4]], [[-1, 0]], [[0], [1]]], ids=["too large", "negative", "too many codebooks"]
)
def test_codes_out_of_range_are_refused(
    write_clips: WriteClips, tmp_path: Path, codes: list[list[int]]
) -> None:
    tokenizer = Replying(codebook_size=4, codebooks=1, codes=np.array(codes, np.int64))
    with TokenCache(tmp_path, tokenizer) as cache:
        (failure,) = cache.fill(write_clips(1)).failures
        assert "do not fit 1 codebooks of 4 entries" in failure.reason
        assert len(cache) == 0


def test_a_folder_that_cannot_be_written_is_named(tokenizer: FakeTokenizer, tmp_path: Path) -> None:
    (tmp_path / f"fake-{'f' * 16}.sqlite").mkdir()
    with pytest.raises(DataError, match=r"f.sqlite: unable to open"):
        TokenCache(tmp_path, tokenizer)


def test_a_forked_reader_opens_its_own_connection(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    with TokenCache(tmp_path, tokenizer) as cache:
        cache.fill(write_clips(2))
        if (child := os.fork()) == 0:
            frames = 0
            try:
                frames = cache.get("clip1").codes.shape[1]
            finally:
                os._exit(frames)  # nothing of pytest may run in the child
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 14
        assert cache.get("clip0").codes.shape == (2, 13)


def test_readers_go_on_while_another_process_writes(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    with TokenCache(tmp_path, tokenizer) as writer, TokenCache(tmp_path, tokenizer) as reader:
        clips = write_clips(3)
        writer.fill(clips[:1])
        assert reader.get("clip0").codes.shape == (2, 13)
        reader.fill(clips[1:2])  # and two may fill in turn
        writer.fill(clips)
        assert len(reader) == len(writer) == 3


def test_memory_does_not_grow_with_the_corpus(
    write_clips: WriteClips, tokenizer: FakeTokenizer, tmp_path: Path
) -> None:
    (clip,) = write_clips(1)
    held: dict[int, int] = {}

    def many() -> Iterator[Clip]:
        for number in range(640):
            soundfile.write(clip.path, noise(2000, number).samples, RATE_HZ)
            yield Clip(f"clip{number}", clip.path)

    def measure(number: int) -> None:
        tokenizer.asked.clear()
        if number in (128, 640):
            held[number] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        tokenize_manifest(many(), tokenizer, tmp_path / "tokens", progress=measure)
    finally:
        tracemalloc.stop()
    assert held[640] - held[128] < 20_000  # bytes, for 512 clips more
