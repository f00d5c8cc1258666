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


def log_mel(samples: Sound, rate: int, hop: int, low: float, high: float,
            *, window: int = 1024) -> NDArray[np.float32]:  # fmt: skip
    """Slaney's 64 mel bands of a centred, reflected spectrogram, 10 log10 of at least 1e-10,
    [frames, 64]."""

    def mel_of(hz: Sound) -> Sound:
        log = 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
        return np.where(hz < 1000, hz * 3 / 200, log)

    def hz_of(mel: Sound) -> Sound:
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    ends = mel_of(np.array([low, high]))
    edges = hz_of(np.linspace(*ends, 66))
    bins = np.fft.rfftfreq(window, 1 / rate)
    bands = [
        np.clip(np.minimum((bins - a) / (b - a), (c - bins) / (c - b)), 0, None) * 2 / (c - a)
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    padded = np.pad(samples.astype(np.float64), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = [padded[n : n + window] * hann for n in range(0, len(samples) + 1, hop)]
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return (10 * np.log10(np.maximum(power @ np.array(bands).T, 1e-10))).astype(np.float32)
