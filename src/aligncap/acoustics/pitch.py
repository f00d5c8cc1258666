"""The pitch of a voice over time: autocorrelation candidates and the best path through them.

After Boersma (1993): a frame's autocorrelation is divided by that of its window, so that a
periodic frame reaches 1 at its period whatever the window does; several peaks a frame are kept, and
dynamic programming picks one each (or none), since single frames make octave errors.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.values import RATE_HZ, Samples, Waveform

Floats = NDArray[np.float32]

HOP_S = 0.01
FLOOR_HZ = 60.0
CEILING_HZ = 600.0

_WINDOW_S = 3.0 / FLOOR_HZ  # three periods of the lowest pitch
_LAG_RATE_HZ = 16_000  # lags are read between the samples, or short periods would be coarse
_FRAME_RATE_HZ = 8_000  # frames are cut at half the rate: voices have their harmonics below 4 kHz
_FFT = 576  # ≥ window + longest lag, and a product of 2s and 3s
_CANDIDATES = 5
_OCTAVE_COST = 0.05  # five times Boersma's: real rooms and codecs favour long periods
_OCTAVE_JUMP_COST = 0.5
_VOICING_COST = 0.14
_VOICING_THRESHOLD = 0.6
_SILENCE_THRESHOLD = 0.03
_REGISTER_COST = 0.5
_REGISTER_OCTAVES = 0.8  # a voice stays within this of its median without a cost
_BLOCK = 64  # frames at a time: fits the cache, and bounds memory for long files


@dataclass(frozen=True, slots=True)
class PitchTrack:
    """Pitch in frames of `hop_s`; frame i is centred on (i + 1/2) · hop_s."""

    frequency_hz: Floats
    """Shape [frames]; 0 where unvoiced."""
    strength: Floats
    """Shape [frames]; periodicity of the frame, 0 to 1, given for unvoiced frames too."""
    hop_s: float = HOP_S

    def __post_init__(self) -> None:
        if self.frequency_hz.shape != self.strength.shape or self.frequency_hz.ndim != 1:
            raise DataError("a pitch track has one frequency and one strength a frame")

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Which frames have a pitch; shape [frames]."""
        return self.frequency_hz > 0

    @property
    def times_s(self) -> NDArray[np.float64]:
        """The middle of each frame in seconds; shape [frames]."""
        return (np.arange(len(self.frequency_hz)) + 0.5) * self.hop_s


def pitch_track(waveform: Waveform) -> PitchTrack:
    """The pitch of a waveform between 60 and 600 Hz, every 10 ms.

    One frame for each full hop; a waveform shorter than a hop gives an empty track.
    """
    frames = _frames(waveform.samples)
    peak = float(np.abs(frames).max(initial=0.0))
    if peak == 0.0:
        nothing = np.zeros(len(frames), np.float32)
        return PitchTrack(nothing, nothing.copy())
    blocks = [
        _candidates(frames[start : start + _BLOCK], peak)
        for start in range(0, len(frames), _BLOCK)
    ]
    hertz, value, unvoiced = (np.concatenate(part) for part in zip(*blocks, strict=True))
    path = _best_path(hertz, value, unvoiced)
    cost = _register_cost(hertz, path)
    if np.take_along_axis(cost, path[:, None], axis=1).any():
        path = _best_path(hertz, value - cost, unvoiced)
    strength = np.clip(value[:, 1:].max(axis=1, initial=0.0), 0.0, 1.0)
    chosen = np.take_along_axis(value, path[:, None], axis=1)[:, 0]
    voiced = path > 0
    strength[voiced] = np.clip(chosen[voiced], 0.0, 1.0)
    frequency = np.where(voiced, np.take_along_axis(hertz, path[:, None], axis=1)[:, 0], 0.0)
    return PitchTrack(frequency.astype(np.float32), strength.astype(np.float32))


@cache
def _half_band() -> Floats:
    """The odd taps of a low-pass filter at a quarter of the sampling rate; the even ones are 0."""
    position = np.arange(-15, 16, 2)
    taps = 0.5 * np.sinc(position / 2) * np.hamming(33)[1:-1:2]
    return (0.5 * taps / taps.sum()).astype(np.float32)


def _halved(samples: Samples) -> Floats:
    """The waveform at half its rate; shape [⌈time / 2⌉]."""
    even, odd = samples[::2], samples[1::2]
    # Sample n lies between odd samples n - 1 and n: the filter's middle tap falls on the even one.
    smoothed = np.convolve(odd, _half_band())[7 : 7 + len(even)] if len(odd) else odd
    halved: Floats = 0.5 * even
    halved[: len(smoothed)] += smoothed
    return halved


def _frames(samples: Samples) -> Floats:
    """Overlapping windows at 8 kHz, one a hop; shape [frames, window]."""
    hop = round(HOP_S * _FRAME_RATE_HZ)
    window = round(_WINDOW_S * _FRAME_RATE_HZ)
    count = len(samples) // round(HOP_S * RATE_HZ)
    if count == 0:
        return np.zeros((0, window), np.float32)
    halved = _halved(samples)
    around = (window - hop) // 2
    padded = np.pad(halved, (around, around + window))
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]


@cache
def _window() -> tuple[Floats, Floats]:
    """The Hann window and its autocorrelation at lag rate, 1 at lag 0."""
    length = round(_WINDOW_S * _FRAME_RATE_HZ)
    window = np.hanning(length + 2)[1:-1].astype(np.float32)
    correlation = _autocorrelation(window[None])[0]
    return window, correlation / correlation[0]


@cache
def _cosines() -> Floats:
    """From a power spectrum to its autocorrelation at lag rate; shape [bins, lags].

    A matrix, since a product with it is faster than an inverse FFT padded to the finer lags.
    """
    bins = np.arange(_FFT // 2 + 1)
    lags = np.arange(int(_LAG_RATE_HZ / FLOOR_HZ) + 2) * (_FRAME_RATE_HZ / _LAG_RATE_HZ)
    cosines = np.cos(2 * np.pi * np.outer(bins, lags) / _FFT)
    cosines[1:-1] *= 2  # the negative frequencies
    return (cosines / _FFT).astype(np.float32)


def _autocorrelation(frames: Floats) -> Floats:
    """Autocorrelation at lag rate, up to one past the longest period; shape [frames, lags]."""
    spectrum = np.fft.rfft(frames, _FFT)
    correlation: Floats = (spectrum.real**2 + spectrum.imag**2) @ _cosines()
    return correlation


def _candidates(frames: Floats, peak: float) -> tuple[Floats, Floats, Floats]:
    """Periods each frame could have.

    Returns frequencies and their periodicities, both [frames, 1 + candidates] with nothing in
    column 0 (which stands for "unvoiced"), and the worth of being unvoiced, [frames].
    """
    window, window_correlation = _window()
    centred = frames - frames.mean(axis=1, keepdims=True)
    loudest = np.abs(centred).max(axis=1)
    correlation = _autocorrelation(centred * window)
    energy = correlation[:, :1] + 1e-12
    correlation = correlation / (energy * window_correlation)
    shortest = int(_LAG_RATE_HZ / CEILING_HZ)
    inner = correlation[:, shortest:-1]
    before, after = correlation[:, shortest - 1 : -2], correlation[:, shortest + 1 :]
    is_peak = (inner > before) & (inner >= after) & (inner > 0.5 * _VOICING_THRESHOLD)
    ranked = np.where(is_peak, inner - _octave_bias(shortest, inner.shape[1]), -1.0)
    row = np.arange(len(frames))[:, None]
    best = np.empty((len(frames), _CANDIDATES), np.intp)
    for number in range(_CANDIDATES):
        best[:, number] = ranked.argmax(axis=1)
        ranked[row[:, 0], best[:, number]] = -2.0
    low, mid, high = before[row, best], inner[row, best], after[row, best]
    bend = np.maximum(2 * mid - low - high, 1e-9)
    shift = np.clip(0.5 * (high - low) / bend, -0.5, 0.5)
    real = is_peak[row, best]
    hertz = np.where(real, _LAG_RATE_HZ / (best + shortest + shift), 1.0)
    value = np.where(real, np.minimum(mid + 0.25 * (high - low) * shift, 1.0), -1.0)
    silence = loudest / peak * (1 + _VOICING_THRESHOLD) / _SILENCE_THRESHOLD
    unvoiced = _VOICING_THRESHOLD + np.maximum(0.0, 2.0 - silence)
    none = np.ones((len(frames), 1), np.float32)
    return (
        np.hstack([none, hertz]).astype(np.float32),
        np.hstack([-none, value]).astype(np.float32),
        unvoiced.astype(np.float32),
    )


def _octave_bias(shortest: int, lags: int) -> Floats:
    """What a longer period costs; without it every second period looks as good as the first."""
    period = np.arange(shortest, shortest + lags) / _LAG_RATE_HZ
    return (_OCTAVE_COST * np.log2(FLOOR_HZ * period) + _OCTAVE_COST * 4).astype(np.float32)


def _register_cost(hertz: Floats, path: NDArray[np.intp]) -> Floats:
    """What a candidate far from the median of a first path costs; [frames, 1 + candidates]."""
    chosen = np.take_along_axis(hertz, path[:, None], axis=1)[:, 0][path > 0]
    if len(chosen) == 0:
        return np.zeros_like(hertz)
    away = np.abs(np.log2(hertz / np.median(chosen)))
    return _REGISTER_COST * np.maximum(0.0, away - _REGISTER_OCTAVES)


def _best_path(hertz: Floats, value: Floats, unvoiced: Floats) -> NDArray[np.intp]:
    """The candidate of each frame on the path of highest worth; 0 is unvoiced; [frames]."""
    octaves = np.log2(hertz)
    worth = value + _OCTAVE_COST * octaves
    worth[value <= 0] = -9.0
    worth[:, 0] = unvoiced + _OCTAVE_COST * np.log2(FLOOR_HZ)
    scale = 0.01 / HOP_S  # Boersma's costs are for steps of 10 ms
    move = _OCTAVE_JUMP_COST * scale * np.abs(octaves[1:, None, :] - octaves[:-1, :, None])
    move[:, 0, :] = move[:, :, 0] = _VOICING_COST * scale
    move[:, 0, 0] = 0.0
    came = np.empty(worth.shape, np.intp)
    total = worth[0]
    choices = np.arange(worth.shape[1])
    for frame in range(1, len(worth)):
        ways = total[:, None] - move[frame - 1]
        origin = came[frame] = ways.argmax(axis=0)
        total = ways[origin, choices] + worth[frame]
    path = np.empty(len(worth), np.intp)
    path[-1] = total.argmax()
    for frame in range(len(worth) - 1, 0, -1):
        path[frame - 1] = came[frame, path[frame]]
    return path
