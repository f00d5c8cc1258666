"""What is drawn of a recording: its waveform, pitch and loudness over time, in as many points as a
picture has room for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.activity import HOP_S as STEP_S
from aligncap.prosody.measurement import BLOCK_S, HOP_S, block_loudness
from aligncap.prosody.pitch import pitch_track
from aligncap.values import RATE_HZ, Samples, Waveform

MOST_POINTS = 3000
QUIETEST_LUFS = -70.0
"""The absolute gate of BS.1770: what is quieter is drawn there."""

Curve = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curves:
    """Three curves of the same points; point i stands for [i, i + 1) · step_s."""

    step_s: float
    peak: Curve
    """Largest amplitude, 0 to 1."""
    pitch_hz: Curve
    """Median pitch; NaN where nothing is voiced."""
    loudness_lufs: Curve
    """Momentary loudness (blocks of 0.4 s), at least QUIETEST_LUFS."""


def curves_of(waveform: Waveform, *, most_points: int = MOST_POINTS) -> Curves:
    """The curves of a waveform, a point for each 10 ms or, of a longer one, for a multiple of it.

    A waveform shorter than that has one point.
    """
    track = pitch_track(waveform)
    hop = round(track.hop_s * RATE_HZ)
    frames = max(1, -(-len(waveform.samples) // hop))
    each = max(1, -(-frames // most_points))
    points = -(-frames // each)
    return Curves(
        each * track.hop_s,
        _peaks(waveform.samples, points, each),
        _medians(track.frequency_hz, points, each),
        _loudness(waveform, points, each),
    )


def _peaks(samples: Samples, points: int, each: int = 1) -> Curve:
    """The largest amplitude in every `each` steps of 10 ms."""
    amplitude = np.zeros(points * each * round(STEP_S * RATE_HZ), np.float32)
    np.abs(samples, out=amplitude[: len(samples)])
    return np.asarray(amplitude.reshape(points, -1).max(axis=1), np.float64)


def _loudness(waveform: Waveform, points: int, each: int = 1) -> Curve:
    """The momentary loudness at the middle of every `each` steps of 10 ms."""
    times_s = (np.arange(points) + 0.5) * each * STEP_S
    blocks = np.maximum(block_loudness(waveform), QUIETEST_LUFS)
    centres_s = np.arange(len(blocks)) * HOP_S + BLOCK_S / 2
    return np.asarray(np.interp(times_s, centres_s, blocks), np.float64)


_PIECE_HOPS = 4096  # 41 s; a power of 2, so that pieces have whole points


@dataclass(frozen=True, slots=True)
class Envelope:
    """Two curves of the same points, as `Curves` has them."""

    step_s: float
    peak: Curve
    loudness_lufs: Curve

    def merged(self, each: int) -> "Envelope":
        """Every `each` points as one: the largest peak, the mean loudness."""
        return Envelope(
            self.step_s * each,
            np.nanmax(_rows(self.peak, each), axis=1),
            np.nanmean(_rows(self.loudness_lufs, each), axis=1),
        )


def streamed_envelope(blocks: Iterable[Samples], *, most_points: int = MOST_POINTS) -> Envelope:
    """Of 16 kHz sound that comes in blocks, in at most `most_points` points up to a recording of
    many hours; memory does not grow with it."""
    parts, each = [_piece_envelope(np.zeros(0, np.float32))], 1
    for number, piece in enumerate(_pieces(blocks)):
        parts = [*parts[number == 0 :], _piece_envelope(piece).merged(each)]
        while each < _PIECE_HOPS and sum(len(one.peak) for one in parts) > most_points:
            parts, each = [_joined(parts).merged(2)], 2 * each
    return _joined(parts)


def curves_along(
    blocks: Iterable[Samples], duration_s: float, *, most_points: int = MOST_POINTS
) -> Iterator[Curves]:
    """The curves of 16 kHz sound that comes in blocks, a stretch of about 40 s after the other.

    `duration_s`, what is expected to come, decides the step: with it, all stretches together have
    at most `most_points` points up to a recording of many hours. Memory does not grow.
    """
    each = 1
    while each < _PIECE_HOPS and duration_s > most_points * each * STEP_S:
        each *= 2
    for piece in _pieces(blocks):
        found = _piece_envelope(piece).merged(each)
        pitch_hz = _medians(pitch_track(Waveform(piece)).frequency_hz, len(found.peak), each)
        yield Curves(found.step_s, found.peak, pitch_hz, found.loudness_lufs)


def _pieces(blocks: Iterable[Samples]) -> Iterator[Samples]:
    size, waiting = _PIECE_HOPS * round(STEP_S * RATE_HZ), np.zeros(0, np.float32)
    for block in blocks:
        waiting = np.concatenate((waiting, block))
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


def _piece_envelope(samples: Samples) -> Envelope:
    points = max(1, -(-len(samples) // round(STEP_S * RATE_HZ)))
    return Envelope(STEP_S, _peaks(samples, points), _loudness(Waveform(samples), points))


def _joined(parts: Sequence[Envelope]) -> Envelope:
    return Envelope(
        parts[0].step_s,
        np.concatenate([one.peak for one in parts]),
        np.concatenate([one.loudness_lufs for one in parts]),
    )


def _rows(curve: Curve, each: int) -> Curve:
    return np.pad(curve, (0, -len(curve) % each), constant_values=np.nan).reshape(-1, each)


def _medians(frequency_hz: NDArray[np.float32], points: int, each: int) -> Curve:
    """The median of every `each` frames that are voiced; NaN where none is."""
    padded = np.zeros(points * each)
    count = min(len(frequency_hz), len(padded))
    padded[:count] = frequency_hz[:count]
    rows = padded.reshape(points, each)
    medians = np.full(points, np.nan)
    voiced = (rows > 0).any(axis=1)
    medians[voiced] = np.nanmedian(np.where(rows > 0, rows, np.nan)[voiced], axis=1)
    return medians
