"""Other voices, rooms and microphones out of the few that were recorded.

Everything works on measured features, so that pitch, pace and spectrum change together: a voice
shifted up has a higher pitch *and* a shorter vocal tract. A pure function of features and random
generator.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from aligncap.acoustics.frontend import HIGHEST_HZ, LOWEST_HZ, MELS, hz_to_mel, mel_to_hz
from aligncap.recipes import Share, recipe_section
from aligncap.speech.features import Features, Floats

_CENTRES_MEL = np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2)[1:-1]
_SAME_GENDER = 0.07
_AXIS = np.linspace(0.0, 1.0, MELS, dtype=np.float32)


@recipe_section
class Augmentation:
    """How strongly features are varied; 0 switches a variation off."""

    voice: float = 0.12
    """Standard deviation of the logarithm of the frequency ratio (pitch and formants)."""
    pace: float = 0.22
    """Largest logarithm of the ratio of durations, uniformly drawn."""
    channel: Share = 0.7
    """Share of clips that get another frequency response."""
    level: float = 1.2
    """Standard deviation of the level in nats of power (1 nat = 4.3 dB)."""
    noise: Share = 0.5
    """Share of clips that get steady coloured noise."""
    cut: Share = 0.3
    """Share of clips whose beginning is cut off, up to a sixth."""


@dataclass(frozen=True, slots=True)
class Varied:
    """Augmented features, and what was done to them."""

    features: Features
    voice_ratio: float
    """Frequencies of the copy over those of the original."""
    pace_ratio: float
    """Syllables a second of the copy over those of the original."""
    level_nats: float
    """What was added to the level."""

    @property
    def same_gender(self) -> bool:
        """Whether the voice moved so little that it cannot pass for the other gender."""
        return abs(math.log(self.voice_ratio)) <= _SAME_GENDER


def vary(features: Features, settings: Augmentation, random: Generator) -> Varied:
    """A copy of the features as another speaker, room or microphone might have given it."""
    ratio = float(np.clip(math.exp(random.normal(0.0, settings.voice)), 0.72, 1.4))
    stretch = math.exp(random.uniform(-settings.pace, settings.pace))
    mel = shift_voice(features.mel, ratio)
    places = np.linspace(0, len(mel) - 1, max(20, round(len(mel) * stretch)))
    mel = _stretch(mel, places)
    nearest = np.rint(places).astype(np.intp)
    pitch = features.pitch_hz[nearest] * np.float32(ratio)
    strength = features.strength[nearest]
    if random.random() < settings.channel:
        mel = mel + _response(random)
    level = random.normal(0.0, settings.level)
    mel = mel + np.float32(level)
    if random.random() < settings.noise:
        mel = np.logaddexp(mel, _noise(mel, random))
    start = int(random.integers(0, len(mel) // 6 + 1)) if random.random() < settings.cut else 0
    varied = Features(mel[start:].astype(np.float32), pitch[start:], strength[start:])
    return Varied(varied, ratio, 1.0 / stretch, level)


def shift_voice(mel: Floats, ratio: float) -> Floats:
    """Log-mel frames with every frequency multiplied by `ratio`, shape [frames, 64] kept."""
    wanted = hz_to_mel(mel_to_hz(_CENTRES_MEL) / ratio)
    step = _CENTRES_MEL[1] - _CENTRES_MEL[0]
    place = np.clip((wanted - _CENTRES_MEL[0]) / step, 0, MELS - 1)
    below = np.minimum(place.astype(np.intp), MELS - 2)
    share = (place - below).astype(np.float32)
    shifted: Floats = mel[:, below] * (1 - share) + mel[:, below + 1] * share
    return shifted


def _stretch(mel: Floats, places: np.ndarray) -> Floats:
    before = np.minimum(places.astype(np.intp), max(0, len(mel) - 2))
    after = np.minimum(before + 1, len(mel) - 1)
    share = (places - before).astype(np.float32)[:, None]
    stretched: Floats = mel[before] * (1 - share) + mel[after] * share
    return stretched


def _response(random: Generator) -> Floats:
    """A smooth frequency response in nats, shape [64]: room, distance, microphone, telephone."""
    curve = np.zeros(MELS, dtype=np.float32)
    for waves in (0.5, 1, 2, 3):
        phase = random.uniform(0, 2 * math.pi)
        curve += np.float32(random.normal(0, 0.9)) * np.cos(math.pi * waves * _AXIS + phase)
    return curve


def _noise(mel: Floats, random: Generator) -> Floats:
    """Steady coloured noise with its flutter, in nats, of the shape of `mel`."""
    level = float(mel.mean()) + random.uniform(-4.0, 1.0)
    tilt = random.normal(0, 1.5) * (2 * _AXIS - 1)
    hump = random.normal(0, 1.0) * np.cos(2 * math.pi * _AXIS + random.uniform(0, 2 * math.pi))
    flutter = 0.5 * random.standard_normal(mel.shape, dtype=np.float32)
    noise: Floats = (level + tilt + hump + flutter).astype(np.float32)
    return noise
