"""What other ears than the measurement's own hear: the pace by a speech encoder, in place of the
one that syllable nuclei give; when somebody speaks by a detector, where nothing else hears it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from aligncap.prosody.measurement import LEAST_SPEECH_S, measure_spoken
from aligncap.values import RATE_HZ, Fact, Facts, Waveform

HEARD_UNIT = "syllables/s heard by the speech encoder"

HIDDEN = "speech is hidden in noise"
"""Why nothing can be measured of what only a detector hears."""

STANDS_OUT_DB = 10.0
"""How much louder than the rest of a recording what a detector hears must be to be measured: the
noise in it then adds less than half a decibel."""

Readout = Mapping[str, Mapping[str, float]]


def is_taught_pace(readout: Readout) -> bool:
    """Whether transcripts taught an encoder the pace: those do that also tell vocalizations; a head
    without them learnt to count syllable nuclei."""
    return "pace" in readout and "vocalization" in readout


def with_heard_pace(facts: Facts, readout: Readout) -> Facts:
    """The facts with the pace that a speech encoder heard, where one taught by transcripts did.

    `readout` is that of the same recording's tokens; its rate is a second of speech, the fact's a
    second from the first speech to the last, pauses included.
    """
    rate = readout.get("pace", {}).get("syllables_per_s")
    if rate is None or not is_taught_pace(readout) or facts.speech_s < LEAST_SPEECH_S:
        return facts
    paused = facts.by_name.get("pause_share")
    speaking = 1.0 - (paused.value or 0.0) if paused else 1.0
    sure = min(1.0, rate * facts.speech_s / 6)  # six syllables
    pace = Fact("pace_syllables_per_s", rate * speaking, HEARD_UNIT, max(0.0, sure))
    return replace(facts, by_name=MappingProxyType({**facts.by_name, pace.name: pace}))


def measure_detected(waveform: Waveform, spoken: Sequence[tuple[float, float]]) -> Facts:
    """The facts of speech that only a detector hears, from start to end in seconds.

    Where it does not stand out from the rest of the recording, they would be the noise's: none of
    them has a value. Pauses neither: what the detector misses is no pause.
    """
    facts = measure_spoken(waveform, spoken)
    if _above_rest_db(waveform, spoken) >= STANDS_OUT_DB:
        return facts
    hidden = {name: Fact(name, None, one.unit, 0.0, HIDDEN) for name, one in facts.by_name.items()}
    return replace(facts, by_name=MappingProxyType(hidden))


def _above_rest_db(waveform: Waveform, spoken: Sequence[tuple[float, float]]) -> float:
    """How much louder some stretches are than the rest; 0 where either is empty or silent."""
    inside = np.zeros(len(waveform.samples), dtype=bool)
    for start, end in spoken:
        inside[round(start * RATE_HZ) : round(end * RATE_HZ)] = True
    if inside.all() or not inside.any():
        return 0.0
    power, rest = (waveform.samples[part].var(dtype=np.float64) for part in (inside, ~inside))
    return 10 * math.log10(max(power, 1e-12) / max(rest, 1e-12))
