"""`aligncap serve`: captions over HTTP, for the clients that people have already.

    POST /v1/captions               multipart or JSON; the record that `aligncap caption` writes,
                                    with `segments` those of `aligncap caption --segments` too
    POST /v1/audio/transcriptions   fields, formats and events of OpenAI; the text is the captions
    POST /v1/chat/completions       the last `input_audio` of the messages, captioned
    POST /v1/timeline               events for `/`: curves and captions of a recording, as found
    GET  /                          the page
    /label-studio, /label-studio/zh Label Studio's machine-learning backend
    GET  /v1/models, /v1/models/NAME, /health, /metrics (Prometheus), /docs (OpenAPI)

Recordings and utterances of all clients are captioned together by one model in one thread
(`CaptionBatcher`); a longer recording is gone along in the meantime (`timeline.Along`). What
does not fit its queue is answered 429, a body that is too large 413, one that is no audio 415 or
422; errors have the body that OpenAI's clients read. Uploads lie on disk while they wait. A client
that goes away gives up its place.
"""

import asyncio
import base64
import secrets
import shutil
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, File, Form, HTTPException, Request, Response
from fastapi import UploadFile as FastUpload
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from aligncap.audio.files import read_header
from aligncap.captioner.captioner import Captioner
from aligncap.captioner.segments import Segment
from aligncap.captioner.summary import Summarizer
from aligncap.service import web
from aligncap.service.batcher import CaptionBatcher
from aligncap.service.description import (
    CHAT_ANSWER,
    ERRORS,
    EVENTS,
    RECORD,
    TRANSCRIPTION,
    answers,
)
from aligncap.service.label_studio import LabelStudio, add_routes
from aligncap.service.openai_api import (
    ChatAnswer,
    ChatRequest,
    as_transcription,
    audio_of,
    ending_in_error,
    error_response,
    event,
)
from aligncap.service.timeline import Along, between, drawn, joined_text, merged
from aligncap.values import LANGUAGES, Caption

Json = dict[str, Any]

JSON = "application/json"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ASKS_FOR_TOKEN = ("/v1/", "/metrics", "/label-studio")
"""How the addresses begin that need the token, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What a server allows its clients."""

    largest_upload_bytes: int = 200_000_000
    waiting: int = 64
    """Recordings that may wait for the model; what comes beyond them is told to come again."""
    batch_wait_s: float = 0.004
    """How long a recording waits for others to be captioned with."""
    idle_s: float = 30.0
    """A client that sends nothing of its body for so long is dropped."""
    token: str | None = None
    """The bearer token that clients have to send."""
    names: Sequence[str] = ()
    """Names of hosts that the server answers to; none: to any."""
    label_studio: LabelStudio = field(default_factory=LabelStudio)
    """Where the recordings of Label Studio's tasks are read from."""


def page() -> Response:
    """The page of `pages/listen.html`."""
    return web.page("listen")


class Metrics:
    """What /metrics shows, of one server."""

    def __init__(self, waiting: Callable[[], float], along: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "aligncap_requests", "Requests by path and status", ("path", "status"),
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "aligncap_request_seconds", "Seconds from request to answer", registry=self.registry
        )
        self.audio = Counter(
            "aligncap_audio_seconds", "Seconds of recordings captioned", registry=self.registry
        )
        for name, told, count in (
            ("waiting", "Recordings and utterances that wait", waiting),
            ("along", "Recordings whose utterances are being captioned", along),
        ):
            Gauge(f"aligncap_{name}", told, registry=self.registry).set_function(count)


class CaptionRequest(BaseModel):
    """The JSON of /v1/captions."""

    audio: str = Field(description="The sound file, in base64.")
    language: str = "en"
    candidates: int = Field(default=1, ge=1, le=16)
    segments: bool = Field(default=False, description="Whether to give the segments, too.")
    style: Literal["full", "short", "tts"] = Field(
        default="full", description="Of the caption of the whole; of models with plans."
    )

    @property
    def options(self) -> Json:
        """Those of the captioner."""
        style = {} if self.style == "full" else {"style": self.style}
        return {"language": self.language, "candidates": self.candidates, **style}


class CaptionServer:
    """The routes, and what they share."""

    def __init__(self, load: Callable[[], Captioner], settings: ServerSettings) -> None:
        """`load` is called once the server listens; until it is done, /health says 503."""
        self._load, self.settings = load, settings
        self.batcher: CaptionBatcher | None = None
        self.metrics = Metrics(
            lambda: self.batcher.waiting if self.batcher else 0,
            lambda: self.batcher.along if self.batcher else 0,
        )

    def app(self) -> FastAPI:
        """The ASGI application."""
        app = FastAPI(title="aligncap", summary="How it was said.", lifespan=self._lifespan)
        app.add_middleware(
            web.LimitedBody,
            largest_bytes=self.settings.largest_upload_bytes,
            idle_s=self.settings.idle_s,
        )
        app.middleware("http")(self._observe)
        app.add_exception_handler(StarletteHTTPException, _http_error)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(ClientDisconnect, _gone)
        app.add_exception_handler(Exception, _failed)
        router = APIRouter(responses=ERRORS)
        router.add_api_route("/v1/models", self.models, methods=["GET"])
        router.add_api_route("/v1/models/{name:path}", self.model, methods=["GET"])
        router.add_api_route("/metrics", self.scrape, methods=["GET"])
        for path, route, example, kind, extra in (
            ("/v1/captions", self.captions, RECORD, JSON, CAPTIONS_BODY),
            (
                "/v1/audio/transcriptions",
                self.transcriptions,
                TRANSCRIPTION,
                "application/json",
                {},
            ),
            ("/v1/chat/completions", self.chat, CHAT_ANSWER, JSON, {}),
            ("/v1/timeline", self.timeline, EVENTS, "text/event-stream", {}),
        ):
            router.add_api_route(
                path,
                route,
                methods=["POST"],
                response_class=JSONResponse if kind == JSON else Response,
                response_model=None,
                responses=answers(example, kind),
                openapi_extra=extra,
            )
        for language in LANGUAGES:
            prefix = "/label-studio" + ("" if language == "en" else f"/{language}")
            add_routes(
                *(router, prefix, language, self._records, self.settings.label_studio),
                version=lambda: self._ready().captioner.signature,
            )
        app.include_router(router)
        app.add_api_route("/", page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/health", self.health, methods=["GET"])
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        def open_model() -> None:
            self.batcher = CaptionBatcher(
                self._load(), waiting=self.settings.waiting, batch_wait_s=self.settings.batch_wait_s
            )

        loading = asyncio.get_running_loop().run_in_executor(None, open_model)
        yield
        await asyncio.gather(loading, return_exceptions=True)  # `serve` raises its error
        if self.batcher is not None:
            await asyncio.to_thread(self.batcher.close)

    async def _observe(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        begun, status = time.perf_counter(), 500
        try:
            response = self._refusal(request) or await call_next(request)
            status = response.status_code
        finally:
            path = getattr(request.scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - begun)
        return web.with_headers(response)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that may not be asked, before its body is read."""
        host, expected = request.headers.get("host", ""), self.settings.token
        if not web.answers_to(self.settings.names, host):
            return error_response(400, f"host {host!r}: is not this server's name")
        if expected is None or not request.url.path.startswith(_ASKS_FOR_TOKEN):
            return None
        given = _token_of(request.headers.get("authorization", ""))
        if secrets.compare_digest(given.encode(), expected.encode()):
            return None
        headers = {"WWW-Authenticate": "Bearer"}
        return error_response(401, "send the server's token: Authorization: Bearer …", headers)

    def health(self) -> Response:
        """Whether the model is loaded."""
        if self.batcher is None:
            return JSONResponse({"status": "loading model"}, status_code=503)
        return JSONResponse({"status": "ok"})

    def scrape(self) -> Response:
        """Counts and times, for Prometheus."""
        return PlainTextResponse(generate_latest(self.metrics.registry))

    def models(self) -> Json:
        """The one model that captions here, as a list."""
        return {"object": "list", "data": [self.model()]}

    def model(self, name: str | None = None) -> Json:
        """The model that captions here; 404 where another is named."""
        self._check_model(name)
        served = self._ready().captioner.meta.name
        return {"id": served, "object": "model", "created": 0, "owned_by": "aligncap"}

    async def captions(self, request: Request) -> Json:
        """The caption of a recording, its evidence, and what was estimated of the voice."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            asked = _validated(CaptionRequest.model_validate_json, await request.body())
            audio: UploadFile | bytes = web.from_base64(asked.audio)
            return await self._record(request, audio, asked)
        if kind != "multipart/form-data":
            given = kind or "no content type"
            raise HTTPException(415, f"{given}: send multipart/form-data or application/json")
        async with request.form(max_files=1, max_fields=20) as form:
            fields = {name: value for name, value in form.items() if name != "file"}
            if not isinstance(file := form.get("file"), UploadFile):
                raise HTTPException(422, "send the recording as the field `file`")
            return await self._record(
                request, file, _validated(CaptionRequest.model_validate, {"audio": "", **fields})
            )

    async def _record(
        self, request: Request, audio: UploadFile | bytes, asked: CaptionRequest
    ) -> Json:
        if asked.segments and asked.style != "full":
            raise HTTPException(422, "style: is of the whole; leave it or the segments out")
        with web.upload_folder() as folder:
            file = await asyncio.to_thread(_to_disk, audio, folder)
            if asked.segments:
                return await web.unless_gone(request, self._record_along(file, asked))
            caption = await web.unless_gone(request, self._captioned(file, **asked.options))
            return caption.to_dict()

    async def _record_along(self, file: Path, asked: CaptionRequest) -> Json:
        """The record of the whole with its segments; of what is longer than the model reads, its
        captions stand for the whole."""
        along, segments = await self._segments(file, asked.language)
        record = {
            "duration_s": round(along.duration_s, 3),
            "language": asked.language,
            "caption": joined_text(segments, asked.language),
            "model": self._ready().captioner.meta.name,
        }
        if along.is_short:
            record = (await self._captioned(file, **asked.options)).to_dict()
        return {**record, "segments": [one.to_dict() for one in segments]}

    async def transcriptions(
        self,
        request: Request,
        file: Annotated[FastUpload, File()],
        model: Annotated[str | None, Form()] = None,
        language: Annotated[str | None, Form()] = None,
        response_format: Annotated[
            Literal["json", "text", "srt", "vtt", "verbose_json"], Form()
        ] = "json",
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        """Captions in the place of a transcript; `prompt` and `temperature` have no effect."""
        self._check_model(model)
        language = language or "en"
        if stream:
            return await _streamed(request, self._deltas(file, language))
        with web.upload_folder() as folder:
            path = await asyncio.to_thread(_to_disk, file, folder)
            along, segments = await web.unless_gone(request, self._segments(path, language))
        return as_transcription(segments, language, along.duration_s, response_format)

    async def _deltas(self, file: UploadFile, language: str) -> AsyncGenerator[str]:
        """A delta for each caption as it is found, and the end."""
        text = ""
        with web.upload_folder() as folder:
            along = self._along(await asyncio.to_thread(_to_disk, file, folder), language)
            async with aclosing(self._counted(along)) as segments:
                async for one in segments:
                    if isinstance(one.caption, Caption):
                        delta = (between(language) if text else "") + one.text
                        text += delta
                        yield event("transcript.text.delta", delta=delta)
        yield event("transcript.text.done", text=text)

    async def timeline(
        self,
        request: Request,
        file: Annotated[FastUpload, File()],
        language: Annotated[str, Form()] = "en",
    ) -> Response:
        """What the page draws, as server-sent events: how long the recording is, stretches of its
        curves, its segments as they are found, the end."""
        return await _streamed(request, self._drawn(file, language))

    async def _drawn(self, file: UploadFile, language: str) -> AsyncGenerator[str]:
        with web.upload_folder() as folder:
            path = await asyncio.to_thread(_to_disk, file, folder)
            along = self._along(path, language)
            duration_s, _ = await asyncio.to_thread(read_header, path)
            yield event("timeline.begun", duration_s=round(duration_s, 3))
            segments = (
                event("timeline.segment", segment=one.to_dict())
                async for one in self._counted(along)
            )
            curves = (event("timeline.curves", **one) async for one in drawn(path, duration_s))
            async with aclosing(merged(segments, curves)) as events:
                async for one in events:
                    yield one
        yield event("timeline.done", duration_s=round(along.duration_s, 3))

    async def chat(self, request: Request, asked: ChatRequest) -> Response:
        """The caption of the last recording of a conversation, as the assistant's message; of one
        that is longer than the model reads, the captions of its segments and a summary."""
        self._check_model(asked.model)
        answer = ChatAnswer(self._ready().captioner.meta.name)
        texts = self._texts(audio_of(asked.messages), asked.language)
        if asked.stream:
            return await _streamed(request, answer.streamed(texts))

        async def whole() -> str:
            async with aclosing(texts):
                return "".join([one async for one in texts])

        return JSONResponse(answer.whole(await web.unless_gone(request, whole())))

    async def _texts(self, audio: bytes, language: str) -> AsyncGenerator[str]:
        """What is said of a recording, piece by piece."""
        with web.upload_folder() as folder:
            file = await asyncio.to_thread(_to_disk, audio, folder)
            along, summarizer = self._along(file, language), Summarizer()
            duration_s, _ = await asyncio.to_thread(read_header, file)
            if duration_s <= along.longest_s:
                yield (await self._captioned(file, language=language)).text
                return
            async with aclosing(self._counted(along)) as segments:
                async for one in segments:
                    summarizer.add(one)
                    yield f"{one.line}\n"
        for summary in summarizer.summaries():
            yield "\n" + "\n".join(summary.lines())

    def _ready(self) -> CaptionBatcher:
        if self.batcher is None:
            raise HTTPException(503, "the model is being loaded; try again", {"Retry-After": "2"})
        return self.batcher

    def _check_model(self, name: str | None) -> None:
        served = self._ready().captioner.meta.name
        if name not in (None, served):
            raise HTTPException(404, f"no model {name!r} here; name {served!r}")

    def _along(self, file: Path, language: str) -> Along:
        batcher = self._ready()
        _check_language(batcher, language)
        return Along(batcher, file, language)

    async def _segments(self, file: Path, language: str) -> tuple[Along, list[Segment]]:
        along = self._along(file, language)
        async with aclosing(self._counted(along)) as found:
            return along, [one async for one in found]

    async def _counted(self, along: Along) -> AsyncGenerator[Segment]:
        """The segments; at their end the seconds are counted."""
        async with aclosing(along.segments()) as found:
            async for one in found:
                yield one
        self.metrics.audio.inc(along.duration_s)

    async def _records(self, file: Path, language: str) -> list[Json]:
        return [one.to_dict() for one in (await self._segments(file, language))[1]]

    async def _captioned(self, source: Path, *, language: str, **options: Any) -> Caption:
        batcher = self._ready()
        _check_language(batcher, language)
        future = batcher.submit(source, language=language, **{"candidates": 1, **options})
        caption = await asyncio.wrap_future(future)  # cancelled, it gives up its place
        self.metrics.audio.inc(caption.duration_s)
        return caption


def _check_language(batcher: CaptionBatcher, language: str) -> None:
    known = batcher.captioner.meta.languages
    if language not in known:
        raise HTTPException(400, f"language {language!r}: must be one of {', '.join(known)}")


async def _streamed(request: Request, events: AsyncGenerator[str]) -> Response:
    """The events; until the first is there, what is wrong has a status of its own."""
    first = await web.unless_gone(request, anext(events))

    async def all_() -> AsyncGenerator[str]:
        yield first
        async with aclosing(ending_in_error(events)) as others:
            async for one in others:
                yield one

    return web.EventStream(all_())


CAPTIONS_BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "language": {"type": "string", "default": "en"},
                        "candidates": {"type": "integer", "default": 1},
                        "segments": {"type": "boolean", "default": False},
                        "style": {"type": "string", "default": "full"},
                    },
                }
            },
            "application/json": {
                "schema": CaptionRequest.model_json_schema(),
                "example": {"audio": "UklGR…", "language": "en"},
            },
        },
    }
}


def _token_of(header: str) -> str:
    """The token of an Authorization: a bearer's, or the password of Basic (Label Studio's)."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(token, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return token.strip() if scheme.lower() == "bearer" else ""


def _to_disk(audio: UploadFile | bytes, folder: Path) -> Path:
    """The upload as a file of its own name."""
    name = "" if isinstance(audio, bytes) else PurePath(audio.filename or "").name
    file = folder / web.safe_name(name)
    with file.open("wb") as out:
        if isinstance(audio, bytes):
            out.write(audio)
        else:
            audio.file.seek(0)
            shutil.copyfileobj(audio.file, out)
    return file


def _validated(parse: Callable[[Any], CaptionRequest], given: object) -> CaptionRequest:
    try:
        return parse(given)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return error_response(error.status_code, str(error.detail), error.headers)


def _failed(_: Request, __: Exception) -> Response:
    return error_response(500, "the server failed; what it prints says why")


def _gone(_: Request, __: Exception) -> Response:
    return error_response(499, "the client has gone away")  # nobody reads it; the count does


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return error_response(422, f"{place}: {first['msg']}" if place else str(first["msg"]))


def serve(load: Callable[[], Captioner], listener: socket.socket, settings: ServerSettings) -> None:
    """Serve until Ctrl-C or SIGTERM, which both let what is begun be finished.

    Where the model cannot be loaded the server ends, and its error is raised.
    """
    failures: list[Exception] = []

    def load_or_end() -> Captioner:
        try:
            return load()
        except Exception as error:
            failures.append(error)
            server.should_exit = True
            raise

    app = CaptionServer(load_or_end, settings).app()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=20))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if failures:
        raise failures[0]
