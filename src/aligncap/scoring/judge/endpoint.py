"""A language model behind an OpenAI-compatible chat-completions server.

What may pass is tried again: an answer of 408, 409, 425, 429 or 5xx, a timeout, a cut connection,
a body that is no completion. What no second attempt can change ends the run at once.
"""

import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from random import Random
from typing import Any
from urllib.error import URLError
from urllib.request import (
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from aligncap.errors import JudgeError
from aligncap.scoring.judge.backoff import asked_wait_s, wait_s
from aligncap.scoring.judge.chat import NoReplyError, Reply, StoppedError
from aligncap.scoring.judge.settings import CHAT_PATH, JudgeSettings

Wait = Callable[[float], bool]
"""Waits so many seconds, and says whether the run was stopped meanwhile (`Event.wait` does)."""

_LARGEST_BYTES = 1 << 23
_PASSING = frozenset({408, 409, 425, 429})
_CURES = {
    401: "set ALIGNCAP_JUDGE_KEY to a key that the server accepts",
    403: "set ALIGNCAP_JUDGE_KEY to a key that may use this model",
    404: "give the base URL up to and with /v1, and a model that the server lists",
}


class EndpointModel:
    """The model that `settings` names, on the server at its URL."""

    def __init__(self, settings: JudgeSettings, *, wait: Wait, random: Random) -> None:
        assert settings.url, "a judge on this machine is asked otherwise"
        self.name = settings.model
        self.settings = _request_fields(settings)
        self._url = settings.url.rstrip("/") + CHAT_PATH
        self._asked, self._wait, self._random = settings, wait, random
        self._opener = _opener(settings.proxy)
        self._reached = False

    def ask(self, prompt: str) -> Reply:
        """The model's reply, after as many attempts as are allowed."""
        reason = ""
        for failures in range(self._asked.attempts):
            try:
                return replace(self._attempt(prompt), retries=failures)
            except _PassingError as error:
                reason = str(error)
                pause = self._pause(failures + 1, error.wait_s)
            if failures + 1 < self._asked.attempts and self._wait(pause):
                raise StoppedError
        raise NoReplyError(
            f"no reply in {self._asked.attempts} attempts, the last: {reason}",
            retries=self._asked.attempts - 1,
        )

    def _pause(self, failures: int, asked_s: float | None) -> float:
        longest = self._asked.longest_wait_s
        if asked_s is not None and asked_s > longest:
            raise JudgeError(
                f"{self._url}: asks to wait {asked_s:.0f} s, more than {longest:.0f} s; run the "
                "same command later, the replies so far are kept"
            )
        own = wait_s(failures, longest_s=longest, random=self._random)
        return own if asked_s is None else asked_s + own * 0.1

    def _attempt(self, prompt: str) -> Reply:
        try:
            status, headers, body = self._post(prompt)
        except (OSError, HTTPException) as error:
            raise self._unreached(error) from error
        self._reached = True
        if status in _PASSING or status >= 500:
            asked = asked_wait_s(headers.get("Retry-After"), datetime.now(UTC))
            raise _PassingError(f"HTTP {status}{_said(body)}", asked)
        if status != 200:
            raise JudgeError(f"{self._url}: HTTP {status}{_said(body)}; {self._cure(status)}")
        return _reply_in(body)

    def _post(self, prompt: str) -> tuple[int, Mapping[str, str], bytes]:
        fields = {"messages": [{"role": "user", "content": prompt}], **self.settings}
        request = Request(  # noqa: S310 -- settings allow http and https only
            self._url,
            data=json.dumps({"model": self.name, **fields}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "aligncap"},
            method="POST",
        )
        if self._asked.key:
            request.add_unredirected_header("Authorization", f"Bearer {self._asked.key}")
        deadline_s = time.monotonic() + self._asked.timeout_s
        with self._opener.open(request, timeout=self._asked.timeout_s) as response:
            return response.status, response.headers, _body(response, deadline_s)

    def _unreached(self, error: Exception) -> Exception:
        """What a failure of the connection means: another attempt, or the end."""
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return JudgeError(f"{self._url}: its certificate is not trusted ({reason})")
        nobody = isinstance(reason, ConnectionRefusedError | socket.gaierror)
        if nobody and not self._reached:
            return JudgeError(
                f"{self._url}: nobody answers there ({reason}); start the server or give its URL"
            )
        return _PassingError(f"{reason}" or type(reason).__name__)

    def _cure(self, status: int) -> str:
        if 300 <= status < 400:
            return "give the URL that it leads to"
        return _CURES.get(status, "correct the model or the judge's settings by what it says")


@dataclass
class _PassingError(Exception):
    """A failure that another attempt may not meet."""

    reason: str
    wait_s: float | None = None

    def __str__(self) -> str:
        return self.reason


def _request_fields(settings: JudgeSettings) -> dict[str, object]:
    own = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    fields = {**own, **settings.request}
    return {key: value for key, value in fields.items() if value is not None}


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


def _reply_in(body: bytes) -> Reply:
    try:
        table = json.loads(body)
        choice = table["choices"][0]
        text = choice["message"]["content"]
        usage = table.get("usage") or {}
        if not isinstance(text, str | None):
            raise TypeError
        return Reply(
            text=text or "",
            finish=str(choice.get("finish_reason") or ""),
            served=str(table.get("model") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _PassingError(f"the body is no chat completion{_said(body)}") from error


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
