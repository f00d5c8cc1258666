"""Samples in memory, to mono float32 at 16 kHz."""

import numpy as np
import soxr
from numpy.typing import NDArray

from aligncap.audio.files import LONGEST_S
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples, Waveform

_LOWEST_RATE_HZ = 1_000
_HIGHEST_RATE_HZ = 768_000
_MOST_CHANNELS = 64
_FULL_SCALE_SLACK = 8.0  # floats a little over full scale are clipped, far over it are a mistake


def from_array(samples: NDArray[np.generic], rate_hz: int) -> Waveform:
    """Samples in memory as a waveform: [time] or [time, channels], of any rate.

    Floating-point samples are in [-1, 1]; whole numbers are scaled by the range of their type.
    Raises AudioError for samples that are empty, not real, not finite, of a third dimension, far
    beyond full scale, or longer than an hour.
    """
    array = np.asarray(samples)
    _refuse(array, rate_hz)
    scaled = _as_float(array)
    if not np.isfinite(scaled).all():
        raise AudioError("array: holds NaN or infinite samples; take them out")
    largest = float(np.abs(scaled).max())
    if largest > _FULL_SCALE_SLACK:
        raise AudioError(f"array: samples reach {largest:.0f}; scale them to [-1, 1]")
    mono = scaled.reshape(len(scaled), -1).mean(axis=1, dtype=np.float32)
    if rate_hz != RATE_HZ:
        mono = np.asarray(soxr.resample(mono, rate_hz, RATE_HZ, quality="HQ"), np.float32)
    return Waveform(np.clip(mono, -1.0, 1.0))


def _refuse(array: NDArray[np.generic], rate_hz: int) -> None:
    """Raises AudioError for an array that is not samples over time."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise AudioError(
            f"array: type {array.dtype}, shape {list(array.shape)}; "
            "give real numbers of shape [time] or [time, channels]"
        )
    if array.size == 0:
        raise AudioError("array: holds no samples; give at least one")
    if array.ndim == 2 and array.shape[1] > _MOST_CHANNELS:
        raise AudioError(
            f"array: {array.shape[1]} channels of {array.shape[0]} samples; "
            "give shape [time, channels] (transposed)"
        )
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise AudioError(
            f"array: rate is {rate_hz} Hz; give one from {_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ}"
        )
    if len(array) / rate_hz > LONGEST_S:
        raise AudioError(f"array: is longer than {LONGEST_S / 60:.0f} minutes; split it")


def _as_float(array: NDArray[np.generic]) -> Samples:
    """Any real samples as float32, full scale at 1."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    full = 2.0 ** (8 * array.dtype.itemsize - 1)
    middle = full if array.dtype.kind == "u" else 0.0  # unsigned samples rest at half their range
    return ((array.astype(np.float64) - middle) / full).astype(np.float32)
