"""Loudness as ITU-R BS.1770-4 has it: K-weighted, gated, in LUFS; its range and its slope."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aligncap.values import RATE_HZ, Waveform

Floats = NDArray[np.float64]

BLOCK_S, HOP_S = 0.4, 0.1
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE_LU = -10.0
_OFFSET = -0.691


@dataclass(frozen=True, slots=True)
class Loudness:
    """Loudness of an utterance; None where it is too quiet or too short."""

    integrated: float | None
    """LUFS."""
    range_lu: float | None
    """From the 10th to the 95th percentile of gated blocks, as EBU Tech 3342 has it."""
    slope_lu_per_s: float | None


def loudness(waveform: Waveform) -> Loudness:
    """The loudness of a waveform; one shorter than 0.4 s is taken as one block."""
    blocks = block_loudness(waveform)
    gated = blocks > _ABSOLUTE_GATE
    if not gated.any():
        return Loudness(None, None, None)
    gated &= blocks > _mean(blocks[gated]) + _RELATIVE_GATE_LU
    integrated = _mean(blocks[gated])
    if gated.sum() < 5:
        return Loudness(integrated, None, None)
    low, high = np.percentile(blocks[blocks > integrated - 20.0], [10, 95])
    times_s = np.flatnonzero(gated) * HOP_S
    slope = float(np.polyfit(times_s, blocks[gated], 1)[0])
    return Loudness(integrated, float(high - low), slope)


def block_loudness(waveform: Waveform) -> Floats:
    """Loudness of each 0.4 s block, every 0.1 s, in LUFS; shape [blocks], at least one."""
    size, hop = round(BLOCK_S * RATE_HZ), round(HOP_S * RATE_HZ)
    samples = waveform.samples.astype(np.float64)
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    # Each hop is weighted once; a block's power is the mean of its four hops'.
    hops = samples[: len(samples) // hop * hop].reshape(-1, hop)
    power = _weighted_power(hops)
    kernel = np.ones(size // hop) * hop / size
    blocks = np.convolve(power, kernel, mode="valid")
    loud: Floats = _OFFSET + 10 * np.log10(np.maximum(blocks, 1e-12))
    return loud


def _weighted_power(hops: Floats) -> Floats:
    """Mean K-weighted power of rows of samples, by Parseval's theorem; shape [rows]."""
    count = hops.shape[1]
    spectrum = np.fft.rfft(hops, axis=1)
    energy = spectrum.real**2 + spectrum.imag**2
    energy[:, 1:-1] *= 2
    power: Floats = energy @ k_weighting(count) / count**2
    return power


@cache
def k_weighting(count: int) -> Floats:
    """Squared gain of the K-weighting at the frequencies of a real FFT of `count` samples."""
    z = np.exp(-2j * np.pi * np.arange(count // 2 + 1) / count)
    gain = _shelf(z) * _high_pass(z)
    squared: Floats = np.abs(gain) ** 2
    return squared


def _shelf(z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The head's shelf of +4 dB above 1.7 kHz (BS.1770-4, stage 1), at this sampling rate."""
    gain, quality, corner = 10 ** (3.999843853973347 / 20), 0.7071752369554196, 1681.974450955533
    k = math.tan(math.pi * corner / RATE_HZ)
    middle = gain**0.4996667741545416
    scale = 1 + k / quality + k * k
    top = (gain + middle * k / quality + k * k) / scale
    top = (
        top + 2 * (k * k - gain) / scale * z + (gain - middle * k / quality + k * k) / scale * z**2
    )
    bottom = 1 + 2 * (k * k - 1) / scale * z + (1 - k / quality + k * k) / scale * z**2
    response: NDArray[np.complex128] = top / bottom
    return response


def _high_pass(z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The high-pass at 38 Hz (BS.1770-4, stage 2), at this sampling rate."""
    quality, corner = 0.5003270373238773, 38.13547087602444
    k = math.tan(math.pi * corner / RATE_HZ)
    scale = 1 + k / quality + k * k
    bottom = 1 + 2 * (k * k - 1) / scale * z + (1 - k / quality + k * k) / scale * z**2
    response: NDArray[np.complex128] = (1 - 2 * z + z**2) / bottom
    return response


def _mean(blocks: Floats) -> float:
    """The loudness of the mean power of blocks, in LUFS."""
    return float(10 * np.log10(np.mean(10 ** (blocks / 10))))
