"""The caption server in a thread of the test."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from aligncap.service.serve import CaptionServer, ServerSettings
from aligncap.service.web import listen


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
