"""The pace that a speech encoder hears, in place of the one that syllable nuclei give."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from aligncap.prosody.measurement import LEAST_SPEECH_S
from aligncap.values import Fact, Facts

HEARD_UNIT = "syllables/s heard by the speech encoder"

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
