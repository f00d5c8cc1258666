"""The sound of a file of any length in blocks, so that memory does not grow with it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import soxr

from aligncap.audio import files, media
from aligncap.audio.activity import channel_mixes
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples

_JUDGED_BLOCKS = 40
"""Blocks of a file, a few minutes, that its channels are judged by."""


def stream(path: str | Path, *, channel: int | None = None) -> Iterator[Samples]:
    """The sound of a file at 16 kHz, block by block.

    The channels are mixed as `load` mixes them, all that differ added; or `channel` alone is read,
    counted from 0. Raises AudioError as `load`, but a recording may be of any length.
    """
    file = Path(path)
    rate_hz, channels = _rate_and_channels(file)
    if channel is not None and channel >= channels:
        raise AudioError(f"{file}: has {channels} channels; there is none of number {channel + 1}")
    mix = np.ones(1, np.float32)
    if channel is not None:
        mix = np.eye(channels, dtype=np.float32)[channel]
    elif channels > 1:
        mix = np.sum(channel_mixes(islice(_blocks(file), _JUDGED_BLOCKS)), axis=0)
    yield from _at_16_khz((block @ mix for block in _blocks(file)), rate_hz)


def channel_count(path: str | Path) -> int:
    """How many channels a file has; AudioError as `load`."""
    return _rate_and_channels(Path(path))[1]


def _rate_and_channels(file: Path) -> tuple[int, int]:
    if kind := files.foreign_kind(file):
        found = media.track(file, kind)
        return found.rate_hz, found.channels
    with files.damage_told(file), files.opened_sound(files.sources(file)[0], file) as sound:
        return int(sound.samplerate), int(sound.channels)


def _blocks(file: Path) -> Iterator[Samples]:
    """The sound as it is stored; [time, channels]."""
    if kind := files.foreign_kind(file):
        yield from media.blocks(file, kind)
        return
    with files.damage_told(file):
        for source in files.sources(file):
            with files.opened_sound(source, file) as sound:
                blocks = files.Blocks(sound, file)
                yield from blocks
                files.refuse_cut(sound, blocks, file)


def _at_16_khz(blocks: Iterable[Samples], rate_hz: int) -> Iterator[Samples]:
    resampler = soxr.ResampleStream(rate_hz, RATE_HZ, 1, "float32")
    for block in blocks:
        mono = block if rate_hz == RATE_HZ else resampler.resample_chunk(block)
        yield np.clip(mono, -1.0, 1.0).astype(np.float32, copy=False)
    if rate_hz != RATE_HZ:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
