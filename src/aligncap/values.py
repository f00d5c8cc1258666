"""What the parts pass on to each other: frozen values, checked when they are made.

The data's way: file → Waveform → SpeechTokens → prompt → response → caption → Clue → Evidence →
Caption. Nothing here reads a file or needs more than numpy.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial, wraps
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import AudioError, DataError

RATE_HZ = 16_000
"""The sampling rate of every waveform inside the package."""

LANGUAGES = ("en", "zh")
"""The languages captions are written in; the speech may be in any."""

EMOTIONS = ("angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
"""The emotion categories a caption is turned back into; calm counts as neutral."""

VOCALIZATIONS = (
    "speech",
    "coughing",
    "crying",
    "laughing",
    "moaning",
    "panting",
    "screaming",
    "sighing",
    "sneezing",
    "throat-clearing",
    "yawning",
)
"""What a voice can do: speak, or one of the sounds without words that an encoder may tell."""

TRAITS = (
    "emotion",
    "tone",
    "intonation",
    "pitch",
    "pace",
    "volume",
    "voice quality",
    "gender",
)
"""What a clue can be about."""

Samples = NDArray[np.float32]
Vector = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Waveform:
    """Mono speech at 16 kHz: `samples` is float32, shape [time], in [-1, 1]; not to be changed.

    Compared by identity, so that what is computed of it once can be kept while it lives.
    """

    samples: Samples
    source: str = "array"
    """The file it came from, for messages."""
    at_rate: Callable[[int, int, int], Samples] | None = field(default=None, repr=False)
    """Reads the file again, at another rate and from one place of `samples` to another: what is
    above 8 kHz is not in `samples`. None for sound of no file."""

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise AudioError(f"{self.source}: a waveform is float32 of one dimension")
        if not np.isfinite(self.samples).all():
            raise AudioError(f"{self.source}: holds NaN or infinite samples; export it again")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / RATE_HZ

    def part(self, start: int, end: int) -> "Waveform":
        """The samples from `start` to `end`."""
        samples = self.samples[start:end]
        at_rate = self.at_rate and partial(_part_of, self.at_rate, start, start + len(samples))
        return Waveform(samples, self.source, at_rate)


def _part_of(
    whole: Callable[[int, int, int], Samples],
    first: int,
    last: int,
    rate_hz: int,
    start: int,
    end: int,
) -> Samples:
    return whole(rate_hz, min(first + start, last), min(first + end, last))


def once_per_waveform(function: Callable[[Waveform], T]) -> Callable[[Waveform], T]:
    """The function with its result kept while the waveform lives: the measured facts and the
    speech encoder need the same pitch, spectrum and activity."""
    results: WeakKeyDictionary[Waveform, T] = WeakKeyDictionary()

    @wraps(function)
    def remembered(waveform: Waveform) -> T:
        if waveform not in results:
            results[waveform] = function(waveform)
        return results[waveform]

    return remembered


@dataclass(frozen=True, slots=True)
class Fact:
    """One measured property of an utterance; `value` is None where the signal cannot tell."""

    name: str
    value: float | None
    unit: str
    confidence: float
    """0 (cannot tell) to 1."""
    reason: str = ""
    """Why it cannot be told; empty where it can."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise DataError(f"{self.name}: confidence is {self.confidence}, must be in [0, 1]")
        if (self.value is None) != bool(self.reason):
            raise DataError(f"{self.name}: a fact has either a value or a reason")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything measured in one utterance, by name."""

    duration_s: float
    speech_s: float
    """Seconds in which somebody speaks."""
    by_name: Mapping[str, Fact]

    def __getitem__(self, name: str) -> Fact:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.by_name.values())

    def __reduce__(self) -> tuple[object, ...]:
        """A view of a dict, which `by_name` may be, does not go to another process."""
        return Facts, (self.duration_s, self.speech_s, dict(self.by_name))

    def value(self, name: str) -> float | None:
        """The number measured, or None where the signal cannot tell."""
        return self.by_name[name].value


@dataclass(frozen=True, slots=True)
class Clue:
    """An emotional clue: a word of a caption and what it says of the voice (§3.1)."""

    word: str
    """As found, lower-cased lemma ("high-pitched", "低沉")."""
    trait: str
    meaning: str
    """Its synonym group: an emotion category, or "high", "fast", "trembling", "female" …"""
    polarity: int = 0
    """+1 more of the trait (high, loud, fast, pleasant), -1 less of it, 0 neither."""
    degree: float = 1.0
    """0.5 "slightly", 1 plain, 1.5 "extremely"."""
    negated: bool = False
    alternative: bool = False
    """Whether it is only what the clue before it might be as well: "angry" of "sad or angry"."""

    def __post_init__(self) -> None:
        if self.trait not in TRAITS:
            raise DataError(f"{self.word}: no trait called {self.trait!r}")


class Verdict(StrEnum):
    """What the signal says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A clue and the measurement that bears on it."""

    clue: Clue
    verdict: Verdict
    measurement: str
    """In words and units: "median pitch 231 Hz, 2.1 st above the expected 205 Hz"."""


@dataclass(frozen=True, slots=True)
class SpeechFeatures:
    """Vectors that a frozen speech encoder made of speech; those of one key are the same."""

    key: str
    read: Callable[[], NDArray[np.float32]] = field(compare=False, repr=False)
    """Gives the vectors, float32, shape [frames, width]: from memory, or each time from a cache."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32]) -> "SpeechFeatures":
        """Vectors in memory, by their content."""
        return cls(sha256(np.ascontiguousarray(vectors).tobytes()).hexdigest(), lambda: vectors)

    def of_frames(self, frames: NDArray[np.int64]) -> "SpeechFeatures":
        """Those of some frames only."""
        key = sha256(self.key.encode() + frames.tobytes()).hexdigest()
        return SpeechFeatures(key, lambda: self.read()[frames])


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """Speech as discrete tokens: `codes` is int64, shape [codebooks, frames].

    A speech encoder that gives vectors has one codebook of one entry: the codes count the frames,
    and the vectors are `features`.
    """

    codes: NDArray[np.int64]
    readout: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    """What the tokenizer's own heads read, e.g. {"emotion": {"sad": 0.9, …}}; may be empty."""
    vector: Vector | None = None
    """The utterance as one vector, shape [D]; a speaker's mean of them is their baseline. None
    where the tokenizer takes no baseline."""
    features: SpeechFeatures | None = None
    """One vector a frame, of a speech encoder that gives them."""

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.dtype != np.int64:
            raise DataError("speech tokens are int64 of shape [codebooks, frames]")

    def of_frames(self, frames: NDArray[np.int64]) -> "SpeechTokens":
        """Those of some frames only."""
        features = self.features and self.features.of_frames(frames)
        codes = np.ascontiguousarray(self.codes[:, frames])
        return SpeechTokens(codes, self.readout, self.vector, features)


class SpeechTokenizer(Protocol):
    """Turns a waveform into discrete tokens."""

    @property
    def name(self) -> str:
        """The name it is opened by."""

    @property
    def frame_rate_hz(self) -> float:
        """Tokens a second and codebook."""

    @property
    def codebook_size(self) -> int:
        """Entries of one codebook."""

    @property
    def codebooks(self) -> int:
        """How many codebooks it gives (1 = the first quantiser only, as in the paper)."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything its codes depend on: weights, depth, version."""

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The tokens of one utterance."""


class SpeakerTokenizer(SpeechTokenizer, Protocol):
    """A tokenizer whose readout may be relative to how the speaker usually sounds."""

    def encode(self, waveform: Waveform, baseline: Vector | None = None) -> SpeechTokens:
        """The tokens of one utterance; `baseline` is the mean vector of the speaker, shape [D]."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """How a speaker usually sounds: what is high, loud or fast for them is judged against it.

    The medians and the mean vector of their recordings; None where none of them could tell.
    """

    source: str
    """Whose it is and where it comes from: "speaker 03", "folder talks", "2 recordings"."""
    clips: int
    """How many recordings it is of; 0 where there is none."""
    pitch_hz: float | None = None
    loudness_db: float | None = None
    """LUFS."""
    pace_syllables_per_s: float | None = None
    vector: Vector | None = None
    """Shape [D], where the speech tokenizer gives vectors."""
    tokenizer: str = ""
    """The fingerprint of the tokenizer that gave `vector`."""
    reason: str = ""
    """Why there is none; empty where there is one."""

    def __post_init__(self) -> None:
        if (self.clips == 0) != bool(self.reason):
            raise DataError(f"baseline of {self.source}: has either recordings or a reason")

    def to_dict(self) -> dict[str, Any]:
        """As a record has it: the medians, or the reason."""
        record: dict[str, Any] = {"source": self.source, "clips": self.clips}
        if self.reason:
            return {**record, "reason": self.reason}
        for name in ("pitch_hz", "loudness_db", "pace_syllables_per_s"):
            number = getattr(self, name)
            record[name] = None if number is None else round(float(number), 2)
        return record


class Picture(Protocol):
    """Draws a caption with the recording it is of."""

    def html(self, caption: "Caption") -> str:
        """As a notebook shows it."""

    def figure(self, caption: "Caption") -> Any:
        """As a figure of matplotlib."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption of one utterance, its evidence, and what was estimated of the voice."""

    text: str
    language: str
    duration_s: float
    evidence: tuple[Evidence, ...]
    """Each clue of the caption with its verdict."""
    emotion: Mapping[str, float]
    """Probability of each emotion category; empty where nobody says words."""
    arousal: float | None
    """-1 (calm) to 1 (excited)."""
    valence: float | None
    """-1 (unpleasant) to 1 (pleasant)."""
    gender: str | None
    """"female", "male", or None where the signal cannot tell."""
    pitch: str | None
    """"low", "normal", "high", or None."""
    loudness: str | None
    """"quiet", "normal", "loud", or None."""
    pace: str | None
    """"slow", "normal", "fast", or None."""
    confidence: float
    """Probability of the emotion that the caption names, or else of the likeliest; of the
    vocalization, where nobody says words."""
    log_probability: float
    """Mean log-probability of the caption's tokens; 0 where the language model wrote none."""
    model: str
    candidates: tuple[str, ...] = ()
    """Other captions, best first, where several were asked for."""
    part_s: tuple[float, float] | None = None
    """Start and end of what the caption is of, where the recording is longer than the model
    reads; facts and evidence are of that part as well."""
    certainty: str | None = None
    """How sure the likeliest emotion, or the vocalization, is: "sure", "likely" or "unsure"."""
    second_emotion: str | None = None
    """An emotion that is about as likely as the likeliest; None where one stands out."""
    vocalization: str | None = None
    """What is heard in place of words: "coughing", "laughing" …; None where somebody speaks or
    the model cannot tell."""
    unfamiliar: bool | None = None
    """Whether the recording is unlike anything that the model learnt from; None where the model
    cannot tell."""
    baseline: Baseline | None = None
    """What it was judged against, where a baseline was asked for."""
    facts: Facts | None = field(default=None, repr=False, compare=False)
    """What was measured of the voice, each with its unit and confidence."""

    picture: Picture | None = field(default=None, repr=False, compare=False)
    """Draws it, where `Captioner.caption` was given a recording or a list of them."""

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str | None:
        return self.picture.html(self) if self.picture else None

    def plot(self) -> Any:
        """Waveform, pitch and loudness under the caption, as a figure of matplotlib.

        Raises DataError where the caption does not know its recording, AudioError where that is
        gone, MissingModelError without matplotlib.
        """
        if self.picture is None:
            raise DataError("caption: its recording is not known; make it by captioner.caption(…)")
        return self.picture.figure(self)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, as `aligncap caption` writes it; `part_s` only where the
        recording is longer than the model reads, `baseline` and `candidates` only where they were
        asked for."""
        record: dict[str, Any] = {
            "duration_s": round(self.duration_s, 3),
            "language": self.language,
            "caption": self.text,
            "clues": [
                {
                    "word": one.clue.word,
                    "trait": one.clue.trait,
                    "verdict": one.verdict.value,
                    "evidence": one.measurement,
                }
                for one in self.evidence
            ],
            "emotion": {label: round(float(share), 4) for label, share in self.emotion.items()}
            or None,
        }
        for name in ("arousal", "valence"):
            number = getattr(self, name)
            record[name] = None if number is None else round(float(number), 3)
        for name in ("gender", "pitch", "loudness", "pace"):
            record[name] = getattr(self, name)
        record["confidence"] = round(float(self.confidence), 4)
        for name in ("certainty", "second_emotion", "vocalization", "unfamiliar", "model"):
            record[name] = getattr(self, name)
        if self.baseline is not None:
            record["baseline"] = self.baseline.to_dict()
        if self.part_s is not None:
            record["part_s"] = [round(float(edge), 2) for edge in self.part_s]
        if self.candidates:
            record["candidates"] = list(self.candidates)
        return record
