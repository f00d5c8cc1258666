"""What the built-in speech encoder hears: a log-mel spectrogram and the pitch contour.

One numpy implementation serves training and captioning, so the two can never drift apart.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aligncap.values import RATE_HZ, Samples, Waveform

HOP = RATE_HZ // 100
"""Samples from one frame to the next: 10 ms."""
WINDOW = RATE_HZ * 25 // 1000
"""Samples of one frame: 25 ms."""
MELS = 64
LOWEST_HZ, HIGHEST_HZ = 50.0, 7_800.0
FLOOR = 1e-7
"""Added to the mel power, so that digital silence has a logarithm (about -70 dB)."""

_FFT = 512
_MEL_BREAK_HZ, _MEL_SCALE = 700.0, 1127.0

Frames = NDArray[np.float32]


def hz_to_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Frequencies in Hz on the mel scale (O'Shaughnessy's formula)."""
    return _MEL_SCALE * np.log1p(np.asarray(hz, dtype=np.float64) / _MEL_BREAK_HZ)


def mel_to_hz(mel: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The inverse of `hz_to_mel`."""
    return _MEL_BREAK_HZ * np.expm1(np.asarray(mel, dtype=np.float64) / _MEL_SCALE)


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Triangular filters of unit peak, shape [257 FFT bins, 64 mels]."""
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2))
    bins_hz = np.arange(_FFT // 2 + 1) * RATE_HZ / _FFT
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - lower) / (centre - lower)
    falling = (upper - bins_hz[:, None]) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    # A low filter can fall between two FFT bins: give it its nearest bin instead of nothing.
    nearest = np.abs(bins_hz[:, None] - centre).argmin(0)
    filters[nearest, np.arange(MELS)] = np.maximum(filters[nearest, np.arange(MELS)], 0.5)
    return filters.astype(np.float32)


def frame_count(samples: int) -> int:
    """How many 10 ms frames a waveform of that many samples has; at least one."""
    return max(1, samples // HOP)


def log_mel(waveform: Waveform) -> Frames:
    """Natural logarithm of the mel power, shape [frames, 64]; frames are centred every 10 ms."""
    frames = frame_count(len(waveform.samples))
    needed = (frames - 1) * HOP + WINDOW
    left = (WINDOW - HOP) // 2
    padded: Samples = np.zeros(needed + WINDOW, dtype=np.float32)
    padded[left : left + len(waveform.samples)] = waveform.samples[: len(padded) - left]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:frames]
    spectrum = np.fft.rfft(windows * _hann(), n=_FFT, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(power @ mel_filters() / WINDOW + np.float32(FLOOR))


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    return np.hanning(WINDOW).astype(np.float32)
