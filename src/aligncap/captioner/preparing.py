"""Recordings as the captioner needs them: facts and speech tokens of the part with most speech,
relative to how the speaker usually sounds, where that is known."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

from aligncap.audio import load as load_audio
from aligncap.audio import speech_activity
from aligncap.clues import heard_facts
from aligncap.errors import DataError, NoSpeechError
from aligncap.prosody import measure
from aligncap.prosody.baseline import relative_to
from aligncap.values import (
    RATE_HZ,
    Baseline,
    Facts,
    SpeakerTokenizer,
    SpeechTokenizer,
    SpeechTokens,
    Waveform,
)

LOG = logging.getLogger(__name__)


class Spoken(NamedTuple):
    """A recording, and how its speaker usually sounds."""

    source: object
    """As `Captioner.caption` takes one."""
    baseline: Baseline | None


LEAST_VOCALIZATION = 0.5
"""The probability from which on a sound without words is named."""


@dataclass(frozen=True)
class PreparedSpeech:
    """One recording as the captioner needs it, without its samples."""

    duration_s: float
    """Of the whole recording."""
    part_s: tuple[float, float] | None
    """Start and end of the part that is captioned, where that is not all."""
    facts: Facts
    tokens: SpeechTokens
    baseline: Baseline | None = None
    """What facts and readout are relative to, where a baseline was asked for."""

    @cached_property
    def judged_facts(self) -> Facts:
        """What claims are judged by: the facts, with the gender that signal and encoder tell
        together."""
        return heard_facts(self.tokens.readout, self.facts)

    @cached_property
    def vocalization(self) -> str | None:
        """What is heard in place of words; None where somebody speaks or it cannot be told."""
        sounds = self.tokens.readout.get("vocalization", {})
        likeliest = max(sounds, key=sounds.__getitem__, default=None)
        if likeliest in (None, "speech") or sounds[likeliest] < LEAST_VOCALIZATION:
            return None
        return likeliest


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Turns recordings into facts and speech tokens; safe to share between threads."""

    tokenizer: SpeechTokenizer
    max_speech_s: float
    """Of a longer recording, only the window of this length with most speech is captioned."""

    def prepare(self, source: Path | Waveform, baseline: Baseline | None = None) -> PreparedSpeech:
        """Facts and tokens of a file or waveform, relative to the speaker's baseline if given.

        Raises AudioError where it cannot be read, NoSpeechError where it has no speech, DataError
        where the baseline is of another tokenizer.
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
        tokens = self._encode(part, baseline)
        if baseline is not None:
            facts = relative_to(facts, baseline)
        return PreparedSpeech(waveform.duration_s, part_s, facts, tokens, baseline)

    def _encode(self, part: Waveform, baseline: Baseline | None) -> SpeechTokens:
        if baseline is None or baseline.vector is None:
            return self.tokenizer.encode(part)
        if baseline.tokenizer != self.tokenizer.fingerprint:
            raise DataError(
                f"baseline of {baseline.source}: was made with another model; make it with this one"
            )
        return cast(SpeakerTokenizer, self.tokenizer).encode(part, baseline.vector)


def warn_of_part(source: Path | Waveform, speech: PreparedSpeech) -> None:
    """Log that the caption is of a part only, where it is."""
    if speech.part_s is not None:
        LOG.warning(
            "%s: %.0f s long; the caption is of %.1f to %.1f s, where most is said",
            source.source if isinstance(source, Waveform) else source,
            speech.duration_s,
            *speech.part_s,
        )


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
