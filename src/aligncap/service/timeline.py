"""The captions along a recording, found while the model captions other clients' clips too; and its
curves, as the page draws them."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aligncap.audio.streams import stream
from aligncap.captioner.preparing import no_speech
from aligncap.captioner.segments import Joiner, Segment, Stretch, segment_of, utterances
from aligncap.errors import AlignCapError
from aligncap.prosody import curves_along
from aligncap.service.batcher import CaptionBatcher, QueueFullError
from aligncap.values import RATE_HZ, Caption, Samples, Waveform

T = TypeVar("T")

Json = dict[str, Any]
Job = Future[Caption]

AHEAD = 8
"""Stretches of one recording that wait for the model at a time."""
AGAIN_S = 0.02
"""Where the queue is full, a recording that is begun tries so often to go on."""


class Along:
    """Goes along a recording of any length, an utterance after the other.

    Utterances and what lies between them are those of `Captioner.segments`; but a recording that
    the model reads as a whole and that holds one utterance only is one segment, with the caption
    that it has by itself.
    """

    def __init__(self, batcher: CaptionBatcher, file: Path, language: str) -> None:
        self._batcher, self._file, self._language = batcher, file, language
        self._begun = self._is_whole = False
        self.longest_s = batcher.captioner.meta.limits.max_speech_s
        """What the model reads as a whole."""
        self.duration_s = 0.0
        """Of what was read; of all of it once the segments are found."""
        self.is_short = False
        """Whether the model reads it as a whole; known once a segment is found."""

    async def segments(self) -> AsyncGenerator[Segment]:
        """The segments in order and as they are found.

        Raises AlignCapError where the recording cannot be read, NoSpeechError where nobody speaks
        in it, QueueFullError where it could not be begun.
        """
        joiner, kinds = Joiner(), set[str]()
        with self._batcher.going_along():
            async with aclosing(self._each()) as found:
                async for one in found:
                    kinds.add(one.kind)
                    for done in joiner.add(one):
                        yield done
            for done in joiner.finish():
                yield done
        if "speech" not in kinds:
            raise no_speech(str(self._file), ", ".join(sorted(kinds)))

    async def _each(self) -> AsyncGenerator[Segment]:
        """The segments, neighbours not joined."""
        stretches, reads = self._stretches(), True
        waiting: deque[tuple[Stretch, Job | None]] = deque()
        try:
            while reads or waiting:
                if not reads or len(waiting) >= AHEAD or (waiting and _is_done(waiting[0][1])):
                    yield await self._captioned(*waiting.popleft())
                elif found := await asyncio.to_thread(next, stretches, None):
                    waiting.append((found[0], await self._submitted(found[1])))
                else:
                    reads = False
        finally:
            for _, job in waiting:
                if job is not None:
                    job.cancel()

    def _stretches(self) -> Iterator[tuple[Stretch, Path | Waveform | None]]:
        """What is cut out of the recording, each with what its caption is of, if it has one."""
        blocks, detector = self._counted(stream(self._file)), self._batcher.captioner.detector
        begun: list[Samples] = []
        for block in blocks:
            begun.append(block)
            if self.duration_s > self.longest_s:
                found: Iterable[Stretch] = utterances(chain(begun, blocks), detector)
                break
        else:
            self.is_short = True
            found = list(utterances(begun, detector))
            if sum(one.kind == "speech" for one in found) < 2:
                self._is_whole = True
                none = np.zeros(0, np.float32)
                yield Stretch(0.0, self.duration_s, "speech", none), self._file
                return
        for one in found:
            yield one, one.waveform(self._file.name) if one.kind == "speech" else None

    def _counted(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            self.duration_s += len(block) / RATE_HZ
            yield block

    async def _submitted(self, source: Path | Waveform | None) -> Job | None:
        """The caption to come, where there is to be one; a place is waited for unless it is the
        recording's first."""
        while source is not None:
            try:
                job = self._batcher.submit(source, language=self._language, candidates=1)
            except QueueFullError:
                if not self._begun:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                self._begun = True
                return job
        return None

    async def _captioned(self, stretch: Stretch, job: Job | None) -> Segment:
        if job is None:
            return segment_of(stretch)
        try:
            caption = await asyncio.wrap_future(job)  # cancelled, it gives up its place
        except AlignCapError as error:
            if self._is_whole:
                raise
            return segment_of(stretch, error)
        return segment_of(stretch, caption)


def _is_done(job: Job | None) -> bool:
    return job is None or job.done()


def captioned(segments: Iterable[Segment]) -> list[Segment]:
    """Those of the segments that have a caption."""
    return [one for one in segments if isinstance(one.caption, Caption)]


def joined_text(segments: Iterable[Segment], language: str) -> str:
    """The captions one after the other."""
    return between(language).join(one.text for one in captioned(segments))


def between(language: str) -> str:
    """What stands between two captions."""
    return "" if language == "zh" else " "


async def drawn(file: Path, duration_s: float) -> AsyncGenerator[Json]:
    """The curves of a recording of about that length as the page draws them, stretch by stretch."""
    found = curves_along(stream(file), duration_s)
    while (one := await asyncio.to_thread(next, found, None)) is not None:
        yield {
            "step_s": one.step_s,
            "peak": [round(value, 3) for value in one.peak.tolist()],
            "pitch_hz": [
                None if math.isnan(value) else round(value, 1) for value in one.pitch_hz.tolist()
            ],
            "loudness_lufs": [round(value, 1) for value in one.loudness_lufs.tolist()],
        }


async def merged(*sources: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """What each of several gives, as it comes; where one fails, its error."""
    waiting = {asyncio.ensure_future(anext(one)): one for one in sources}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = waiting.pop(task)
                with suppress(StopAsyncIteration):
                    found = task.result()
                    waiting[asyncio.ensure_future(anext(source))] = source
                    yield found
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for one in sources:
            await one.aclose()
