"""What is heard before anything is said: speech found, measured, and turned into tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncap.acoustics import measure
from aligncap.audio import load, speech_activity
from aligncap.errors import NoSpeechError
from aligncap.values import RATE_HZ, Facts, SpeechTokenizer, SpeechTokens, Waveform

LOG = logging.getLogger(__name__)

Segments = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording as the captioner needs it; its samples are let go."""

    duration_s: float
    """Of the whole recording."""
    part_s: tuple[float, float] | None
    """Start and end of what was listened to, where that is not all."""
    facts: Facts
    tokens: SpeechTokens


@dataclass(frozen=True, slots=True)
class Listener:
    """Listens to recordings, from several threads at once if need be."""

    tokenizer: SpeechTokenizer
    max_speech_s: float
    """Of a longer recording, only the stretch of this length with most speech is heard."""

    def listen(self, source: Path | Waveform) -> Utterance:
        """What a file or waveform holds.

        Raises AudioError where it cannot be read, NoSpeechError where nobody speaks.
        """
        waveform = source if isinstance(source, Waveform) else load(source)
        part_s = None
        heard = waveform
        if waveform.duration_s > self.max_speech_s:
            part_s = busiest_part(speech_activity(waveform), waveform.duration_s, self.max_speech_s)
            heard = _cut(waveform, part_s)
        facts = measure(heard)
        if not facts.speech_s:
            raise NoSpeechError(
                f"{waveform.source}: nobody speaks in it; give a recording with speech"
            )
        if part_s is not None:
            LOG.warning(
                "%s: %.0f s long; the caption is of %.1f to %.1f s, where most is said",
                waveform.source,
                waveform.duration_s,
                *part_s,
            )
        return Utterance(waveform.duration_s, part_s, facts, self.tokenizer.encode(heard))


def busiest_part(segments: Segments, duration_s: float, longest_s: float) -> tuple[float, float]:
    """The stretch of `longest_s` in which most is said, the first of them.

    `segments` are start and end of what is said, in seconds; the recording is longer than that.
    """
    latest = duration_s - longest_s
    # The best stretch can be moved until it begins or ends with a segment.
    starts = [start for start, _ in segments] + [end - longest_s for _, end in segments]
    within = sorted({0.0, *(min(max(start, 0.0), latest) for start in starts)})
    best = max(within, key=lambda start: _speech_s(segments, start, start + longest_s))
    return best, best + longest_s


def _speech_s(segments: Segments, start_s: float, end_s: float) -> float:
    return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in segments)


def _cut(waveform: Waveform, part_s: tuple[float, float]) -> Waveform:
    start, end = (round(time * RATE_HZ) for time in part_s)
    return Waveform(waveform.samples[start:end], waveform.source)
