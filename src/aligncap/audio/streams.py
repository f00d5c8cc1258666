"""The sound of a file of any length in blocks, so that memory does not grow with it.

Which channels differ, how far samples reach and what lies below all sound is known at the end only:
so a file is read once before to be judged, of which ten numbers a second and channel are kept.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from aligncap.audio import files, media
from aligncap.audio.activity import channel_mixes
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples


def stream(path: str | Path, *, channel: int | None = None) -> Iterator[Samples]:
    """The sound of a file at 16 kHz, block by block: float32, shape [time], in [-1, 1].

    As `load` gives it, of all parts of joined files, but that all channels that differ are added;
    or `channel` alone is read, counted from 0, which is silent in parts that lack it. Raises
    AudioError as `load`, but a recording may be of any length, and is read up to where it is
    damaged.
    """
    file = Path(path)
    parts = _parts(file)
    channels = max(part.channels for part in parts)
    if channel is not None and channel >= channels:
        raise AudioError(f"{file}: has {channels} channels; there is none of number {channel + 1}")
    for part in parts:
        yield from _finished(part, channel, str(file))


def channel_count(path: str | Path) -> int:
    """How many channels a file has, the most of its parts; AudioError as `load`."""
    return max(part.channels for part in _parts(Path(path)))


class _Part(NamedTuple):
    """One of the files that were joined, or the only one."""

    rate_hz: int
    channels: int
    blocks: Callable[[], Iterator[Samples]]
    """The sound as it is stored, [time, channels], each time anew."""


def _parts(file: Path) -> list[_Part]:
    if kind := files.foreign_kind(file):
        found = media.track(file, kind)
        return [_Part(found.rate_hz, found.channels, partial(_media_blocks, file, kind))]
    parts = []
    with files.damage_told(file):
        for source in files.sources(file):
            with files.opened_sound(source, file) as sound:
                blocks = partial(_blocks, source, file)
                parts.append(_Part(int(sound.samplerate), int(sound.channels), blocks))
    return parts


def _media_blocks(file: Path, kind: str) -> Iterator[Samples]:
    return (files.checked(block, file) for block in media.blocks(file, kind))


def _blocks(source: files.Source, file: Path) -> Iterator[Samples]:
    with files.damage_told(file), files.opened_sound(source, file) as sound:
        blocks = files.Blocks(sound, file)
        yield from blocks
        files.refuse_cut(sound, blocks, file)


def _finished(part: _Part, channel: int | None, name: str) -> Iterator[Samples]:
    """A part in mono at 16 kHz, without an offset, in [-1, 1]."""
    judged = _Judged(part)
    mix = judged.mix(channel)
    below = judged.below(mix)
    length = judged.length * RATE_HZ / part.rate_hz

    def mono(blocks: Iterable[Samples]) -> Iterator[Samples]:
        at = 0
        for block in _at_16_khz((block @ mix for block in blocks), part.rate_hz):
            yield files.lifted(block, below, length, at)
            at += len(block)

    largest = judged.most(mix, below)
    if largest > files.OVERSHOOT:  # which it may be: read again to know
        largest = max(float(np.abs(one).max(initial=0.0)) for one in mono(_whole_blocks(part)))
    full = np.float32(files.full_scale(largest, name))
    for block in mono(part.blocks()):
        yield np.clip(block / full, -1.0, 1.0)


def _whole_blocks(part: _Part) -> Iterator[Samples]:
    """The blocks of a part up to where it is damaged, which is told when its sound is read."""
    with suppress(AudioError):
        yield from part.blocks()


class _Judged:
    """What there is to know of a part before its sound is given."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self.length = max(1, round(files.OFFSET_S * part.rate_hz))
        """Of the frames whose means are kept, in samples."""
        self._count = 0
        self._products = np.zeros((part.channels, part.channels))  # summed over time
        self._low = self._high = np.zeros(part.channels, np.float32)
        self._means: list[Samples] = []

    def mix(self, channel: int | None) -> Samples:
        """The weights of the channels, [channels]; reads the part."""
        channels = self._part.channels
        if channel is None and channels > 1:
            return np.asarray(np.sum(channel_mixes(self._watched()), axis=0), np.float32)
        deque(self._watched(), maxlen=0)
        return np.asarray(np.arange(channels) == (channel or 0), np.float32)

    def _watched(self) -> Iterator[Samples]:
        rest = np.zeros((self._part.channels, 0), np.float32)
        for block in _whole_blocks(self._part):
            sound = np.ascontiguousarray(block.T)  # along which numpy reduces much faster
            self._count += len(block)
            self._products += sound @ sound.T
            self._low = np.minimum(self._low, sound.min(axis=1))
            self._high = np.maximum(self._high, sound.max(axis=1))
            rest = np.concatenate((rest, sound), axis=1)
            whole = rest.shape[1] // self.length * self.length
            frames = rest[:, :whole].reshape(len(rest), -1, self.length)
            self._means.append(frames.mean(axis=2).T)
            rest = rest[:, whole:]
            yield sound.T

    def below(self, mix: Samples) -> Samples:
        """What lies below the sound of a mix, as `files.below_sound`."""
        means = np.concatenate([*self._means, np.zeros((0, len(mix)), np.float32)]) @ mix
        if not len(means):
            return means
        offset = float(means.mean(dtype=np.float64))
        power = float(mix @ self._products @ mix) / self._count - offset * offset
        return files.below_sound(means, offset, power)

    def most(self, mix: Samples, below: Samples) -> float:
        """How far a mix, without what lies below, reaches at most."""
        ends = np.stack((self._low * mix, self._high * mix))
        low, high = ends.min(axis=0).sum(), ends.max(axis=0).sum()
        return float(max(high - below.min(initial=0.0), below.max(initial=0.0) - low))


def _at_16_khz(blocks: Iterable[Samples], rate_hz: int) -> Iterator[Samples]:
    if rate_hz == RATE_HZ:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate_hz, RATE_HZ, 1, "float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
