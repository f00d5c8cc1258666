"""Recordings as the captioner needs them: facts and speech tokens of the part with most speech,
relative to how the speaker usually sounds, where that is known."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from threadpoolctl import ThreadpoolController

from aligncap.audio import SpeechDetector, sound_kind, speech_activity
from aligncap.audio import load as load_audio
from aligncap.clues import heard_facts
from aligncap.errors import DataError, NoSpeechError
from aligncap.prosody import measure, measure_detected, with_heard_pace
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


@cache
def _libraries() -> ThreadpoolController:
    # To look for them takes a few milliseconds, a twentieth of a short caption's time.
    return ThreadpoolController()


def one_thread_of_blas() -> AbstractContextManager[object]:
    """Within it BLAS uses one thread: several threads that each wait for all threads of BLAS take
    four times as long."""
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


LARGEST_BATCH = 256
"""Recordings captioned together, at most; prompts of one length share a pass of the language model,
and among more there are more of one length."""
LARGEST_AHEAD = 64
"""The same where the samples of the next ones wait in memory."""

Given = TypeVar("Given")
Prepared = TypeVar("Prepared")


def batches(
    sources: Iterator[Given], prepare: Callable[[Given], Prepared], workers: int
) -> Generator[list[Prepared]]:
    """What `prepare` makes of each recording, in batches that grow from a few on.

    By several workers the next batch is prepared while one is used. A single one has one core: a
    second thread would only take that, and its caches, from the first.
    """
    largest = LARGEST_BATCH if workers == 1 else LARGEST_AHEAD
    sizes = accumulate(repeat(workers), lambda size, _: min(4 * size, largest))
    with one_thread_of_blas():
        if workers > 1:
            yield from _read_ahead(sources, prepare, workers, sizes)
            return
        for size in sizes:
            if not (batch := [prepare(source) for source in islice(sources, size)]):
                return
            yield batch


def _read_ahead(
    sources: Iterator[Given],
    prepare: Callable[[Given], Prepared],
    workers: int,
    sizes: Iterator[int],
) -> Generator[list[Prepared]]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="preprocess")

    def start() -> list[Future[Prepared]]:
        return [pool.submit(prepare, source) for source in islice(sources, next(sizes))]

    try:
        batch = start()
        while batch:
            following = start()
            yield [future.result() for future in batch]
            batch = following
    finally:
        pool.shutdown(cancel_futures=True)


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
    detector: SpeechDetector | None = None
    """What tells speech from music, machines and animals; without it, what is not steady passes."""

    def prepare(self, source: Path | Waveform, baseline: Baseline | None = None) -> PreparedSpeech:
        """Facts and tokens of a file or waveform, relative to the speaker's baseline if given.

        Raises AudioError where it cannot be read, NoSpeechError where it has no speech, DataError
        where the baseline is of another tokenizer.
        """
        waveform = source if isinstance(source, Waveform) else load_audio(source)
        part_s, part = None, waveform
        if waveform.duration_s > self.max_speech_s:
            part_s = densest_window(self._spoken(waveform), waveform.duration_s, self.max_speech_s)
            start, end = (round(time * RATE_HZ) for time in part_s)
            part = waveform.part(start, end)
        if self.detector and not self.detector.hears_speech(part.samples):
            tokens = self._encode_vocalization(part, baseline)
            facts = measure(part)
        else:
            facts = self._measured(part)
            tokens = self._encode(part, baseline)
        facts = with_heard_pace(facts, tokens.readout)
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

    def _spoken(self, waveform: Waveform) -> list[tuple[float, float]]:
        """Where somebody speaks, by the detector if there is one."""
        found = self.detector.spans(waveform.samples) if self.detector else []
        return found or speech_activity(waveform)

    def _measured(self, part: Waveform) -> Facts:
        """The facts of what should be speech; NoSpeechError where there is none."""
        facts = measure(part)
        if facts.speech_s:
            return facts
        if spoken := self._spoken(part):  # in noise that hides it from the measurement's own ear
            return measure_detected(part, spoken)
        raise no_speech(part.source, "")

    def _encode_vocalization(self, part: Waveform, baseline: Baseline | None) -> SpeechTokens:
        """The tokens of a sound without words; NoSpeechError where it is none of a person, who may
        cough or laugh."""
        kind = sound_kind(part.samples)
        if kind != "silence":
            tokens = self._encode(part, baseline)
            if is_vocalization(tokens.readout):
                return tokens
        raise no_speech(part.source, kind)


def warn_of_part(source: Path | Waveform, speech: PreparedSpeech) -> None:
    """Log that the caption is of a part only, where it is."""
    if speech.part_s is not None:
        LOG.warning(
            "%s: %.0f s long; the caption is of %.1f to %.1f s, where most is said",
            source.source if isinstance(source, Waveform) else source,
            speech.duration_s,
            *speech.part_s,
        )


SURE_VOCALIZATION = 0.8
"""The probability from which on a sound in which no speech is heard counts as a person's."""
MOST_NOVELTY = 0.99


def is_vocalization(readout: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether an encoder is sure that it hears a cough, a laugh or another sound without words,
    and that the sound is like those it learnt from."""
    heard = {name: p for name, p in readout.get("vocalization", {}).items() if name != "speech"}
    novelty = readout.get("novelty", {}).get("score", 0.0)
    return max(heard.values(), default=0.0) >= SURE_VOCALIZATION and novelty < MOST_NOVELTY


def no_speech(source: str, kind: str) -> NoSpeechError:
    """The error for a sound in which nobody speaks; `kind` is what is heard instead."""
    heard = f": {kind}" if kind else ""
    return NoSpeechError(f"{source}: no speech in it{heard}; give a recording of somebody speaking")


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
