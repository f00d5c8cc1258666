"""Voice quality: how regular, how harmonic and how bright a voice is."""

import numpy as np
from numpy.typing import NDArray

from aligncap.acoustics.frontend import HIGHEST_HZ, LOWEST_HZ, MELS, hz_to_mel, mel_to_hz
from aligncap.acoustics.pitch import PitchTrack

Floats = NDArray[np.float64]

LONGEST_STRENGTH = 0.9999
"""A perfectly periodic frame would have infinitely many decibels of harmonics."""

_TILT_FROM_HZ, _TILT_TO_HZ = 200.0, 5_000.0
_DB_A_NAT = 10 / np.log(10)


def perturbation(values: NDArray[np.floating], voiced: NDArray[np.bool_]) -> float | None:
    """Mean distance of each voiced frame from the mean of its two voiced neighbours, relative to
    the mean: jitter if `values` are periods, shimmer if they are amplitudes; shape [frames].

    A frame-by-frame proxy: vibrato and tremor count, cycle-to-cycle noise mostly averages out.
    None where fewer than ten frames have two voiced neighbours.
    """
    middle = voiced[1:-1] & voiced[:-2] & voiced[2:]
    if middle.sum() < 10:
        return None
    x = np.asarray(values, dtype=np.float64)
    away = np.abs(x[1:-1] - (x[:-2] + x[2:]) / 2)[middle]
    # A jump of a third is an error of the tracker or a new phrase, not a tremble.
    own = x[1:-1][middle]
    small = away < own / 3
    return float(away[small].mean() / own[small].mean()) if small.any() else None


def harmonicity_db(track: PitchTrack) -> float | None:
    """Median harmonics-to-noise ratio of voiced frames in dB (Boersma 1993, Eq. 4)."""
    strength = np.minimum(track.strength[track.voiced].astype(np.float64), LONGEST_STRENGTH)
    if len(strength) < 10:
        return None
    strength = np.maximum(strength, 1e-3)
    return float(np.median(10 * np.log10(strength / (1 - strength))))


def spectral_tilt(mel: NDArray[np.float32], voiced: NDArray[np.bool_]) -> float | None:
    """Slope of the mean spectrum of voiced frames from 200 Hz to 5 kHz, in dB per octave;
    `mel` is log-mel power [frames, 64]. None where fewer than ten frames are voiced."""
    frames = min(len(mel), len(voiced))
    spoken = mel[:frames][voiced[:frames]]
    if len(spoken) < 10:
        return None
    edges = mel_to_hz(np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2))
    centres, widths = edges[1:-1], edges[2:] - edges[:-2]
    # A band's power grows with its width; the tilt is one of density.
    density = np.log(np.exp(spoken).mean(axis=0)) * _DB_A_NAT - 10 * np.log10(widths)
    inside = (centres > _TILT_FROM_HZ) & (centres < _TILT_TO_HZ)
    return float(np.polyfit(np.log2(centres[inside]), density[inside], 1)[0])


def envelope_cues(mel: NDArray[np.float32], voiced: NDArray[np.bool_]) -> Floats | None:
    """The first twelve cepstral coefficients of the mean log-mel spectrum of voiced frames, [12].

    They draw the coarse spectral envelope, in which a longer vocal tract has lower resonances.
    None where fewer than ten frames are voiced.
    """
    frames = min(len(mel), len(voiced))
    spoken = mel[:frames][voiced[:frames]]
    if len(spoken) < 10:
        return None
    order = np.arange(1, 13)[:, None]
    basis = np.cos(np.pi * order * (np.arange(MELS) + 0.5) / MELS) * np.sqrt(2 / MELS)
    cues: Floats = basis @ spoken.mean(axis=0).astype(np.float64)
    return cues
