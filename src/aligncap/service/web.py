"""What the servers share: their pages, limits of what clients send, and the socket they listen at.

A page is `pages/NAME.html` with the common look and code (`common.css`, `common.js`) written into
it, so that one answer brings all of it; nothing else may run in it or be shown by it.
"""

import asyncio
import base64
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligncap.errors import AudioError, DataError, RecipeError

T = TypeVar("T")

PAGES = Path(__file__).with_name("pages")


def page(name: str, **values: str) -> HTMLResponse:
    """A page with its policy; `values` stand where it has `{their name}`."""
    nonce = secrets.token_urlsafe(16)
    text = (PAGES / f"{name}.html").read_text("utf-8")
    for part in ("common.css", "common.js"):
        text = text.replace(f"{{{part}}}", (PAGES / part).read_text("utf-8").rstrip())
    for key, value in {"nonce": nonce, **values}.items():
        text = text.replace(f"{{{key}}}", value)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "media-src 'self' blob:; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def with_headers(response: Response) -> Response:
    """The answer: not to be kept, guessed at or framed by another page."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Frame-Options"] = "DENY"
    return response


def answers_to(names: Sequence[str], host: str) -> bool:
    """Whether a request's Host is one of the server's names, with any port: a page of another site
    that had its own name lead here could else read the answers."""
    try:
        return not names or not host or urlsplit(f"//{host}").hostname in names
    except ValueError:
        return False


def from_base64(text: str) -> bytes:
    """The bytes of base64 or of a data: URL; HTTPException for another text."""
    _, _, data = text.partition(",") if text.startswith("data:") else ("", "", text)
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise HTTPException(422, "the audio is not base64") from None


class LimitedBody:
    """Refuses a body above a size with 413, before it has come, and one that stops coming with 408.

    The application that reads the body is given the HTTPException, and answers as it does others.
    """

    def __init__(self, app: ASGIApp, largest_bytes: int, idle_s: float = 30.0) -> None:
        self._app, self._largest_bytes, self._idle_s = app, largest_bytes, idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        announced = dict(scope.get("headers", ())).get(b"content-length", b"0")
        size, is_whole = int(announced) if announced.isdigit() else 0, False
        too_large = HTTPException(413, f"a body has at most {self._largest_bytes:,} bytes here")
        stopped = HTTPException(408, "nothing more of the body came; send it again")
        seen = 0

        async def limited() -> Message:
            nonlocal seen, is_whole
            if size > self._largest_bytes:
                raise too_large
            try:
                message = await asyncio.wait_for(receive(), None if is_whole else self._idle_s)
            except TimeoutError:
                raise stopped from None
            seen += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if seen > self._largest_bytes:
                raise too_large
            return message

        await self._app(scope, limited if scope["type"] == "http" else receive, send)


def safe_name(name: str) -> str:
    """A file name for an upload of that name: its end, which has what kind of file it is."""
    kept = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)
    kept = kept.encode(errors="replace")[-_LONGEST_NAME:].decode(errors="ignore")
    return kept if kept.strip(".") else "audio"


_LONGEST_NAME = 200  # bytes


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A folder for an upload; what is wrong with a recording in it, or with what is asked of it, is
    answered as 422."""
    with TemporaryDirectory(prefix="aligncap-") as folder:
        try:
            yield Path(folder)
        except (AudioError, RecipeError) as error:
            raise HTTPException(422, str(error).replace(f"{folder}{os.sep}", "")) from error


async def unless_gone(request: Request, awaited: Awaitable[T]) -> T:
    """What is awaited; where the client goes away before it, it is cancelled: the places in the
    queue are given up."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, left = asyncio.ensure_future(awaited), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise HTTPException(499, "the client has gone away")
    finally:
        answer.cancel()
        left.cancel()


class EventStream(StreamingResponse):
    """Server-sent events; what gives them is closed at once where the client goes away."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


def address_of(host: str, listener: socket.socket) -> str:
    """The address of a server as a browser takes it."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; DataError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise DataError(
            f"{host}:{port}: cannot listen there ({error.strerror or error}); give another --port"
        ) from error
