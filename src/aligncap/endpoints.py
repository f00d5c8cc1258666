"""Chat and completions servers of the OpenAI protocol, asked through the `openai` client.

The client sends, waits and sends again. This module decides what is sent, which failures end the
run, and cancels requests that wait when the run ends. `openai` is imported on use.
"""

import json
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

from aligncap.errors import AlignCapError, RecipeError

if TYPE_CHECKING:
    import httpx2
    import openai

T = TypeVar("T")

CHAT, COMPLETIONS = "/chat/completions", "/completions"
"""Paths behind a server's base URL."""

LONGEST_PAUSE_S = 60
"""A server that asks for a longer pause (Retry-After) ends the run."""

LONGEST_REPLY = 4 << 20
"""Bytes of a body that are read; no reply to one prompt is longer."""

_HEADERS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length"}
    | {"user-agent", "x-stainless-raw-response", "x-stainless-retry-count"}
)
"""Headers sent besides the key: `openai` would add those of the environment and the platform."""

_TRANSIENT = frozenset({408, 409, 429})
_SPENT = re.compile(
    r"insufficient[ _](quota|balance|funds|credits?)|billing|exceeded your current quota|"
    r"(credit|balance|quota)\W+(\w+\W+){0,3}(exhausted|too low|used up)|account.{0,20}deactivated",
    re.IGNORECASE,
)
"""What a server says where the quota is used up, and no waiting helps."""
_SOON = re.compile(r"(retry|try again) (in|after) \d", re.IGNORECASE)
_MALFORMED = 599
"""Replaces 200 where the body cannot be read: the client repeats 500 and above."""


class NoReplyError(Exception):
    """One request got no reply; others may. Never reaches the user as it is."""

    def __init__(self, reason: str, *, attempts: int | None = None) -> None:
        """`attempts` is how many were made of a server, None where none was asked."""
        tried = f"no reply in {attempts} attempts, the last: " if attempts else ""
        super().__init__(tried + reason)
        self.retries = (attempts or 1) - 1


class StoppedError(Exception):
    """The run ends while a request still waits for its turn. Never reaches the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Which server is asked, and how."""

    url: str | None = None
    """Base URL, up to and with "/v1"; None where no server is asked."""
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; servers on one's own machine need none."""
    proxy: str | None = None
    """URL of a proxy for requests."""
    concurrency: int = 4
    """Requests under way at once."""
    attempts: int = 8
    """How often one request is sent before it is given up."""
    timeout_s: float = 120.0
    """How long a server may stay silent in one attempt."""

    def check(self, whose: str, path: str) -> None:
        """RecipeError, of `whose` server, where a setting is out of range or the URL is none."""
        if self.url is not None:
            _check_base_url(self.url, whose, path)
        if self.proxy is not None and not _is_url(self.proxy):
            raise RecipeError(f"{whose} proxy is none; write http://host:port")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise RecipeError(f"{whose} key holds characters that no key has; copy it again")
        for name in ("concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{whose} {name} is {getattr(self, name)}, must be 1 or more")
        if not 0.0 < self.timeout_s < float("inf"):
            raise RecipeError(f"{whose} timeout_s is {self.timeout_s}, must be above 0")


def host_of(url: str | None) -> str:
    """The host of a URL, "" where it has none or is no URL."""
    return urlsplit(url).hostname or "" if url and _is_url(url) else ""


def _check_base_url(url: str, whose: str, path: str) -> None:
    if not _is_url(url):
        raise RecipeError(f"{whose} URL {url!r} is none; write http://localhost:8000/v1")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise RecipeError(f"{whose} URL holds a password; hand it in as the key instead")
    if parts.path.rstrip("/").endswith(path):
        base = parts._replace(path=parts.path.rstrip("/").removesuffix(path)).geturl()
        raise RecipeError(f"{whose} URL {url!r} is too long; give its base, {base}")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is no number, a name with two dots in a row
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return is_plain and parts.scheme in ("http", "https") and bool(parts.hostname)


class Endpoint(Generic[T]):
    """One path of one server, asked from several threads at once."""

    def __init__(
        self,
        settings: ServerSettings,
        path: str,
        read: Callable[[Any], T],
        *,
        what: str,
        refused: type[AlignCapError],
        hints: Mapping[int, str],
        stop: Event | None = None,
    ) -> None:
        """`read` makes an answer of a reply's JSON, and fails where that is not `what`.

        `refused` is the error of what no second attempt can change, `hints` what helps then, by
        HTTP status; 0 is for all others. Once `stop` is set nothing more is sent.
        """
        assert settings.url is not None, "a model on this machine is asked otherwise"
        parts = urlsplit(settings.url)
        base = parts._replace(path=parts.path.rstrip("/"), query="", fragment="").geturl()
        self._url = base + path  # the query, which may hold a key, is in no message
        self._settings, self._read, self._what = settings, read, what
        self._refused, self._hints, self._stop = refused, hints, stop or Event()
        self._reached = False
        try:
            import openai
        except ModuleNotFoundError as error:
            raise refused(
                f"{self._url}: is asked through {error.name}, which is not installed; "
                "run: pip install 'aligncap[endpoint]'"
            ) from error
        endpoint, self._openai = self, openai

        class HttpClient(openai.DefaultHttpxClient):
            def send(self, request: "httpx2.Request", **options: Any) -> "httpx2.Response":
                return endpoint._send(super().send, request, options)

        client = openai.OpenAI(
            base_url=base,
            default_query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            api_key=settings.key or "none",
            max_retries=settings.attempts - 1,
            timeout=settings.timeout_s,
            default_headers={"User-Agent": "aligncap"},
            # By default the environment is read, and redirects are followed: the captions would
            # go with them.
            http_client=HttpClient(
                proxy=settings.proxy,
                trust_env=False,
                follow_redirects=False,
                verify=ssl.create_default_context(),
            ),
        )
        resource = client.chat.completions if path == CHAT else client.completions
        self._create: Any = resource.with_raw_response.create

    def ask(self, **fields: object) -> tuple[T, int]:
        """The answer to one request, and how many attempts failed before it.

        Raises NoReplyError after as many attempts as are allowed, `refused` at once where none
        would help, StoppedError once the run has ended.
        """
        try:
            reply = self._create(**fields)
        except self._openai.APIStatusError as error:
            raise self._failure(error) from error
        except self._openai.APIConnectionError as error:
            silent = isinstance(error, self._openai.APITimeoutError)
            reason = (
                f"silent for {self._settings.timeout_s:g} s" if silent else f"{_root_cause(error)}"
            )
            raise NoReplyError(reason, attempts=self._settings.attempts) from error
        return self._read(reply.http_response.json()), reply.retries_taken

    def _send(
        self,
        send: "Callable[..., httpx2.Response]",
        request: "httpx2.Request",
        options: Mapping[str, Any],
    ) -> "httpx2.Response":
        """One attempt, of which `openai` makes several.

        It ends the run where no other attempt would help, and a pause that the server asks for
        is made here, where the end of the run cuts it short.
        """
        if self._stop.is_set():
            raise StoppedError
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        if self._settings.key:
            request.headers["Authorization"] = f"Bearer {self._settings.key}"
        try:
            response = self._whole(send(request, **{**options, "stream": True}))
        except Exception as error:
            root = _root_cause(error)
            if isinstance(root, ssl.SSLCertVerificationError):
                raise self._refused(
                    f"{self._url}: its certificate is not trusted ({root})"
                ) from error
            if isinstance(root, ConnectionRefusedError | socket.gaierror) and not self._reached:
                raise self._refused(
                    f"{self._url}: nobody answers there ({root}); start the server or give its URL"
                ) from error
            raise
        self._reached = True
        self._check_quota(response)
        if response.status_code == 200 and not self._is_readable(response):
            response.status_code = _MALFORMED
        pause = response.headers.get("Retry-After", "")
        if _is_transient(response.status_code) and pause.isascii() and pause.isdigit():
            del response.headers["Retry-After"]
            self._pause(int(pause), is_last=_attempt(request) == self._settings.attempts)
        return response

    def _whole(self, response: "httpx2.Response") -> "httpx2.Response":
        """The response with its body, which is not read beyond LONGEST_REPLY."""
        body = bytearray()
        with closing(response):
            for part in response.iter_bytes():
                body += part
                if len(body) > LONGEST_REPLY:
                    raise self._refused(
                        f"{self._url}: a reply has more than {LONGEST_REPLY >> 20} MB; lower the "
                        "server's longest reply"
                    )
        coded = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(key, value) for key, value in response.headers.items() if key not in coded]
        return type(response)(
            response.status_code, headers=headers, content=bytes(body), request=response.request
        )

    def _check_quota(self, response: "httpx2.Response") -> None:
        """`refused`, in the server's words, where its answer is that the quota is used up."""
        try:
            error = response.json()["error"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        text = " ".join(json.dumps(error, ensure_ascii=False).split())
        if _SPENT.search(text) and not _SOON.search(text):
            said = error.get("message") if isinstance(error, dict) else error
            raise self._refused(
                f"{self._url}: HTTP {response.status_code} ({_short(said or text)}); add credit or "
                "name another server, the replies so far are kept"
            )

    def _pause(self, pause_s: int, *, is_last: bool) -> None:
        if pause_s > LONGEST_PAUSE_S:
            raise self._refused(
                f"{self._url}: asks to wait {pause_s} s, more than {LONGEST_PAUSE_S} s; run the "
                "same command later, the replies so far are kept"
            )
        if not is_last and self._stop.wait(pause_s):
            raise StoppedError

    def _is_readable(self, response: "httpx2.Response") -> bool:
        try:
            self._read(response.json())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def _failure(self, error: "openai.APIStatusError") -> Exception:
        """NoReplyError where this request failed, `refused` where every one would."""
        body = error.body
        message = body.get("message", error.response.text) if isinstance(body, Mapping) else body
        text = _short(message)
        reason = f"HTTP {error.status_code}"
        if error.status_code == _MALFORMED:
            reason = f"the body is no {self._what}"
        if text:
            reason += f" ({text})"
        if _is_transient(error.status_code):
            return NoReplyError(reason, attempts=_attempt(error.request))
        hint = self._hints.get(error.status_code, self._hints[0])
        if error.response.is_redirect:
            hint = "give the URL that it leads to"
        return self._refused(f"{self._url}: {reason}; {hint}")


def _short(message: object) -> str:
    return " ".join(str(message or "").split())[:200]


def _is_transient(status: int) -> bool:
    return status in _TRANSIENT or status >= 500


def _attempt(request: "httpx2.Request") -> int:
    """Which attempt a request is, from 1."""
    return 1 + int(request.headers.get("X-Stainless-Retry-Count", "0"))


def _root_cause(error: BaseException) -> BaseException:
    """The operating system's error below those of libraries."""
    while below := error.__cause__ or error.__context__:
        error = below
    return error
