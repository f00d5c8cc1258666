"""JSON posted to a server, and what its answer means.

What may pass is tried again: an answer of 408, 409, 425, 429 or 5xx, a timeout, a cut connection,
a body that is not what was asked for. What no second attempt can change ends the run at once.
"""

import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from random import Random
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import (
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from aligncap.endpoints.backoff import asked_wait_s, wait_s
from aligncap.errors import AlignCapError

T = TypeVar("T")

Wait = Callable[[float], bool]
"""Waits so many seconds, and says whether the run was stopped meanwhile (`Event.wait` does)."""

_LARGEST_BYTES = 1 << 23
_PASSING = frozenset({408, 409, 425, 429})


class NoAnswerError(Exception):
    """One request got no answer; others may. Never reaches the user as it is."""

    def __init__(self, reason: str, *, retries: int = 0) -> None:
        super().__init__(reason)
        self.retries = retries


class StoppedError(Exception):
    """The run ends while a request still waits for its turn. Never reaches the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where requests go, how often and how long."""

    url: str
    """Whole, path included."""
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token."""
    proxy: str | None = None
    attempts: int = 8
    timeout_s: float = 120.0
    longest_wait_s: float = 60.0


class JsonClient:
    """Posts requests to one URL, from several threads at once."""

    def __init__(
        self,
        connection: Connection,
        *,
        refused: Callable[[str], AlignCapError],
        cures: Mapping[int, str],
        otherwise: str,
        wait: Wait,
        random: Random,
    ) -> None:
        """`refused` makes the error of what no attempt can change.

        `cures` says what to do about an HTTP status, `otherwise` about one that is not in it.
        """
        self._to, self._refused, self._cures = connection, refused, cures
        self._otherwise, self._wait, self._random = otherwise, wait, random
        self._opener = _opener(connection.proxy)
        self._reached = False

    def ask(
        self, fields: Mapping[str, object], read: Callable[[Any], T], *, what: str
    ) -> tuple[T, int]:
        """What `read` makes of the answer, and how many attempts failed before it.

        `read` gets the answer's JSON; where it raises as if that were not `what`, it is asked
        again. NoAnswerError after as many attempts as are allowed.
        """
        reason = ""
        for failures in range(self._to.attempts):
            try:
                return self._attempt(fields, read, what), failures
            except _PassingError as error:
                reason = str(error)
                pause = self._pause(failures + 1, error.wait_s)
            if failures + 1 < self._to.attempts and self._wait(pause):
                raise StoppedError
        raise NoAnswerError(
            f"no reply in {self._to.attempts} attempts, the last: {reason}",
            retries=self._to.attempts - 1,
        )

    def _pause(self, failures: int, asked_s: float | None) -> float:
        longest = self._to.longest_wait_s
        if asked_s is not None and asked_s > longest:
            raise self._refused(
                f"{self._to.url}: asks to wait {asked_s:.0f} s, more than {longest:.0f} s; run the "
                "same command later, the replies so far are kept"
            )
        own = wait_s(failures, longest_s=longest, random=self._random)
        return own if asked_s is None else asked_s + own * 0.1

    def _attempt(self, fields: Mapping[str, object], read: Callable[[Any], T], what: str) -> T:
        try:
            status, headers, body = self._post(fields)
        except (OSError, HTTPException) as error:
            raise self._unreached(error) from error
        self._reached = True
        if status in _PASSING or status >= 500:
            asked = asked_wait_s(headers.get("Retry-After"), datetime.now(UTC))
            raise _PassingError(f"HTTP {status}{_said(body)}", asked)
        if status != 200:
            raise self._refused(f"{self._to.url}: HTTP {status}{_said(body)}; {self._cure(status)}")
        try:
            return read(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _PassingError(f"the body is no {what}{_said(body)}") from error

    def _post(self, fields: Mapping[str, object]) -> tuple[int, Mapping[str, str], bytes]:
        request = Request(  # noqa: S310 -- settings allow http and https only
            self._to.url,
            data=json.dumps(fields).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "aligncap"},
            method="POST",
        )
        if self._to.key:
            request.add_unredirected_header("Authorization", f"Bearer {self._to.key}")
        deadline_s = time.monotonic() + self._to.timeout_s
        with self._opener.open(request, timeout=self._to.timeout_s) as response:
            return response.status, response.headers, _body(response, deadline_s)

    def _unreached(self, error: Exception) -> Exception:
        """What a failure of the connection means: another attempt, or the end."""
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return self._refused(f"{self._to.url}: its certificate is not trusted ({reason})")
        nobody = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        if nobody and not self._reached:
            return self._refused(
                f"{self._to.url}: nobody answers there ({reason}); start the server or give its URL"
            )
        return _PassingError(f"{reason}" or type(reason).__name__)

    def _cure(self, status: int) -> str:
        if 300 <= status < 400:
            return "give the URL that it leads to"
        return self._cures.get(status, self._otherwise)


@dataclass
class _PassingError(Exception):
    """A failure that another attempt may not meet."""

    reason: str
    wait_s: float | None = None

    def __str__(self) -> str:
        return self.reason


def _opener(proxy: str | None) -> OpenerDirector:
    # Put together by hand: the usual opener reads the environment and follows redirects, to
    # which it would send the captions.
    opener = OpenerDirector()
    proxies = {"http": proxy, "https": proxy} if proxy else {}
    for handler in (ProxyHandler(proxies), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    return opener


def _body(response: HTTPResponse, deadline_s: float) -> bytes:
    """All of the body; OSError where it is cut, too slow or without end."""
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if time.monotonic() > deadline_s:
            raise TimeoutError("timed out while the reply came")
        if len(body) > _LARGEST_BYTES:
            raise OSError("the reply has no end")
    promised = response.headers.get("Content-Length", "")
    if promised.isdigit() and len(body) < int(promised):
        raise ConnectionError(f"connection cut after {len(body)} of {promised} bytes")
    return bytes(body)


def _said(body: bytes) -> str:
    """What a server says in its error, in one short line; empty where it says nothing."""
    text = body.decode("utf-8", "replace")
    try:
        table: Any = json.loads(text)
        error = table["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    line = " ".join(text.split())
    return f" ({line[:200]})" if line else ""
