"""What is drawn of a recording: its waveform, pitch and loudness over time, in as many points as a
picture has room for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.prosody.measurement import BLOCK_S, HOP_S, block_loudness
from aligncap.prosody.pitch import pitch_track
from aligncap.values import RATE_HZ, Waveform

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
    amplitude = np.zeros(points * each * hop, np.float32)
    np.abs(waveform.samples, out=amplitude[: len(waveform.samples)])
    times_s = (np.arange(points) + 0.5) * each * track.hop_s
    blocks = np.maximum(block_loudness(waveform), QUIETEST_LUFS)
    centres_s = np.arange(len(blocks)) * HOP_S + BLOCK_S / 2
    return Curves(
        each * track.hop_s,
        amplitude.reshape(points, -1).max(axis=1).astype(np.float64),
        _medians(track.frequency_hz, points, each),
        np.interp(times_s, centres_s, blocks),
    )


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
