"""Recordings as the captioner needs them: facts and speech tokens of the part with most speech."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncap.audio import load as load_audio
from aligncap.audio import speech_activity
from aligncap.errors import NoSpeechError
from aligncap.prosody import measure
from aligncap.values import RATE_HZ, Facts, SpeechTokenizer, SpeechTokens, Waveform

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedSpeech:
    """One recording as the captioner needs it, without its samples."""

    duration_s: float
    """Of the whole recording."""
    part_s: tuple[float, float] | None
    """Start and end of the part that is captioned, where that is not all."""
    facts: Facts
    tokens: SpeechTokens


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Turns recordings into facts and speech tokens; safe to share between threads."""

    tokenizer: SpeechTokenizer
    max_speech_s: float
    """Of a longer recording, only the window of this length with most speech is captioned."""

    def prepare(self, source: Path | Waveform) -> PreparedSpeech:
        """Facts and tokens of a file or waveform.

        Raises AudioError where it cannot be read, NoSpeechError where it has no speech.
        """
        waveform = source if isinstance(source, Waveform) else load_audio(source)
        part_s, part = None, waveform
        if waveform.duration_s > self.max_speech_s:
            part_s = densest_window(
                speech_activity(waveform), waveform.duration_s, self.max_speech_s
            )
            start, end = (round(time * RATE_HZ) for time in part_s)
            part = Waveform(waveform.samples[start:end], waveform.source)
        facts = measure(part)
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
        return PreparedSpeech(waveform.duration_s, part_s, facts, self.tokenizer.encode(part))


def densest_window(
    segments: Sequence[tuple[float, float]], duration_s: float, window_s: float
) -> tuple[float, float]:
    """The first window of `window_s` that holds most speech.

    `segments` are start and end of speech in seconds; `duration_s`, the recording's, is longer.
    """

    def speech_s(start_s: float) -> float:
        end_s = start_s + window_s
        return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in segments)

    # The best window can be moved until it begins or ends with a segment.
    starts = [start for start, _ in segments] + [end - window_s for _, end in segments]
    latest = duration_s - window_s
    best = max(sorted({0.0, *(min(max(start, 0.0), latest) for start in starts)}), key=speech_s)
    return best, best + window_s
