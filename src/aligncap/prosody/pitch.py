"""The pitch of a voice over time: several candidates a frame and the best path through them.

After Boersma (1993): single frames make octave errors, so several peaks of a frame's normalised
autocorrelation are kept, and dynamic programming picks one each, or none.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.activity import (
    CEILING_HZ,
    FLOOR_HZ,
    HOP_S,
    LAG_RATE_HZ,
    SHORTEST_LAG,
    Floats,
    correlations_of,
)
from aligncap.errors import DataError
from aligncap.values import Waveform, once_per_waveform

__all__ = ["CEILING_HZ", "FLOOR_HZ", "HOP_S", "PitchTrack", "pitch_track"]

_CANDIDATES = 5
_OCTAVE_COST = 0.05  # five times Boersma's: real rooms and codecs favour long periods
_OCTAVE_JUMP_COST = 0.5
_VOICING_COST = 0.14
_VOICING_THRESHOLD = 0.6
_SILENCE_THRESHOLD = 0.03
_REGISTER_COST = 0.5
_REGISTER_OCTAVES = 0.8  # a voice stays within this of its median without a cost


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
        return (np.arange(len(self.frequency_hz), dtype=np.float64) + 0.5) * self.hop_s


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Periods each frame could have; column 0 stands for "unvoiced"."""

    hertz: Floats
    """Shape [frames, 1 + candidates]; 1 where there is none."""
    periodicity: Floats
    """Shape [frames, 1 + candidates]; -1 where there is none."""
    loudest: Floats
    """Largest amplitude of each frame; shape [frames]."""


@once_per_waveform
def pitch_track(waveform: Waveform) -> PitchTrack:
    """The pitch of a waveform between 60 and 600 Hz, every 10 ms.

    One frame for each full hop; a waveform shorter than a hop gives an empty track.
    """
    found = _candidates(waveform)
    periodicity = found.periodicity
    path = _best_path(found, periodicity)
    cost = _register_cost(found.hertz, path)
    if np.take_along_axis(cost, path[:, None], axis=1).any():
        path = _best_path(found, periodicity - cost)
    strength = np.clip(periodicity[:, 1:].max(axis=1, initial=0.0), 0.0, 1.0)
    voiced = path > 0
    chosen = np.take_along_axis(periodicity, path[:, None], axis=1)[:, 0]
    strength[voiced] = np.clip(chosen[voiced], 0.0, 1.0)
    frequency = np.where(voiced, np.take_along_axis(found.hertz, path[:, None], axis=1)[:, 0], 0.0)
    return PitchTrack(frequency.astype(np.float32), strength.astype(np.float32))


def _candidates(waveform: Waveform) -> _Candidates:
    """The highest peaks of each frame's autocorrelation."""
    hertz, periodicity, loudest = [], [], []
    for correlation, amplitude in correlations_of(waveform):
        block_hertz, block_periodicity = _peaks(correlation)
        hertz.append(block_hertz)
        periodicity.append(block_periodicity)
        loudest.append(amplitude)
    if not hertz:
        nothing = np.zeros((0, 1 + _CANDIDATES), np.float32)
        return _Candidates(nothing, nothing, nothing[:, 0])
    return _Candidates(np.concatenate(hertz), np.concatenate(periodicity), np.concatenate(loudest))


def _peaks(correlation: Floats) -> tuple[Floats, Floats]:
    """Frequency and height of the best peaks; both [frames, 1 + candidates]."""
    inner = correlation[:, SHORTEST_LAG:-1]
    before, after = correlation[:, SHORTEST_LAG - 1 : -2], correlation[:, SHORTEST_LAG + 1 :]
    is_peak = (inner > before) & (inner >= after) & (inner > 0.5 * _VOICING_THRESHOLD)
    period_s = np.arange(SHORTEST_LAG, SHORTEST_LAG + inner.shape[1]) / LAG_RATE_HZ
    bias = (_OCTAVE_COST * np.log2(CEILING_HZ * period_s)).astype(np.float32)
    ranked = np.where(is_peak, inner - bias, np.float32(-2.0))
    frame = np.arange(len(inner))
    best = np.empty((len(inner), _CANDIDATES), np.intp)
    for number in range(_CANDIDATES):
        best[:, number] = ranked.argmax(axis=1)
        ranked[frame, best[:, number]] = -2.0
    at = (frame[:, None], best)
    low, middle, high = before[at], inner[at], after[at]
    shift = np.clip(0.5 * (high - low) / np.maximum(2 * middle - low - high, 1e-9), -0.5, 0.5)
    hertz = np.ones((len(inner), 1 + _CANDIDATES), np.float32)
    height = np.full(hertz.shape, -1.0, np.float32)
    real = is_peak[at]
    hertz[:, 1:][real] = (LAG_RATE_HZ / (best + SHORTEST_LAG + shift))[real]
    height[:, 1:][real] = np.minimum(middle + 0.25 * (high - low) * shift, 1.0)[real]
    return hertz, height


def _register_cost(hertz: Floats, path: NDArray[np.intp]) -> Floats:
    """What a candidate far from the median of a first path costs; [frames, 1 + candidates]."""
    chosen = np.take_along_axis(hertz, path[:, None], axis=1)[:, 0][path > 0]
    if len(chosen) == 0:
        return np.zeros_like(hertz)
    away = np.abs(np.log2(hertz / np.median(chosen)))
    cost: Floats = _REGISTER_COST * np.maximum(np.float32(0.0), away - _REGISTER_OCTAVES)
    cost[:, 0] = 0.0
    return cost


def _worth(found: _Candidates, periodicity: Floats) -> Floats:
    """How good each candidate is on its own; shape [frames, 1 + candidates]."""
    worth = np.where(periodicity > 0, periodicity + _OCTAVE_COST * np.log2(found.hertz), -9.0)
    peak = found.loudest.max(initial=1e-9)
    loudness = found.loudest / peak * (1 + _VOICING_THRESHOLD) / _SILENCE_THRESHOLD
    # A frame far below the loudest is silence, however periodic its hum may be.
    unvoiced = _VOICING_THRESHOLD + np.maximum(0.0, 2.0 - loudness)
    worth[:, 0] = unvoiced + _OCTAVE_COST * np.log2(FLOOR_HZ)
    return worth.astype(np.float32)


def _best_path(found: _Candidates, periodicity: Floats) -> NDArray[np.intp]:
    """The candidate of each frame on the path of highest worth; 0 is unvoiced; [frames]."""
    worth = _worth(found, periodicity)
    path = np.zeros(len(worth), np.intp)
    if len(worth) == 0:
        return path
    octaves = np.log2(found.hertz).T
    move = _OCTAVE_JUMP_COST * np.abs(octaves[None, :, 1:] - octaves[:, None, :-1])
    move[0] = move[:, 0] = _VOICING_COST
    move[0, 0] = 0.0
    totals = _totals(worth.T, move)
    came = (totals[:, None, :-1] - move).argmax(axis=0).T.tolist()
    path[-1] = at = int(totals[:, -1].argmax())
    for frame in range(len(worth) - 1, 0, -1):
        path[frame - 1] = at = came[frame - 1][at]
    return path


def _totals(worth: Floats, move: Floats) -> NDArray[np.float64]:
    """What the best path to each candidate is worth; as `worth`, [candidates, frames].

    `move`, [candidates, candidates, frames - 1], is the cost from one to the next. Stretches of
    frames are gone through side by side, from each candidate that they may be entered at, and
    joined then: a loop over frames would take most of the time of the whole track.
    """
    size, _, steps = move.shape
    length = max(1, math.isqrt(steps))
    count = -(-steps // length)
    gains = np.zeros((size, size, count * length))
    gains[..., :steps] = worth[None, :, 1:] - move
    step = np.moveaxis(gains.reshape(size, size, count, length), -1, 0)
    within = np.ascontiguousarray(step)
    for n in range(1, length):
        within[n] = (within[n - 1][:, :, None] + within[n]).max(axis=1)
    entered = np.empty((size, count))
    total = worth[:, 0].astype(np.float64)
    for number in range(count):
        entered[:, number] = total
        total = (total[:, None] + within[-1, ..., number]).max(axis=0)
    later = (entered[:, None] + within).max(axis=1)
    later = later.transpose(1, 2, 0).reshape(size, -1)[:, :steps]
    return np.concatenate((worth[:, :1], later), axis=1)
