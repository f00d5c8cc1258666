"""What the built-in encoder is fed: two views of the spectrogram and the prosody stream.

Measured features (`Features`) are what augmentation works on in training; `encoder_input`
normalises them, the same way in training and captioning. numpy only.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aligncap.acoustics.frontend import MELS, log_mel
from aligncap.acoustics.pitch import pitch_track
from aligncap.values import Waveform

FRAMES_A_TOKEN = 8
"""10 ms frames that become one speech token: 12.5 tokens a second."""
PROSODY = 6
"""Channels of the prosody stream."""
VIEWS = 2
"""Views of the spectrogram: against the utterance's level, and against each band's own level."""

_TRIM_NATS = 8.0  # 35 dB below the loudest frame is silence around the utterance
_MARGIN = 8
_ACTIVE_NATS = 7.0
_REFERENCE_HZ = 170.0
_SMOOTH = np.hanning(9) / np.hanning(9).sum()

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """An utterance as measured, every 10 ms."""

    mel: Floats
    """Log-mel power, shape [frames, 64], in nats."""
    pitch_hz: Floats
    """Shape [frames]; 0 where unvoiced."""
    strength: Floats
    """Periodicity, shape [frames], 0 to 1."""

    def __len__(self) -> int:
        return len(self.mel)


class EncoderInput(NamedTuple):
    """The encoder's input for one utterance."""

    views: Floats
    """Normalised spectrogram, shape [2, frames, 64]."""
    prosody: Floats
    """Shape [frames, 6]: log2 pitch, the same against its median, voicing, periodicity,
    energy against the loudest frame, level of the utterance."""


def measure_features(waveform: Waveform) -> Features:
    """Log-mel spectrogram and pitch of a waveform, silence at both ends cut off."""
    mel = log_mel(waveform)
    track = pitch_track(waveform)
    pitch = np.zeros(len(mel), dtype=np.float32)
    strength = np.zeros(len(mel), dtype=np.float32)
    both = min(len(mel), len(track.frequency_hz))
    pitch[:both], strength[:both] = track.frequency_hz[:both], track.strength[:both]
    return trim(Features(mel, pitch, strength))


def trim(features: Features) -> Features:
    """The features without silence at the ends, but for a margin of 80 ms."""
    energy = frame_energy(features.mel)
    loud = np.flatnonzero(energy > energy.max() - _TRIM_NATS)
    kept = slice(max(0, int(loud[0]) - _MARGIN), int(loud[-1]) + 1 + _MARGIN)
    return Features(features.mel[kept], features.pitch_hz[kept], features.strength[kept])


def frame_energy(mel: Floats) -> Floats:
    """Logarithm of each frame's summed mel power, shape [frames], in nats."""
    top = mel.max(axis=1)
    energy: Floats = top + np.log(np.exp(mel - top[:, None]).sum(axis=1))
    return energy


def encoder_input(features: Features) -> EncoderInput:
    """The features normalised for the encoder.

    The first view keeps the colour of voice and channel and loses only the level; the second
    loses each band's mean as well, and with it most of the microphone and of the speaker.
    """
    mel = features.mel
    energy = frame_energy(mel)
    peak = energy.max()
    active = mel[energy > peak - _ACTIVE_NATS]
    views = np.empty((VIEWS, len(mel), MELS), dtype=np.float32)
    views[0] = (mel - active.mean()) / 3.0
    views[1] = (mel - active.mean(axis=0)) / 2.5
    voiced = features.pitch_hz > 0
    octaves = np.where(voiced, np.log2(np.maximum(features.pitch_hz, 50.0) / _REFERENCE_HZ), 0.0)
    median = np.median(octaves[voiced]) if voiced.sum() > 5 else 0.0
    prosody = np.empty((len(mel), PROSODY), dtype=np.float32)
    prosody[:, 0] = octaves
    prosody[:, 1] = np.where(voiced, (octaves - median) * 2.0, 0.0)
    prosody[:, 2] = voiced
    prosody[:, 3] = features.strength
    prosody[:, 4] = (energy - peak) / 4.0 + 1.0
    prosody[:, 5] = (peak - 3.0) / 3.0
    return EncoderInput(views, prosody)


def nuclei_per_s(features: Features) -> float:
    """Syllable nuclei a second: voiced energy peaks with a dip on both sides (de Jong & Wempe
    2009, on mel frames). NaN where there are fewer than two.

    A cheap target for training that follows every change of pace; what is *said* of the pace is
    measured by `acoustics`.
    """
    energy = np.convolve(frame_energy(features.mel), _SMOOTH, mode="same")
    peaks = np.flatnonzero((energy[1:-1] > energy[:-2]) & (energy[1:-1] >= energy[2:])) + 1
    peaks = peaks[(features.pitch_hz[peaks] > 0) & (energy[peaks] > energy.max() - 6.0)]
    nuclei: list[int] = []
    for peak in peaks.tolist():
        if nuclei and energy[nuclei[-1] : peak].min() > min(energy[nuclei[-1]], energy[peak]) - 0.5:
            if energy[peak] > energy[nuclei[-1]]:
                nuclei[-1] = peak
        else:
            nuclei.append(peak)
    return len(nuclei) / (len(features) / 100) if len(nuclei) > 1 else math.nan
