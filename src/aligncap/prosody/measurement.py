"""Measured facts of an utterance: `measure` and the signal processing that it rests on.

In order: the log-mel spectrogram (also the speech encoder's input); the probability of a female
voice, by logistic regression on pitch and spectral envelope (coefficients fitted by
`benchmarks/fit_gender.py` on training speakers); loudness after ITU-R BS.1770-4; pace and pauses;
voice quality; and the facts, each with its unit and a confidence, or the reason why it has none.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from aligncap.audio import speech_activity, utterance
from aligncap.audio.activity import windows_of
from aligncap.prosody.pitch import PitchTrack, pitch_track
from aligncap.values import RATE_HZ, Fact, Facts, Waveform, once_per_waveform

HOP = RATE_HZ // 100
"""Samples from one frame to the next: 10 ms."""
WINDOW = RATE_HZ * 25 // 1000
"""Samples of one frame: 25 ms."""
MELS = 64
LOWEST_HZ, HIGHEST_HZ = 50.0, 7_800.0
FLOOR = 1e-7
"""Added to the mel power, so that digital silence has a logarithm (about -70 dB)."""

_FFT = 512
_BLOCK = 64  # frames at a time: fits the cache
_MEL_BREAK_HZ, _MEL_SCALE = 700.0, 1127.0

Frames = NDArray[np.float32]


def hz_to_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Frequencies in Hz on the mel scale (O'Shaughnessy's formula)."""
    return _MEL_SCALE * np.log1p(np.asarray(hz, dtype=np.float64) / _MEL_BREAK_HZ)


def mel_to_hz(mel: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The inverse of `hz_to_mel`."""
    return _MEL_BREAK_HZ * np.expm1(np.asarray(mel, dtype=np.float64) / _MEL_SCALE)


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Triangular filters of unit peak, shape [257 FFT bins, 64 mels]."""
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2))
    bins_hz = np.arange(_FFT // 2 + 1) * RATE_HZ / _FFT
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - lower) / (centre - lower)
    falling = (upper - bins_hz[:, None]) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    # A low filter can fall between two FFT bins: give it its nearest bin instead of nothing.
    nearest = np.abs(bins_hz[:, None] - centre).argmin(0)
    filters[nearest, np.arange(MELS)] = np.maximum(filters[nearest, np.arange(MELS)], 0.5)
    return filters.astype(np.float32)


def frame_count(samples: int) -> int:
    """How many 10 ms frames a waveform of that many samples has; at least one."""
    return max(1, samples // HOP)


@once_per_waveform
def log_mel(waveform: Waveform) -> Frames:
    """Natural logarithm of the mel power, shape [frames, 64]; frames are centred every 10 ms."""
    frames = frame_count(len(waveform.samples))
    windows = windows_of(waveform.samples, WINDOW, HOP, frames)
    power = np.empty((frames, MELS), dtype=np.float32)
    for start in range(0, frames, _BLOCK):
        block = slice(start, start + _BLOCK)
        spectrum = np.fft.rfft(windows[block] * _hann(), n=_FFT, axis=1)
        power[block] = (spectrum.real**2 + spectrum.imag**2) @ mel_filters()
    return np.log(power / WINDOW + np.float32(FLOOR))


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float32]:
    return np.hanning(WINDOW).astype(np.float32)


FEMALE_CENTRE_HZ, MALE_CENTRE_HZ = 235.0, 155.0
"""Expected median pitch of emotional speech, by gender; see `benchmarks/fit_gender.py`."""


def female_probability(cues: NDArray[np.float64]) -> float:
    """The probability of a woman's voice from `gender_cues`, shape [13]."""
    means, scales, weights, bias = _coefficients()
    logit = float(((cues - means) / scales) @ weights) + bias
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


def gender_cues(median_hz: float, envelope: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Logarithm of the median pitch and the twelve envelope cues, shape [13].

    An envelope that cannot be told is the mean one: it says nothing.
    """
    if envelope is None:
        envelope = _coefficients()[0][1:]
    return np.concatenate(([math.log(median_hz)], envelope))


def expected_pitch_hz(probability: float) -> float:
    """The expected median pitch for a voice that is a woman's with this probability."""
    female, male = math.log(FEMALE_CENTRE_HZ), math.log(MALE_CENTRE_HZ)
    return math.exp(probability * female + (1 - probability) * male)


@cache
def _coefficients() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Means and scales of the cues, their weights, each of shape [13], and the bias."""
    table = json.loads(Path(__file__).with_name("gender_weights.json").read_text("utf-8"))
    means, scales, weights = (np.array(table[key]) for key in ("means", "scales", "weights"))
    return means, scales, weights, float(table["bias"])


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
    return Loudness(integrated, float(high - low), slope_of(times_s, blocks[gated]))


def slope_of(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """The slope of the line that fits `y` over `x` with least squares; two different `x` at
    least."""
    away = x - x.mean()
    return float(away @ (y - y.mean()) / (away @ away))


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


LONGEST_STRENGTH = 0.9999
"""A perfectly periodic frame would have infinitely many decibels of harmonics."""

_TILT_FROM_HZ, _TILT_TO_HZ = 200.0, 5_000.0


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
    # Without the floor, which would flatten what is soft.
    power = np.maximum(np.exp(spoken.astype(np.float64)).mean(axis=0) - FLOOR, 1e-12)
    density = 10 * np.log10(power / widths)
    inside = (centres > _TILT_FROM_HZ) & (centres < _TILT_TO_HZ)
    return slope_of(np.log2(centres[inside]), density[inside])


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


_QUIET_POWER = 0.1  # of voiced frames, all mels together: softer ones are near the floor
_UPPER_SHARE = 10**-3.5  # of the power at 2 to 3.5 kHz; speech has 20 dB more above 4.5 kHz


def raised(mel: NDArray[np.float32], voiced: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Log-mel power [frames, 64] as if a quiet voice had been recorded louder: what is measured in
    it shall not depend on the level, and the floor hides what is soft."""
    frames = min(len(mel), len(voiced))
    power = np.maximum(np.exp(mel[:frames].astype(np.float64)) - FLOOR, 0.0)
    level = float(power[voiced[:frames]].sum(axis=1).mean()) if voiced[:frames].any() else 0.0
    if not 0 < level < _QUIET_POWER:
        return mel
    return np.asarray(np.log(power * (_QUIET_POWER / level) + FLOOR), np.float32)


def is_band_limited(mel: NDArray[np.float32], voiced: NDArray[np.bool_]) -> bool:
    """Whether a voice has nothing above 4 kHz, as on the telephone; `mel` is log-mel power."""
    frames = min(len(mel), len(voiced))
    if not voiced[:frames].any():
        return False
    power = np.exp(mel[:frames][voiced[:frames]].astype(np.float64)).mean(axis=0) - FLOOR
    return bool(power[50:].max() < _UPPER_SHARE * power[32:44].mean())


LEAST_VOICED_S = 0.15
LEAST_SPEECH_S = 0.4
CLIPPED_SHARE = 0.01
"""Share of samples at full scale above which loudness and voice quality cannot be told."""

_FULL_SCALE = 0.999
_JUMP_ST = 3.0
_JUMP_S = 0.15


@once_per_waveform
def measure(waveform: Waveform) -> Facts:
    """Everything that the signal shows of an utterance; what it cannot show has a reason."""
    heard = utterance(waveform)
    facts = measure_spoken(heard, speech_activity(heard))
    return replace(facts, duration_s=waveform.duration_s)


def measure_spoken(waveform: Waveform, activity: Sequence[tuple[float, float]]) -> Facts:
    """`measure` where it is known when somebody speaks, as start and end in seconds."""
    speech = _Analysis(waveform, activity)
    facts = [*_pitch_facts(speech), *_loudness_facts(speech), *_pace_facts(speech)]
    facts += [*_voice_facts(speech), _gender_fact(speech)]
    return Facts(
        waveform.duration_s, speech.speech_s, MappingProxyType({fact.name: fact for fact in facts})
    )


@once_per_waveform
def spoken_pitch(waveform: Waveform) -> PitchTrack:
    """Pitch, unvoiced where nobody speaks."""
    return _pitch_within(waveform, speech_activity(waveform))


def _pitch_within(waveform: Waveform, activity: Sequence[tuple[float, float]]) -> PitchTrack:
    track = pitch_track(waveform)
    spoken = np.zeros(len(track.frequency_hz), dtype=bool)
    for start, end in activity:
        spoken[round(start / track.hop_s) : round(end / track.hop_s)] = True
    masked = np.where(spoken, track.frequency_hz, 0.0).astype(np.float32)
    return PitchTrack(masked, track.strength, track.hop_s)


NUCLEI_CONFIDENCE = 0.25
"""Of the pace by syllable nuclei, at most: too little for a claim or a verdict. It follows the rate
of transcripts with a correlation of .36 to .62, and listeners' "fast" and "slow" no better than
chance (docs/lab-notes.md)."""


class _Analysis:
    """A waveform and the intermediate results that several facts share."""

    def __init__(self, waveform: Waveform, activity: Sequence[tuple[float, float]]) -> None:
        self.waveform = waveform
        self.activity = activity
        self.speech_s = sum(end - start for start, end in self.activity)

    @cached_property
    def track(self) -> PitchTrack:
        return _pitch_within(self.waveform, self.activity)

    @cached_property
    def mel(self) -> NDArray[np.float32]:
        return raised(log_mel(self.waveform), self.track.voiced)

    @cached_property
    def band_limited(self) -> bool:
        return is_band_limited(self.mel, self.track.voiced)

    @cached_property
    def voiced_s(self) -> float:
        return float(self.track.voiced.sum()) * self.track.hop_s

    @cached_property
    def unpitched(self) -> str:
        """Why the pitch cannot be told; empty where it can."""
        if not self.activity:
            return "nobody speaks"
        if self.voiced_s < LEAST_VOICED_S:
            return f"only {self.voiced_s:.2f} s are voiced"
        return ""

    @cached_property
    def clipped(self) -> str:
        """Why level and voice quality cannot be told; empty where they can."""
        share = float(np.mean(np.abs(self.waveform.samples) > _FULL_SCALE))
        return f"{share:.0%} of the samples are clipped" if share > CLIPPED_SHARE else ""

    @cached_property
    def female(self) -> float | None:
        """Probability of a woman's voice, where the pitch can be told."""
        envelope = envelope_cues(self.mel, self.track.voiced)
        if self.unpitched or envelope is None:
            return None
        heard = None if self.band_limited else envelope
        return female_probability(gender_cues(self.median_hz, heard))

    @cached_property
    def median_hz(self) -> float:
        return float(np.median(self.track.frequency_hz[self.track.voiced]))


def _fact(name: str, value: float | None, unit: str, confidence: float, reason: str) -> Fact:
    """A fact with its value, or with the reason why it has none."""
    if reason or value is None or not math.isfinite(value):
        return Fact(name, None, unit, 0.0, reason or "too little speech")
    return Fact(name, float(value), unit, float(np.clip(confidence, 0.0, 1.0)))


def _pitch_facts(speech: _Analysis) -> Iterator[Fact]:
    track, reason = speech.track, speech.unpitched
    sure = min(1.0, speech.voiced_s / 0.8)
    shape = _Contour.of(track) if not reason else None
    median = speech.median_hz if shape else None
    female = speech.female
    offset = None
    if median is not None and female is not None:
        offset = 12 * math.log2(median / expected_pitch_hz(female))
    # Whether a pitch is high depends on whose it is.
    known = abs(2 * female - 1) if female is not None else 0.0
    yield _fact("pitch_median_hz", median, "Hz", sure, reason)
    yield _fact("pitch_offset_st", offset, "st", sure * (0.4 + 0.6 * known), reason)
    yield _fact("pitch_range_st", shape.range_st if shape else None, "st", sure, reason)
    slope = shape.slope_st_per_s if shape else None
    short = "less than 0.5 s of melody" if shape and shape.span_s < 0.5 else reason
    yield _fact("pitch_slope_st_per_s", slope, "st/s", sure, short)
    yield _fact(
        "pitch_jumps_per_s", shape.jumps_per_s if shape else None, "1/s", sure * 0.8, reason
    )


@dataclass(frozen=True, slots=True)
class _Contour:
    """The melody of an utterance."""

    range_st: float
    """From the 10th to the 90th percentile."""
    slope_st_per_s: float
    jumps_per_s: float
    span_s: float

    @classmethod
    def of(cls, track: PitchTrack) -> "_Contour":
        times_s = track.times_s[track.voiced]
        semitones = 12 * np.log2(track.frequency_hz[track.voiced].astype(np.float64))
        low, high = np.percentile(semitones, [10, 90])
        span = float(times_s[-1] - times_s[0])
        steps, gaps = np.abs(np.diff(semitones)), np.diff(times_s)
        jumps = int(((steps > _JUMP_ST) & (gaps < _JUMP_S)).sum())
        # A line fits times around their mean best: short utterances would give wild slopes.
        slope = slope_of(times_s, semitones) if span > 0 else 0.0
        return cls(float(high - low), slope, jumps / max(span, 0.1), span)


def _loudness_facts(speech: _Analysis) -> Iterator[Fact]:
    silent = "" if speech.activity else "nobody speaks"
    found = loudness(speech.waveform) if not silent else Loudness(None, None, None)
    sure = min(1.0, speech.speech_s / 1.0)
    faint = "" if found.integrated is not None else f"quieter than {_ABSOLUTE_GATE:.0f} LUFS"
    reason = silent or speech.clipped or faint
    yield _fact("loudness_db", found.integrated, "LUFS", sure, reason)
    yield _fact("loudness_range_db", found.range_lu, "dB", sure * 0.9, reason)
    short = "less than 1 s of speech" if speech.speech_s < 1.0 else reason
    yield _fact("loudness_slope_db_per_s", found.slope_lu_per_s, "dB/s", sure * 0.8, short)


def _pace_facts(speech: _Analysis) -> Iterator[Fact]:
    reason = "" if speech.activity else "nobody speaks"
    if not reason and speech.speech_s < LEAST_SPEECH_S:
        reason = f"only {speech.speech_s:.1f} s of speech"
    nuclei = syllable_nuclei(speech.waveform, speech.track) if not reason else []
    pace = len(nuclei) / speech.speech_s if nuclei else None
    found = pauses(speech.activity)
    sure = NUCLEI_CONFIDENCE * min(1.0, len(nuclei) / 6)
    yield _fact("pace_syllables_per_s", pace, "1/s", sure, reason)
    share = found.seconds / found.span_s if found.span_s else None
    sure = min(1.0, found.span_s / 2.0)
    yield _fact("pause_share", share, "", sure, reason)
    often = found.count / found.span_s if found.span_s else None
    yield _fact("pauses_per_s", often, "1/s", sure, reason)


def _voice_facts(speech: _Analysis) -> Iterator[Fact]:
    track = speech.track
    reason = speech.unpitched or speech.clipped
    sure = 0.8 * min(1.0, speech.voiced_s / 0.8)
    frames = min(len(speech.mel), len(track.voiced))
    amplitude = np.exp(speech.mel[:frames].max(axis=1) / 2)
    voiced = track.voiced[:frames]
    period = np.where(voiced, 1.0 / np.maximum(track.frequency_hz[:frames], 1.0), 0.0)
    values = {
        "jitter": (perturbation(period, voiced), ""),
        "shimmer": (perturbation(amplitude, voiced), ""),
        "harmonicity_db": (harmonicity_db(track), "dB"),
        "spectral_tilt_db_per_octave": (spectral_tilt(speech.mel, track.voiced), "dB/oct"),
    }
    for name, (value, unit) in values.items():
        tilt = name.startswith("spectral_tilt")
        narrow = "nothing is recorded above 4 kHz" if tilt and speech.band_limited else ""
        yield _fact(name, value, unit, sure, reason or narrow)


def _gender_fact(speech: _Analysis) -> Fact:
    sure = min(1.0, speech.voiced_s / 0.6)
    return _fact("female_probability", speech.female, "", sure, speech.unpitched)
