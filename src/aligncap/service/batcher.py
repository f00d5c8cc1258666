"""The recordings of many clients, captioned together by one model in one thread."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from fastapi import HTTPException

from aligncap.captioner.captioner import Captioner
from aligncap.errors import AlignCapError
from aligncap.values import Caption, Waveform


@dataclass(frozen=True, slots=True)
class Job:
    """A recording that waits for its caption."""

    source: Path | Waveform
    options: tuple[tuple[str, Any], ...]
    """Of `Captioner.caption_many`; jobs with the same ones are captioned together."""
    future: "Future[Caption]" = field(default_factory=Future)


class QueueFullError(HTTPException):
    """More recordings wait than the server takes."""

    def __init__(self) -> None:
        super().__init__(429, "too many wait; try again", {"Retry-After": "1"})


class CaptionBatcher:
    """Captions the recordings of many clients together, in a thread of its own."""

    def __init__(
        self, captioner: Captioner, *, waiting: int, batch_wait_s: float, largest: int = 16
    ) -> None:
        self.captioner = captioner
        self._jobs: Queue[Job | None] = Queue(waiting)
        self._wait_s, self._largest = batch_wait_s, largest
        self.along = 0
        """Recordings whose utterances are being captioned."""
        self._thread = Thread(target=self._run, name="captions", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many recordings wait for the model."""
        return self._jobs.qsize()

    def submit(self, source: Path | Waveform, **options: Any) -> "Future[Caption]":
        """The caption to come, or the recording's AlignCapError; QueueFullError at once."""
        job = Job(source, tuple(sorted(options.items())))
        try:
            self._jobs.put_nowait(job)
        except Full:
            raise QueueFullError from None
        return job.future

    @contextmanager
    def going_along(self) -> Iterator[None]:
        """While utterance after utterance of a recording comes; QueueFullError where this is so of
        as many recordings as may wait."""
        if self.along >= self._jobs.maxsize:
            raise QueueFullError
        self.along += 1
        try:
            yield
        finally:
            self.along -= 1

    def close(self) -> None:
        """Caption what waits, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_:
            batch = [self._jobs.get()]
            until = time.monotonic() + self._wait_s
            with suppress(Empty):
                while batch[-1] is not None and len(batch) < self._largest:
                    batch.append(self._jobs.get(timeout=max(0.0, until - time.monotonic())))
            jobs = sorted(filter(None, batch), key=lambda job: repr(job.options))
            for options, alike in groupby(jobs, key=attrgetter("options")):
                self._caption(list(alike), dict(options))
            open_ = batch[-1] is not None

    def _caption(self, jobs: Sequence[Job], options: Mapping[str, Any]) -> None:
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        try:
            sources = [job.source for job in jobs]
            outcomes = self.captioner.caption_many(sources, **options)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if isinstance(outcome, AlignCapError):
                    job.future.set_exception(outcome)
                else:
                    job.future.set_result(outcome)
        except Exception as error:  # noqa: BLE001  the clients are told, the thread lives on
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(error)
