"""Pace: syllable nuclei a second of speech, and pauses."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.acoustics.pitch import PitchTrack
from aligncap.values import RATE_HZ, Waveform

PAUSE_S = 0.25
"""A shorter silence is a closure within a word."""

_DIP_DB = 2.0
_BELOW_PEAK_DB = 25.0
_WINDOW_S = 0.064
_HOP = RATE_HZ // 100


@dataclass(frozen=True, slots=True)
class Pauses:
    """The silences between stretches of speech."""

    count: int
    seconds: float
    """All pauses together."""
    span_s: float
    """From the first speech to the last."""


def syllable_nuclei(waveform: Waveform, track: PitchTrack) -> list[float]:
    """Times in seconds of syllable nuclei: voiced intensity peaks, at most 25 dB below the
    loudest, with dips of at least 2 dB between them (de Jong & Wempe 2009)."""
    intensity = intensity_db(waveform)
    frames = min(len(intensity), len(track.voiced))
    if frames < 3:
        return []
    intensity, voiced = intensity[:frames], track.voiced[:frames]
    inner = intensity[1:-1]
    peaks = np.flatnonzero((inner > intensity[:-2]) & (inner >= intensity[2:])) + 1
    loud = np.percentile(intensity, 99) - _BELOW_PEAK_DB
    kept: list[int] = []
    for peak in peaks[intensity[peaks] > loud].tolist():
        if kept:
            dip = intensity[kept[-1] : peak].min()
            if min(intensity[kept[-1]], intensity[peak]) - dip < _DIP_DB:
                if intensity[peak] > intensity[kept[-1]]:
                    kept[-1] = peak
                continue
        kept.append(peak)
    return [(peak + 0.5) * track.hop_s for peak in kept if voiced[peak]]


def intensity_db(waveform: Waveform) -> NDArray[np.float64]:
    """Smoothed intensity every 10 ms in dBFS, shape [frames]."""
    frames = len(waveform.samples) // _HOP
    power = np.square(waveform.samples[: frames * _HOP].astype(np.float64))
    means = power.reshape(-1, _HOP).mean(axis=1)
    width = round(_WINDOW_S * RATE_HZ / _HOP)
    taper = np.hanning(width + 2)[1:-1]
    smooth = np.convolve(means, taper / taper.sum(), mode="same")
    decibels: NDArray[np.float64] = 10 * np.log10(smooth + 1e-12)
    return decibels


def pauses(activity: Sequence[tuple[float, float]]) -> Pauses:
    """The pauses between stretches of speech given as (start, end) in seconds."""
    if not activity:
        return Pauses(0, 0.0, 0.0)
    gaps = [
        after[0] - before[1]
        for before, after in itertools.pairwise(activity)
        if after[0] - before[1] >= PAUSE_S
    ]
    return Pauses(len(gaps), sum(gaps), activity[-1][1] - activity[0][0])
