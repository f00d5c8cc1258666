"""What is heard before anything is said: speech found, measured, and turned into tokens.

Which of a model's wordings is told: what the model, the tokenizer's heads and the signal say.

A beam search ranks by the language model alone. Beside it stand two witnesses that cost nothing:
the heads, which heard the emotion without a detour over words, and the measured facts.

From what the model says and the signal shows to one `Caption`.

A captioner without ears: it writes captions of speech tokens that are there already.

Sound in, captions out: the whole way, with its parts handed in.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from aligncap.audio import from_array, load, speech_activity
from aligncap.captioner.checkpoint import ModelMeta
from aligncap.captioner.prompts import PromptBuilder, student_acoustic_prompt
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis, LanguageRuntime
from aligncap.clues import arousal_valence, audible_gender, emotion_of, find_clues, judge, levels
from aligncap.errors import AlignCapError, AudioError, NoSpeechError, RecipeError, UnknownNameError
from aligncap.prosody import measure
from aligncap.values import (
    EMOTIONS,
    RATE_HZ,
    Caption,
    Evidence,
    Facts,
    SpeechTokenizer,
    SpeechTokens,
    Verdict,
    Waveform,
)

LOG = logging.getLogger(__name__)

Segments = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PreparedSpeech:
    """One recording as the captioner needs it; its samples are let go."""

    duration_s: float
    """Of the whole recording."""
    part_s: tuple[float, float] | None
    """Start and end of what was listened to, where that is not all."""
    facts: Facts
    tokens: SpeechTokens


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Listens to recordings, from several threads at once if need be."""

    tokenizer: SpeechTokenizer
    max_speech_s: float
    """Of a longer recording, only the stretch of this length with most speech is heard."""

    def listen(self, source: Path | Waveform) -> PreparedSpeech:
        """What a file or waveform holds.

        Raises AudioError where it cannot be read, NoSpeechError where nobody speaks.
        """
        waveform = source if isinstance(source, Waveform) else load(source)
        part_s = None
        heard = waveform
        if waveform.duration_s > self.max_speech_s:
            part_s = densest_window(
                speech_activity(waveform), waveform.duration_s, self.max_speech_s
            )
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
        return PreparedSpeech(waveform.duration_s, part_s, facts, self.tokenizer.encode(heard))


def densest_window(segments: Segments, duration_s: float, longest_s: float) -> tuple[float, float]:
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


HEADS_WEIGHT = 0.1
"""What the log-probability of the emotion named counts beside the mean one of the tokens."""
CONTRADICTED_COST = 0.1
"""Of each claim that the signal contradicts, in nats a token."""
LEAST = 0.01
"""Probability of an emotion that the heads all but exclude, and of naming none."""


@dataclass(frozen=True, slots=True)
class CaptionHypothesis:
    """One caption the model gives, and what it thinks of it."""

    text: str
    hypothesis: Hypothesis


def rerank(
    wordings: Sequence[CaptionHypothesis], utterance: PreparedSpeech, *, language: str
) -> list[CaptionHypothesis]:
    """The wordings by mean log-probability, what the heads think of the emotion they name, and
    the claims that the signal contradicts; equally credible ones stay in their order."""
    emotions = utterance.tokens.readout.get("emotion", {})

    def credibility(wording: CaptionHypothesis) -> float:
        clues = find_clues(wording.text, language)
        verdicts = [evidence.verdict for evidence in judge(clues, utterance.facts)]
        return (
            wording.hypothesis.mean_log_probability
            + HEADS_WEIGHT * log_chance(emotions, emotion_of(clues))
            - CONTRADICTED_COST * verdicts.count(Verdict.CONTRADICTED)
        )

    return sorted(wordings, key=credibility, reverse=True)


def log_chance(emotions: Mapping[str, float], named: str | None) -> float:
    """The log-probability that the heads give an emotion; 0 where there are no heads."""
    if not emotions:
        return 0.0
    return math.log(max(emotions.get(named or "", 0.0), LEAST))


def build_caption(
    wordings: Sequence[CaptionHypothesis],
    utterance: PreparedSpeech,
    *,
    language: str,
    candidates: int,
    evidence: bool,
    model: str,
) -> Caption:
    """The most credible wording with everything known beside it.

    `wordings` are all the model gave; of them `candidates` are told. Without
    `evidence` the clues are not judged.
    """
    wordings = rerank(wordings, utterance, language=language)
    best = wordings[0]
    clues = find_clues(best.text, language)
    judged: tuple[Evidence, ...] = judge(clues, utterance.facts) if evidence else ()
    emotion = _from_heads(utterance.tokens.readout) or emotion_of_hypotheses(wordings, language)
    arousal, valence = arousal_valence(clues)
    shown = levels(utterance.facts)
    return Caption(
        text=best.text,
        language=language,
        duration_s=utterance.duration_s,
        evidence=judged,
        emotion=emotion,
        arousal=arousal,
        valence=valence,
        gender=audible_gender(utterance.tokens.readout, utterance.facts),
        pitch=shown.pitch,
        loudness=shown.loudness,
        pace=shown.pace,
        confidence=emotion.get(emotion_of(clues) or "", 0.0),
        log_probability=best.hypothesis.mean_log_probability,
        model=model,
        candidates=_others(wordings, candidates),
        part_s=utterance.part_s,
    )


def emotion_of_hypotheses(wordings: Sequence[CaptionHypothesis], language: str) -> dict[str, float]:
    """Probability of each emotion: the share that the wordings naming it have of all that name one.

    Even over all emotions where no wording names any.
    """
    named = [emotion_of(find_clues(wording.text, language)) for wording in wordings]
    weights = np.exp(_below_zero([wording.hypothesis.log_probability for wording in wordings]))
    shares = dict.fromkeys(EMOTIONS, 0.0)
    for emotion, weight in zip(named, weights, strict=True):
        if emotion in shares:
            shares[emotion] += float(weight)
    return _normalised(shares)


def _from_heads(heads: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    read = heads.get("emotion", {})
    return _normalised({name: read.get(name, 0.0) for name in EMOTIONS}) if read else {}


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    if total <= 0.0:
        return dict.fromkeys(shares, 1.0 / len(shares))
    return {name: share / total for name, share in shares.items()}


def _below_zero(log_probabilities: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    # Only ratios count, and the exponential of a long caption's would be 0.
    values = np.array(log_probabilities, dtype=np.float64)
    shifted: np.ndarray[tuple[int], np.dtype[np.float64]] = values - values.max()
    return shifted


def _others(wordings: Sequence[CaptionHypothesis], candidates: int) -> tuple[str, ...]:
    texts = list(dict.fromkeys(wording.text for wording in wordings))
    return tuple(texts[1:candidates])


Spoken = tuple[SpeechTokens, str]
"""Speech tokens, and P_act beside them; "" where there is none."""


@dataclass(frozen=True, slots=True)
class CaptionGenerator:
    """A language model with its prompts."""

    meta: ModelMeta
    prompts: PromptBuilder
    runtime: LanguageRuntime

    def options(self, beam_size: int = 1) -> DecodeOptions:
        """Greedy or beam search within the model's limits."""
        limits = self.meta.limits
        return DecodeOptions(
            beam_size=beam_size, min_length=limits.min_tokens, max_length=limits.max_tokens
        )

    def write(
        self, spoken: Sequence[Spoken], *, language: str, options: DecodeOptions
    ) -> list[tuple[CaptionHypothesis, ...]]:
        """For each, all captions that are asked for, best first."""
        asked = [
            self.prompts.student(tokens, language=language, act=act).ids for tokens, act in spoken
        ]
        decode = self.prompts.vocabulary.decode
        return [
            tuple(CaptionHypothesis(decode(one.ids).strip(), one) for one in found)
            for found in self.runtime.generate(asked, options)
        ]


Array = NDArray[np.generic]
Source = str | Path | Waveform
"""A recording: a file, or sound in memory."""

Several = TypeVar("Several", bound=Source | Array)

LARGEST_BATCH = 64
"""Recordings captioned together, at most."""


@dataclass(frozen=True, slots=True)
class CaptionCandidates:
    """A recording that was listened to, and everything the model says of it, best first."""

    utterance: PreparedSpeech
    wordings: tuple[CaptionHypothesis, ...]


class Captioner:
    """Captions recordings; `aligncap.load` makes one."""

    def __init__(
        self,
        meta: ModelMeta,
        prompts: PromptBuilder,
        listener: Preprocessor,
        runtime: LanguageRuntime,
        *,
        options: DecodeOptions,
        workers: int = 1,
    ) -> None:
        """`workers` recordings are listened to at a time when there are several."""
        self.meta = meta
        self.options = options
        self._prompts = prompts
        self._listener = listener
        self._runtime = runtime
        self._workers = workers

    @overload
    def caption(
        self,
        source: Source | Array,
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
    ) -> Caption: ...

    @overload
    def caption(
        self,
        source: list[Several] | tuple[Several, ...],
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
    ) -> list[Caption]: ...

    def caption(
        self,
        source: Source | Array | list[Several] | tuple[Several, ...],
        *,
        rate_hz: int | None = None,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
    ) -> Caption | list[Caption]:
        """The caption of a recording, or those of several in their order.

        A recording is a file, a Waveform, or an array of samples ([time] or [time, channels])
        together with `rate_hz`. With `candidates` above 1, the record holds other captions too.
        Raises AudioError for a recording that cannot be read, NoSpeechError where nobody speaks,
        UnknownNameError for a language the model does not write; of several recordings, for the
        first that fails (`caption_many` goes on).
        """
        several = source if isinstance(source, list | tuple) else [source]
        sources = [_in_memory(item, rate_hz) for item in several]
        outcomes = self.caption_many(
            sources, language=language, candidates=candidates, evidence=evidence
        )
        captions = []
        for outcome in outcomes:
            if isinstance(outcome, AlignCapError):
                raise outcome
            captions.append(outcome)
        return captions if isinstance(source, list | tuple) else captions[0]

    def caption_many(
        self,
        sources: Iterable[Source],
        *,
        language: str = "en",
        candidates: int = 1,
        evidence: bool = True,
    ) -> Iterator[Caption | AlignCapError]:
        """For each recording its caption, or what is wrong with it, in order, as they are ready.

        `sources` is read a little ahead: some are listened to while others are captioned, in
        batches that grow from a few to `LARGEST_BATCH`, so that the first caption comes soon.
        """
        if candidates < 1:
            raise RecipeError(f"candidates is {candidates}, must be at least 1")
        # All beams are asked for: what they name together says how sure the model is.
        beams = max(self.options.beam_size, candidates)
        options = replace(self.options, beam_size=beams, captions=beams)
        outcomes = self.hear_many(sources, language=language, options=options)
        return (
            one
            if isinstance(one, AlignCapError)
            else build_caption(
                one.wordings,
                one.utterance,
                language=language,
                candidates=candidates,
                evidence=evidence,
                model=self.meta.name,
            )
            for one in outcomes
        )

    def hear_many(
        self, sources: Iterable[Source], *, language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        """For each recording all `options` ask the model for, or what is wrong with it.

        Reads ahead and batches as `caption_many` does.
        """
        if language not in self.meta.languages:
            raise UnknownNameError("caption language", language, self.meta.languages)
        return self._stream(iter(sources), language, options)

    def _stream(
        self, sources: Iterator[Source], language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="listen")
        # Several threads that each wait for all threads of BLAS take four times as long.
        with ExitStack() as stack:
            stack.callback(pool.shutdown, cancel_futures=True)
            stack.enter_context(threadpool_limits(1, user_api="blas"))
            size = self._workers
            batch = self._start(pool, sources, size)
            while batch:
                size = min(2 * size, LARGEST_BATCH)
                # The next batch is listened to while this one is captioned.
                following = self._start(pool, sources, size)
                heard = [future.result() for future in batch]
                yield from self._say(heard, language, options)
                batch = following

    def _start(
        self, pool: ThreadPoolExecutor, sources: Iterator[Source], count: int
    ) -> list[Future[PreparedSpeech | AlignCapError]]:
        return [pool.submit(self._listen, source) for source in islice(sources, count)]

    def _listen(self, source: Source) -> PreparedSpeech | AlignCapError:
        try:
            return self._listener.listen(Path(source) if isinstance(source, str) else source)
        except AlignCapError as error:
            return error

    def _say(
        self, batch: Sequence[PreparedSpeech | AlignCapError], language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        """What to say of each; the batch is captioned in one go."""
        heard = [one for one in batch if isinstance(one, PreparedSpeech)]
        prompts = [self._prompt(one, language) for one in heard]
        found = iter(self._runtime.generate(prompts, options) if prompts else [])
        for one in batch:
            yield one if isinstance(one, AlignCapError) else self._heard(one, next(found))

    def _prompt(self, utterance: PreparedSpeech, language: str) -> tuple[int, ...]:
        """P_act where the model was trained with it, speech, P_instruct (Eq. 4, decision 5)."""
        act = student_acoustic_prompt(
            self.meta.act_mode, utterance.facts, utterance.tokens, language
        )
        return self._prompts.student(utterance.tokens, language=language, act=act).ids

    def _heard(
        self, utterance: PreparedSpeech, hypotheses: Sequence[Hypothesis]
    ) -> CaptionCandidates:
        decode = self._prompts.vocabulary.decode
        return CaptionCandidates(
            utterance, tuple(CaptionHypothesis(decode(one.ids).strip(), one) for one in hypotheses)
        )


def _in_memory(source: Source | Array, rate_hz: int | None) -> Source:
    if not isinstance(source, np.ndarray):
        return source
    if rate_hz is None:
        raise AudioError("an array of samples has no sampling rate of its own; give rate_hz")
    return from_array(source, rate_hz)
