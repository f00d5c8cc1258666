"""Sounds made on the spot: tones, hums, noises, clicks, and a voice-like one."""

import numpy as np
from numpy.typing import NDArray

from aligncap.values import RATE_HZ, Waveform

Sound = NDArray[np.float64]


def seconds(length_s: float) -> Sound:
    """Times of the samples; shape [time]."""
    return np.arange(round(length_s * RATE_HZ)) / RATE_HZ


def waveform(sound: NDArray[np.floating]) -> Waveform:
    return Waveform(np.asarray(sound, np.float32), "made")


def tone(hertz: float, *, length_s: float, peak: float = 0.3) -> Sound:
    return peak * np.sin(2 * np.pi * hertz * seconds(length_s))


def harmonics(hertz: Sound, *, slope: float = 1.0, top_hz: float = 4000.0) -> Sound:
    """Harmonics of a pitch that may change: the n-th has amplitude n ** -slope; [time]."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE_HZ
    count = int(top_hz / hertz.max())
    return sum(np.sin(n * phase + n * n) / n**slope for n in range(1, count + 1))


def noise(length_s: float, *, seed: int = 0) -> Sound:
    return np.random.default_rng(seed).normal(size=round(length_s * RATE_HZ))


def brown_noise(length_s: float, *, seed: int = 0) -> Sound:
    """Noise that falls by 6 dB an octave, as traffic and wind do; its largest sample is 1."""
    rumble = np.cumsum(noise(length_s, seed=seed))
    rumble -= np.convolve(np.pad(rumble, 2000, mode="edge"), np.ones(4001) / 4001, "valid")
    return rumble / np.abs(rumble).max()


def hum(mains_hz: float, *, length_s: float) -> Sound:
    return 0.1 * harmonics(np.full(round(length_s * RATE_HZ), mains_hz), top_hz=500.0)


def clicks(every_s: float, *, length_s: float, seed: int = 0) -> Sound:
    sound = 1e-4 * noise(length_s, seed=seed)
    sound[:: round(every_s * RATE_HZ)] = 0.9
    return sound


def syllables(
    *, rate_hz: float, length_s: float, pitch_hz: float = 180.0, peak: float = 0.3
) -> Sound:
    """Something like a voice: a gliding, swaying pitch, two formants that move, and syllables."""
    times = seconds(length_s)
    sway = 2 ** (np.sin(2 * np.pi * 0.7 * times) / 6)
    source = harmonics(pitch_hz * sway)
    vowel = 0.5 + 0.5 * np.sin(2 * np.pi * 0.9 * times)
    voice = source + 2 * vowel * band(source, 300, 900) + 3 * (1 - vowel) * band(source, 1400, 2400)
    opening = np.sin(np.pi * rate_hz * times) ** 2
    return peak * voice * (0.02 + opening) / np.abs(voice).max()


def band(sound: Sound, low_hz: float, high_hz: float) -> Sound:
    """What of a sound lies between two frequencies."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    spectrum[(hertz < low_hz) | (hertz > high_hz)] = 0
    return np.fft.irfft(spectrum, len(sound))
