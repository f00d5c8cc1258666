"""How a speaker usually sounds, from their recordings, and facts relative to that.

Whether a voice is high, loud or fast depends on whose it is, on the microphone and on its distance.
A speaker's baseline is the medians of pitch, loudness and pace over their recordings, and the mean
of the vectors that the speech encoder makes of them.
"""

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import sub, truediv
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import AlignCapError
from aligncap.values import Baseline, Fact, Facts, Vector

LEAST_CLIPS = 3
"""Recordings that make a speaker's baseline, where the speaker is taken from the recordings."""

USUAL_PITCH, USUAL_LOUDNESS, USUAL_PACE = "usual_pitch_st", "usual_loudness_db", "usual_pace_ratio"
"""Facts relative to a baseline: semitones, decibels and times the usual."""

_MEASURED = ("pitch_median_hz", "loudness_db", "pace_syllables_per_s")

Measured = tuple[Facts, Vector | None]
"""What was measured of a recording, and its vector where the encoder gives one."""


def baseline_of(measured: Iterable[Measured], source: str, *, tokenizer: str = "") -> Baseline:
    """The baseline of a speaker from at least one recording of theirs."""
    voice = _Voice()
    for facts, vector in measured:
        voice.add(facts, vector)
    return voice.baseline(source, tokenizer)


def baselines_of(
    measured: Sequence[Measured | None],
    speakers: Sequence[Hashable | None],
    *,
    kind: str = "speaker",
    tokenizer: str = "",
) -> list[Baseline]:
    """For each recording the baseline of its speaker, from the speaker's other recordings.

    Where they are too few, it counts itself; where with it they are fewer than `LEAST_CLIPS`,
    there is none. `measured` is None for a recording that cannot be used; `kind` says in words
    what `speakers` are ("speaker", "folder").
    """
    found: dict[int, Baseline] = {}
    of: dict[Hashable, list[int]] = {}
    for place, speaker in enumerate(speakers):
        if speaker is None:
            found[place] = Baseline(f"no {kind}", 0, reason=f"its {kind} is not known")
        else:
            of.setdefault(speaker, []).append(place)
    for speaker, places in of.items():
        source = f"{kind} {speaker}"
        usable = [place for place in places if measured[place] is not None]
        if len(usable) < LEAST_CLIPS:
            found |= dict.fromkeys(places, _too_few(source, len(usable)))
            continue
        rows = [row for place in usable if (row := measured[place]) is not None]
        own = dict(zip(usable, _without_each(rows, source, tokenizer), strict=True))
        whole = baseline_of(rows, source, tokenizer=tokenizer)
        found |= {place: own.get(place, whole) for place in places}
    return [found[place] for place in range(len(speakers))]


def voices_of(
    recordings: Iterable[tuple[str, Any]],
    measure: Callable[[Iterator[Any]], Iterable[Measured | AlignCapError]],
    tokenizer: str = "",
) -> dict[str, Baseline]:
    """The baseline of each speaker from all their recordings, pairs of both; `measure` says what is
    measured of each recording. Of a recording no vector is kept: speakers may be many."""
    speakers: deque[str] = deque()
    voices: dict[str, _Voice] = {}

    def heard() -> Iterator[Any]:
        for speaker, one in recordings:
            speakers.append(speaker)
            yield one

    for found in measure(heard()):
        voice = voices.setdefault(speakers.popleft(), _Voice())
        if not isinstance(found, AlignCapError):
            voice.add(*found)
    return {
        name: one.baseline(f"speaker {name}", tokenizer, least=LEAST_CLIPS)
        for name, one in voices.items()
    }


@dataclass(slots=True)
class _Voice:
    """What is measured of a speaker so far."""

    numbers: list[NDArray[np.float64]] = field(default_factory=list)
    total: NDArray[np.float64] | None = None
    vectors: int = 0

    def add(self, facts: Facts, vector: Vector | None) -> None:
        """One more recording."""
        self.numbers.append(_numbers([facts])[0])
        if vector is not None:
            total = np.zeros(len(vector)) if self.total is None else self.total
            self.total = total + vector
            self.vectors += 1

    def baseline(self, source: str, tokenizer: str, *, least: int = 1) -> Baseline:
        """Of all recordings; without numbers where they are fewer than `least`."""
        if len(self.numbers) < least:
            return _too_few(source, len(self.numbers))
        mean = None if self.total is None else np.asarray(self.total / self.vectors, np.float32)
        return _baseline(source, len(self.numbers), np.stack(self.numbers), mean, tokenizer)


def _too_few(source: str, usable: int) -> Baseline:
    reason = f"it needs {LEAST_CLIPS} utterances, {usable} can be used"
    return Baseline(source, 0, reason=reason)


def _without_each(rows: Sequence[Measured], source: str, tokenizer: str) -> list[Baseline]:
    """The baseline of the other rows, for each row; of all of them where the others are few."""
    if len(rows) <= LEAST_CLIPS:
        return [baseline_of(rows, source, tokenizer=tokenizer)] * len(rows)
    numbers = _numbers(facts for facts, _ in rows)
    total = np.sum([row for _, row in rows if row is not None], axis=0, dtype=np.float64)
    found = []
    for place, (_, vector) in enumerate(rows):
        mean = None
        if vector is not None:
            mean = np.asarray((total - vector) / (len(rows) - 1), np.float32)
        others = np.delete(numbers, place, axis=0)
        found.append(_baseline(source, len(others), others, mean, tokenizer))
    return found


def _numbers(facts: Iterable[Facts]) -> NDArray[np.float64]:
    """Pitch, loudness and pace of some recordings, NaN where one cannot be told; [clips, 3]."""
    return np.array([[one.value(name) for name in _MEASURED] for one in facts], np.float64)


def _baseline(
    source: str, clips: int, numbers: NDArray[np.float64], mean: Vector | None, tokenizer: str
) -> Baseline:
    pitch_hz, loudness_db, pace = (
        float(np.median(known)) if len(known := column[~np.isnan(column)]) else None
        for column in numbers.T
    )
    fingerprint = tokenizer if mean is not None else ""
    return Baseline(source, clips, pitch_hz, loudness_db, pace, mean, fingerprint)


def relative_to(facts: Facts, baseline: Baseline) -> Facts:
    """The facts, and beside them pitch, loudness and pace relative to a baseline, where both it and
    the recording can tell."""
    ways = (
        ("pitch_median_hz", baseline.pitch_hz, USUAL_PITCH, "st", _semitones),
        ("loudness_db", baseline.loudness_db, USUAL_LOUDNESS, "dB", sub),
        ("pace_syllables_per_s", baseline.pace_syllables_per_s, USUAL_PACE, "", truediv),
    )
    added = {
        name: Fact(name, compared(one.value, usual), unit, one.confidence)
        for measured, usual, name, unit, compared in ways
        if usual is not None
        and (one := facts.by_name.get(measured)) is not None
        and one.value is not None
    }
    return Facts(facts.duration_s, facts.speech_s, MappingProxyType({**facts.by_name, **added}))


def _semitones(hertz: float, usual_hz: float) -> float:
    return 12 * math.log2(hertz / usual_hz)
