"""Sound that libsndfile cannot decode, of films too: m4a, mp4, webm, mkv, amr, wma, by PyAV (the
extra `media`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aligncap.audio.containers import FFMPEG, cut_short
from aligncap.errors import AudioError
from aligncap.values import Samples

BLOCK = 1 << 16
"""Samples of a block, at least, but for the last."""
LEAST_SHARE = 0.95
"""A file that gives less of the length it promises is cut short; encoders pad by some frames."""
SAYS_ITS_LENGTH = ("mov", "matroska", "asf")
"""Containers whose header has the length; that of others is guessed by the bit rate."""


class Track(NamedTuple):
    """The first sound track of a file."""

    rate_hz: int
    channels: int
    length_s: float | None
    """None where the file does not say."""


def track(file: Path, kind: str) -> Track:
    """What the header says of the sound; AudioError where there is none or it cannot be read."""
    with _opened(file, kind) as (container, stream):
        length = stream.duration and float(stream.duration * stream.time_base)
        length = length or (container.duration and container.duration / 1e6)
        known = container.format.name.startswith(SAYS_ITS_LENGTH)
        if not (stream.rate and stream.channels):
            raise ValueError("without a rate")
        return Track(stream.rate, stream.channels, length if known else None)


def blocks(file: Path, kind: str) -> Iterator[Samples]:
    """The sound, [time, channels], at the rate of its track; AudioError where it is cut short."""
    import av

    promised = track(file, kind)
    count = 0
    with _opened(file, kind) as (container, stream):
        resampler = av.AudioResampler("fltp", stream.layout, promised.rate_hz)
        waiting: list[Samples] = []
        for frame in _frames(container, stream):
            for part in resampler.resample(frame):
                waiting.append(np.asarray(part.to_ndarray(), np.float32).T)
                count += len(waiting[-1])
            if sum(map(len, waiting)) >= BLOCK:
                yield np.concatenate(waiting)
                waiting.clear()
        if waiting:
            yield np.concatenate(waiting)
    if not count:
        raise AudioError(f"{file}: holds no samples; export it again")
    found_s = count / promised.rate_hz
    if promised.length_s and found_s < LEAST_SHARE * promised.length_s:
        raise cut_short(file, f"{found_s:.1f} of {promised.length_s:.1f} s could be read")


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    yield from container.decode(stream)
    yield None  # what the resampler holds back


@contextmanager
def _opened(file: Path, kind: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first sound track."""
    hint = FFMPEG.format(name=file.name, stem=file.stem)
    try:
        import av
    except ModuleNotFoundError as error:
        raise AudioError(
            f"{file}: {kind} is read by PyAV; run: pip install 'aligncap[media]', or {hint}"
        ) from error
    try:
        with av.open(str(file)) as container:
            if not container.streams.audio:
                raise AudioError(f"{file}: {kind} without sound; name one with a sound track")
            yield container, container.streams.audio[0]
    except (av.error.FFmpegError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise AudioError(
            f"{file}: is cut short, damaged or no {kind} ({reason}); {hint}"
        ) from error
