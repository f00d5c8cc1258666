"""`measure`: every fact of an utterance, each with its unit and how far it can be relied on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from aligncap.acoustics import voice
from aligncap.acoustics.frontend import log_mel
from aligncap.acoustics.gender import expected_pitch_hz, female_probability, gender_cues
from aligncap.acoustics.loudness import Loudness, loudness
from aligncap.acoustics.pace import pauses, syllable_nuclei
from aligncap.acoustics.pitch import PitchTrack, pitch_track
from aligncap.audio import speech_activity
from aligncap.values import Fact, Facts, Waveform

LEAST_VOICED_S = 0.15
LEAST_SPEECH_S = 0.4
CLIPPED_SHARE = 0.01
"""Share of samples at full scale above which loudness and voice quality cannot be told."""

_FULL_SCALE = 0.999
_JUMP_ST = 3.0
_JUMP_S = 0.15


def measure(waveform: Waveform) -> Facts:
    """Everything that the signal shows of an utterance; what it cannot show has a reason."""
    hearing = _Hearing(waveform)
    facts = [*_pitch_facts(hearing), *_loudness_facts(hearing), *_pace_facts(hearing)]
    facts += [*_voice_facts(hearing), _gender_fact(hearing)]
    return Facts(
        waveform.duration_s, hearing.speech_s, MappingProxyType({fact.name: fact for fact in facts})
    )


class _Hearing:
    """A waveform and what several facts need of it, measured once."""

    def __init__(self, waveform: Waveform) -> None:
        self.waveform = waveform
        self.activity = speech_activity(waveform)
        self.speech_s = sum(end - start for start, end in self.activity)

    @cached_property
    def track(self) -> PitchTrack:
        """Pitch, unvoiced where nobody speaks."""
        track = pitch_track(self.waveform)
        spoken = np.zeros(len(track.frequency_hz), dtype=bool)
        for start, end in self.activity:
            spoken[round(start / track.hop_s) : round(end / track.hop_s)] = True
        heard = np.where(spoken, track.frequency_hz, 0.0).astype(np.float32)
        return PitchTrack(heard, track.strength, track.hop_s)

    @cached_property
    def mel(self) -> NDArray[np.float32]:
        return log_mel(self.waveform)

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
        envelope = voice.envelope_cues(self.mel, self.track.voiced)
        if self.unpitched or envelope is None:
            return None
        return female_probability(gender_cues(self.median_hz, envelope))

    @cached_property
    def median_hz(self) -> float:
        return float(np.median(self.track.frequency_hz[self.track.voiced]))


def _fact(name: str, value: float | None, unit: str, confidence: float, reason: str) -> Fact:
    """A fact with its value, or with the reason why it has none."""
    if reason or value is None or not math.isfinite(value):
        return Fact(name, None, unit, 0.0, reason or "too little speech")
    return Fact(name, float(value), unit, float(np.clip(confidence, 0.0, 1.0)))


def _pitch_facts(hearing: _Hearing) -> Iterator[Fact]:
    track, reason = hearing.track, hearing.unpitched
    sure = min(1.0, hearing.voiced_s / 0.8)
    shape = _Contour.of(track) if not reason else None
    median = hearing.median_hz if shape else None
    female = hearing.female
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
        slope = float(np.polyfit(times_s, semitones, 1)[0]) if span > 0 else 0.0
        return cls(float(high - low), slope, jumps / max(span, 0.1), span)


def _loudness_facts(hearing: _Hearing) -> Iterator[Fact]:
    silent = "" if hearing.activity else "nobody speaks"
    found = loudness(hearing.waveform) if not silent else Loudness(None, None, None)
    sure = min(1.0, hearing.speech_s / 1.0)
    reason = silent or hearing.clipped
    yield _fact("loudness_db", found.integrated, "LUFS", sure, reason)
    yield _fact("loudness_range_db", found.range_lu, "dB", sure * 0.9, reason)
    short = "less than 1 s of speech" if hearing.speech_s < 1.0 else reason
    yield _fact("loudness_slope_db_per_s", found.slope_lu_per_s, "dB/s", sure * 0.8, short)


def _pace_facts(hearing: _Hearing) -> Iterator[Fact]:
    reason = "" if hearing.activity else "nobody speaks"
    if not reason and hearing.speech_s < LEAST_SPEECH_S:
        reason = f"only {hearing.speech_s:.1f} s of speech"
    nuclei = syllable_nuclei(hearing.waveform, hearing.track) if not reason else []
    pace = len(nuclei) / hearing.speech_s if nuclei else None
    found = pauses(hearing.activity)
    sure = min(1.0, len(nuclei) / 6)
    yield _fact("pace_syllables_per_s", pace, "1/s", sure, reason)
    share = found.seconds / found.span_s if found.span_s else None
    sure = min(1.0, found.span_s / 2.0)
    yield _fact("pause_share", share, "", sure, reason)
    often = found.count / found.span_s if found.span_s else None
    yield _fact("pauses_per_s", often, "1/s", sure, reason)


def _voice_facts(hearing: _Hearing) -> Iterator[Fact]:
    track = hearing.track
    reason = hearing.unpitched or hearing.clipped
    sure = 0.8 * min(1.0, hearing.voiced_s / 0.8)
    frames = min(len(hearing.mel), len(track.voiced))
    amplitude = np.exp(hearing.mel[:frames].max(axis=1) / 2)
    voiced = track.voiced[:frames]
    period = np.where(voiced, 1.0 / np.maximum(track.frequency_hz[:frames], 1.0), 0.0)
    values = {
        "jitter": (voice.perturbation(period, voiced), ""),
        "shimmer": (voice.perturbation(amplitude, voiced), ""),
        "harmonicity_db": (voice.harmonicity_db(track), "dB"),
        "spectral_tilt_db_per_octave": (voice.spectral_tilt(hearing.mel, track.voiced), "dB/oct"),
    }
    for name, (value, unit) in values.items():
        yield _fact(name, value, unit, sure, reason)


def _gender_fact(hearing: _Hearing) -> Fact:
    sure = min(1.0, hearing.voiced_s / 0.6)
    return _fact("female_probability", hearing.female, "", sure, hearing.unpitched)
