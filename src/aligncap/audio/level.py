"""How strong a sound is: over all, and frame by frame in bands of frequency."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.periodicity import HOP_S, frame_count
from aligncap.values import RATE_HZ, Samples, Waveform

Floats = NDArray[np.float32]

SILENCE_DB = -120.0
"""What digital silence is given in place of minus infinity."""

BAND_EDGES_HZ = (100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700,
                 3150, 3700, 4400, 5300, 6400, 7700)  # fmt: skip
"""Critical bands (Zwicker 1961) from the pitch of a low voice upwards."""

_WINDOW = 512
_BLOCK = 64


def level_db(waveform: Waveform) -> float:
    """Root-mean-square level over the whole waveform in dBFS, without its constant part.

    A full-scale sine has -3.01 dB; digital silence and an empty waveform have -120 dB.
    """
    if len(waveform.samples) == 0:
        return SILENCE_DB
    power = float(np.var(waveform.samples, dtype=np.float64))
    return 10 * math.log10(power + 10 ** (SILENCE_DB / 10))


def band_levels_db(samples: Samples) -> Floats:
    """Level of each critical band in windows of 32 ms every 10 ms, in dBFS; [frames, bands]."""
    hop = round(HOP_S * RATE_HZ)
    count = frame_count(samples)
    around = (_WINDOW - hop) // 2
    padded = np.pad(samples, (around, around + _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop][:count]
    power = np.zeros((count, len(BAND_EDGES_HZ) - 1), np.float32)
    taper, bands = _analysis()
    for start in range(0, count, _BLOCK):
        spectrum = np.fft.rfft(windows[start : start + _BLOCK] * taper)
        squared = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
        power[start : start + _BLOCK] = squared @ bands
    levels: Floats = np.log10(power + np.float32(10 ** (SILENCE_DB / 10))) * np.float32(10)
    return levels


@cache
def _analysis() -> tuple[Floats, Floats]:
    """The taper of a window, and what sums a power spectrum into bands; [time], [bins, bands]."""
    taper = np.hanning(_WINDOW).astype(np.float32)
    hertz = np.arange(_WINDOW // 2 + 1) * RATE_HZ / _WINDOW
    edges = np.array(BAND_EDGES_HZ)
    inside = (hertz[:, None] >= edges[:-1]) & (hertz[:, None] < edges[1:])
    # Both halves of the spectrum, and the power that the taper takes away.
    scale = 2 / (_WINDOW * float(np.sum(taper.astype(np.float64) ** 2)))
    return taper, (inside * scale).astype(np.float32)
