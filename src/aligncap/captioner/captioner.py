"""Sound in, captions out: the whole way, with its parts handed in."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from aligncap.audio import from_array
from aligncap.captioner.acting import student_act
from aligncap.captioner.listening import Listener, Utterance
from aligncap.captioner.meta import ModelMeta
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.record import Wording, build_caption
from aligncap.captioner.runtime import DecodeOptions, Hypothesis, LanguageRuntime
from aligncap.errors import AlignCapError, AudioError, RecipeError, UnknownNameError
from aligncap.values import Caption, Waveform

Array = NDArray[np.generic]
Source = str | Path | Waveform
"""A recording: a file, or sound in memory."""

Several = TypeVar("Several", bound=Source | Array)

LARGEST_BATCH = 64
"""Recordings captioned together, at most."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording that was listened to, and everything the model says of it, best first."""

    utterance: Utterance
    wordings: tuple[Wording, ...]


class Captioner:
    """Captions recordings; `aligncap.load` makes one."""

    def __init__(
        self,
        meta: ModelMeta,
        prompts: PromptBuilder,
        listener: Listener,
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
    ) -> Iterator[Heard | AlignCapError]:
        """For each recording all `options` ask the model for, or what is wrong with it.

        Reads ahead and batches as `caption_many` does.
        """
        if language not in self.meta.languages:
            raise UnknownNameError("caption language", language, self.meta.languages)
        return self._stream(iter(sources), language, options)

    def _stream(
        self, sources: Iterator[Source], language: str, options: DecodeOptions
    ) -> Iterator[Heard | AlignCapError]:
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
    ) -> list[Future[Utterance | AlignCapError]]:
        return [pool.submit(self._listen, source) for source in islice(sources, count)]

    def _listen(self, source: Source) -> Utterance | AlignCapError:
        try:
            return self._listener.listen(Path(source) if isinstance(source, str) else source)
        except AlignCapError as error:
            return error

    def _say(
        self, batch: Sequence[Utterance | AlignCapError], language: str, options: DecodeOptions
    ) -> Iterator[Heard | AlignCapError]:
        """What to say of each; the batch is captioned in one go."""
        heard = [one for one in batch if isinstance(one, Utterance)]
        prompts = [self._prompt(one, language) for one in heard]
        found = iter(self._runtime.generate(prompts, options) if prompts else [])
        for one in batch:
            yield one if isinstance(one, AlignCapError) else self._heard(one, next(found))

    def _prompt(self, utterance: Utterance, language: str) -> tuple[int, ...]:
        """P_act where the model was trained with it, speech, P_instruct (Eq. 4, decision 5)."""
        act = student_act(self.meta.act_mode, utterance.facts, utterance.tokens, language)
        return self._prompts.student(utterance.tokens, language=language, act=act).ids

    def _heard(self, utterance: Utterance, hypotheses: Sequence[Hypothesis]) -> Heard:
        decode = self._prompts.vocabulary.decode
        return Heard(utterance, tuple(Wording(decode(one.ids).strip(), one) for one in hypotheses))


def _in_memory(source: Source | Array, rate_hz: int | None) -> Source:
    if not isinstance(source, np.ndarray):
        return source
    if rate_hz is None:
        raise AudioError("an array of samples has no sampling rate of its own; give rate_hz")
    return from_array(source, rate_hz)
