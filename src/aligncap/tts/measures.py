"""What dataspeech measures of an utterance, measured on a CPU; and speakers' means and spreads.

SNR is WADA-SNR (Kim and Stern, 2008): the amplitudes of clean speech are spread as a Gamma
distribution, and noise makes them more alike. C50 is not estimated: no estimator without a model
of its own was found that is right often enough, so that it is None where the corpus has none.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.audio import utterance
from aligncap.prosody import measure
from aligncap.prosody.measurement import spoken_pitch
from aligncap.values import RATE_HZ, Samples, Waveform

Row = dict[str, Any]

_ZERO = 2.0**-16 / math.e  # geometric mean of what 16 bits round to nothing
_BLOCK = RATE_HZ // 100


def wada_snr(samples: Samples) -> float | None:
    """Signal-to-noise ratio in dB, -20 to 100, of speech of shape [time]; None where it is silent.

    Stretches of digital silence are left out: they are no recording.
    """
    count = len(samples) // _BLOCK * _BLOCK
    blocks = samples[:count].reshape(-1, _BLOCK)
    amplitude = np.abs(blocks[(blocks != 0).any(axis=1)].ravel())
    if not len(amplitude):
        return None
    amplitude[amplitude == 0] = _ZERO
    spread = math.log(amplitude.mean(dtype=np.float64)) - float(
        np.log(amplitude).mean(dtype=np.float64)
    )
    lowest, rising = _wada_table()
    return float(np.interp(spread, rising, lowest + np.arange(len(rising))))


@cache
def _wada_table() -> tuple[float, NDArray[np.float64]]:
    """The lowest SNR in dB, and ln E|x| - E ln|x| from there on, dB by dB, never falling."""
    table = json.loads(Path(__file__).with_name("wada.json").read_text("utf-8"))
    return float(table["lowest_db"]), np.maximum.accumulate(np.array(table["values"], np.float64))


@cache
def _transducer() -> Callable[[str], Any]:
    from g2p import make_g2p

    made: Callable[[str], Any] = make_g2p("eng", "eng-ipa")
    return made


def phonemes_of(text: object, language: object = None) -> str | None:
    """An English transcript in IPA, by the `g2p` that dataspeech uses; None for another language,
    or where there is nothing to pronounce.

    Words that are not in its dictionary are left out, as dataspeech leaves them out.
    """
    english = not language or str(language).lower().startswith("en")
    if (
        not english
        or not isinstance(text, str)
        or not any("a" <= one <= "z" for one in text.lower())
    ):
        return None
    return str(_transducer()(text).output_string).strip() or None


def utterance_columns(waveform: Waveform, row: Mapping[str, Any], text: object) -> Row:
    """The numbers of an utterance; a number that cannot be told is None.

    `row` may have the `snr` and `c50` of another tool, which are taken over.
    """
    facts, track = measure(waveform), spoken_pitch(utterance(waveform))
    voiced = track.frequency_hz[track.voiced].astype(np.float64)
    told = facts.value("pitch_median_hz") is not None
    phonemes = phonemes_of(text, row.get("language"))
    spoken = bool(phonemes and facts.speech_s)
    snr = _number(row.get("snr"))
    columns = {
        "utterance_pitch_mean": voiced.mean() if told else None,
        "utterance_pitch_std": voiced.std() if told else None,
        "snr": wada_snr(waveform.samples) if snr is None else snr,
        "c50": _number(row.get("c50")),
        "speech_duration": facts.speech_s,
        "phonemes_per_s": len(phonemes) / facts.speech_s if phonemes and spoken else None,
        "pitch_median_hz": facts.value("pitch_median_hz"),
        "loudness_lufs": facts.value("loudness_db"),
        "syllables_per_s": facts.value("pace_syllables_per_s"),
        "female_probability": facts.value("female_probability"),
    }
    rounded = {name: _rounded(value) for name, value in columns.items()}
    return {"phonemes": phonemes, **rounded}


def _number(value: object) -> float | None:
    """A finite number, also as the text that a table has of it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


@dataclass(slots=True)
class Moments:
    """Count, mean and spread of numbers that come one by one (Welford)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float | None) -> None:
        """One more number; None is passed over."""
        if value is not None:
            self.count += 1
            away = value - self.mean
            self.mean += away / self.count
            self.squares += away * (value - self.mean)

    def z(self, value: float | None) -> float | None:
        """How many standard deviations a number is above the mean; None where the numbers do not
        differ, or are fewer than two."""
        if value is None or self.count < 2 or self.squares <= 1e-12 * self.count:
            return None
        return _rounded((value - self.mean) / math.sqrt(self.squares / self.count))


@dataclass(slots=True)
class Speaker:
    """What is known of a speaker by all of their utterances."""

    pitch_hz: Moments = field(default_factory=Moments)
    female: Moments = field(default_factory=Moments)
    by_name: dict[str, Moments] = field(default_factory=dict)
    """Of the numbers that z-scores are given of."""

    def add(self, row: Mapping[str, Any]) -> None:
        """One more utterance, with the columns of `utterance_columns`."""
        self.pitch_hz.add(row.get("utterance_pitch_mean"))
        self.female.add(row.get("female_probability"))
        for name, value in scored(row).items():
            self.by_name.setdefault(name, Moments()).add(value)

    def z_scores(self, row: Mapping[str, Any]) -> Row:
        """`pitch_z`, `loudness_z` and `pace_z` of an utterance among the speaker's."""
        return {
            name: self.by_name[name].z(value) if name in self.by_name else None
            for name, value in scored(row).items()
        }

    @property
    def gender(self) -> str | None:
        """By the mean probability; None where no utterance shows it."""
        if not self.female.count:
            return None
        return "female" if self.female.mean >= 0.5 else "male"


def scored(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers that z-scores are given of: pitch in semitones, LUFS, syllables a second."""
    median = row.get("pitch_median_hz")
    return {
        "pitch_z": 12 * math.log2(median) if median else None,
        "loudness_z": row.get("loudness_lufs"),
        "pace_z": row.get("syllables_per_s"),
    }


def statistics_of(rows: Iterable[tuple[str | None, Mapping[str, Any]]]) -> dict[str, Speaker]:
    """Speakers by name, of rows after their speaker; those without one count nowhere."""
    speakers: dict[str, Speaker] = {}
    for name, row in rows:
        if name is not None:
            speakers.setdefault(name, Speaker()).add(row)
    return speakers
