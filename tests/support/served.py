"""The caption server in a thread of the test."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import uvicorn

from aligncap.audio import SpeechDetector
from aligncap.service.serve import CaptionServer, ServerSettings
from aligncap.service.web import listen
from aligncap.values import Caption


@contextmanager
def served(load: Callable[[], Any], **settings: Any) -> Iterator[str]:
    """The address of a server."""
    listener = listen("127.0.0.1", 0)
    app = CaptionServer(load, ServerSettings(**settings)).app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def ready(address: str) -> str:
    """The address, once its model is loaded."""
    while httpx.get(f"{address}/health", timeout=600).status_code == 503:
        time.sleep(0.01)
    return address


class Teller:
    """A captioner of recordings of any length, which it captions in batches of what is let."""

    def __init__(self) -> None:
        self.meta = SimpleNamespace(
            name="gate", languages=("en", "zh"), limits=SimpleNamespace(max_speech_s=30.0)
        )
        self.detector, self.let = SpeechDetector(), threading.Semaphore(0)
        self.batches: list[list[Any]] = []

    @contextmanager
    def let_all(self) -> Iterator[None]:
        """Lets all batches at the end, whatever has happened."""
        try:
            yield
        finally:
            self.let.release(99)

    def caption_many(self, sources: Iterable[Any], **options: Any) -> Iterator[Caption]:
        self.batches.append(list(sources))
        self.let.acquire()
        for number, _ in enumerate(self.batches[-1]):
            yield told(f"Caption {len(self.batches)}.{number}.", options["language"])


def told(text: str, language: str) -> Caption:
    """A caption of nothing."""
    numbers = {"duration_s": 1.0, "arousal": 0.0, "valence": 0.0, "confidence": 1.0}
    none = dict.fromkeys(("gender", "pitch", "loudness", "pace"))
    return Caption(text=text, language=language, evidence=(), emotion={}, log_probability=0.0,
                   model="gate", **numbers, **none)  # type: ignore[arg-type]  # fmt: skip
