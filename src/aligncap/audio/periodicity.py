"""How periodic a sound is, frame by frame: what voices have and noise has not.

After Boersma (1993): a frame's autocorrelation is divided by that of its window, so that a
periodic frame reaches 1 at its period whatever the window does. The pitch tracker and the speech
detector both read it.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aligncap.values import RATE_HZ, Samples

Floats = NDArray[np.float32]

HOP_S = 0.01
"""From one frame to the next; frame i is centred on (i + 1/2) · HOP_S."""

FLOOR_HZ = 60.0
CEILING_HZ = 600.0

LAG_RATE_HZ = 16_000
"""Lags are read between the samples too, or short periods would be coarse."""

SHORTEST_LAG = int(LAG_RATE_HZ / CEILING_HZ)

_FRAME_RATE_HZ = 8_000  # frames are cut at half the rate: voices have their harmonics below 4 kHz
_WINDOW = round(3.0 / FLOOR_HZ * _FRAME_RATE_HZ)  # three periods of the lowest pitch
_FFT = 576  # at least window + longest lag, and a product of 2s and 3s
_BLOCK = 64  # frames at a time: fits the cache, and bounds memory for long files


def frame_count(samples: Samples) -> int:
    """How many frames a waveform has: one for each full hop."""
    return len(samples) // round(HOP_S * RATE_HZ)


def correlations(samples: Samples) -> Iterator[tuple[Floats, Floats]]:
    """Autocorrelations of a waveform at 16 kHz in blocks of frames.

    Yields the autocorrelations, [frames, lags] from lag 0 to one past the longest period in steps
    of 1 / LAG_RATE_HZ, 1 where a frame repeats itself; and each frame's largest amplitude.
    """
    frames = _frames(samples)
    window, window_correlation = _window()
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        centred = block - block.mean(axis=1, keepdims=True)
        raw = _autocorrelation(centred * window)
        yield raw / ((raw[:, :1] + 1e-12) * window_correlation), np.abs(centred).max(axis=1)


@cache
def _half_band() -> Floats:
    """The odd taps of a low-pass filter at a quarter of the sampling rate; the even ones are 0."""
    position = np.arange(-15, 16, 2)
    taps = 0.5 * np.sinc(position / 2) * np.hamming(33)[1:-1:2]
    return np.asarray(0.5 * taps / taps.sum(), np.float32)


def _halved(samples: Samples) -> Floats:
    """The waveform at half its rate; shape [⌈time / 2⌉]."""
    even, odd = samples[::2], samples[1::2]
    # Sample n lies between odd samples n - 1 and n: the filter's middle tap falls on the even one.
    smoothed = np.convolve(odd, _half_band())[7 : 7 + len(even)] if len(odd) else odd
    halved: Floats = np.float32(0.5) * even
    halved[: len(smoothed)] += smoothed
    return halved


def _frames(samples: Samples) -> Floats:
    """Overlapping windows at half the rate, one a hop; shape [frames, window]."""
    hop = round(HOP_S * _FRAME_RATE_HZ)
    count = frame_count(samples)
    if count == 0:
        return np.zeros((0, _WINDOW), np.float32)
    around = (_WINDOW - hop) // 2
    padded = np.pad(_halved(samples), (around, around + _WINDOW))
    windows: Floats = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    return windows[::hop][:count]


@cache
def _window() -> tuple[Floats, Floats]:
    """The Hann window and its autocorrelation, 1 at lag 0."""
    window = np.hanning(_WINDOW + 2)[1:-1].astype(np.float32)
    correlation = _autocorrelation(window[None])[0]
    return window, correlation / correlation[0]


@cache
def _cosines() -> Floats:
    """From a power spectrum to its autocorrelation; shape [bins, lags].

    A matrix, since a product with it is faster than an inverse FFT padded to the finer lags.
    """
    bins = np.arange(_FFT // 2 + 1)
    lags = np.arange(int(LAG_RATE_HZ / FLOOR_HZ) + 2) * (_FRAME_RATE_HZ / LAG_RATE_HZ)
    cosines = np.cos(2 * np.pi * np.outer(bins, lags) / _FFT)
    cosines[1:-1] *= 2  # the negative frequencies
    return (cosines / _FFT).astype(np.float32)


def _autocorrelation(frames: Floats) -> Floats:
    """Autocorrelation up to one past the longest period; shape [frames, lags]."""
    spectrum = np.fft.rfft(frames, _FFT)
    power = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
    return power @ _cosines()
