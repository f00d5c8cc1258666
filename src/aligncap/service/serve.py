"""`aligncap serve`: captions over HTTP, for the clients that people have already.

    POST /v1/captions               multipart or JSON; the record that `aligncap caption` writes,
                                    with `segments` those of `aligncap caption --segments` too
    POST /v1/audio/transcriptions   fields, formats and events of OpenAI; the text is the captions
    POST /v1/chat/completions       the last `input_audio` of the messages, captioned
    POST /v1/timeline               captions along a recording, and the curves that `/` draws
    GET  /                          the page
    /label-studio, /label-studio/zh Label Studio's machine-learning backend
    GET  /v1/models, /health, /metrics (Prometheus), /docs (OpenAPI)

Recordings and utterances of all clients are captioned together by one model in one thread
(`CaptionBatcher`); a longer recording is gone along in the meantime (`timeline.Along`). What
does not fit its queue is answered 429, a body that is too large 413, one that is no audio 415 or
422; errors have the body that OpenAI's clients read. Uploads lie on disk while they wait. A client
that goes away gives up its place.
"""

import asyncio
import base64
import binascii
import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, Response
from fastapi import UploadFile as FastUpload
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from aligncap.audio.streams import stream
from aligncap.captioner.captioner import Captioner
from aligncap.captioner.segments import MEASURED, Segment
from aligncap.captioner.transcripts import FORMATS
from aligncap.prosody import curves_of_stream
from aligncap.service import web
from aligncap.service.batcher import CaptionBatcher
from aligncap.service.label_studio import LabelStudio, add_routes
from aligncap.service.timeline import Along, between, captioned, joined_text, timeline
from aligncap.values import LANGUAGES, Caption

Json = dict[str, Any]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
    label_studio: LabelStudio = field(default_factory=LabelStudio)
    """Where the recordings of Label Studio's tasks are read from."""


def page() -> Response:
    """The page of `pages/listen.html`."""
    return web.page("listen")


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as OpenAI's clients read it."""
    body = {"error": _error(status, message)}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


def _error(status: int, message: str) -> Json:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"message": message, "type": kind, "param": None, "code": status}


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


class ChatRequest(BaseModel):
    """The part of a chat request that counts here; everything else is passed over."""

    model: str | None = None
    messages: list[Json]
    stream: bool = False


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
        router = APIRouter(dependencies=[Depends(self._authorise)])
        router.add_api_route("/v1/models", self.models, methods=["GET"])
        router.add_api_route("/metrics", self.scrape, methods=["GET"])
        router.add_api_route(
            "/v1/captions", self.captions, methods=["POST"], openapi_extra=CAPTIONS_BODY
        )
        router.add_api_route("/v1/audio/transcriptions", self.transcriptions, methods=["POST"],
                             response_model=None)  # fmt: skip
        router.add_api_route(
            "/v1/chat/completions", self.chat, methods=["POST"], response_model=None
        )
        router.add_api_route("/v1/timeline", self.timeline, methods=["POST"])
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
        begun = time.perf_counter()
        response = await call_next(request)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        self.metrics.requests.labels(path, str(response.status_code)).inc()
        self.metrics.seconds.observe(time.perf_counter() - begun)
        return web.with_headers(response)

    def _authorise(self, request: Request) -> None:
        expected = self.settings.token
        if expected is None:
            return
        given = _token_of(request.headers.get("authorization", ""))
        if not secrets.compare_digest(given.encode(), expected.encode()):
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "send the server's token: Authorization: Bearer …", headers)

    def health(self) -> Response:
        """Whether the model is loaded."""
        if self.batcher is None:
            return JSONResponse({"status": "loading model"}, status_code=503)
        return JSONResponse({"status": "ok"})

    def scrape(self) -> Response:
        """Counts and times, for Prometheus."""
        return PlainTextResponse(generate_latest(self.metrics.registry))

    def models(self) -> Json:
        """The model that captions here."""
        meta = self._ready().captioner.meta
        one = {"id": meta.name, "object": "model", "created": 0, "owned_by": "aligncap"}
        return {"object": "list", "data": [one]}

    async def captions(self, request: Request) -> Json:
        """The caption of a recording, its evidence, and what was estimated of the voice."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            asked = _validated(CaptionRequest.model_validate_json, await request.body())
            audio: UploadFile | bytes = _from_base64(asked.audio)
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
        if asked.segments:
            with web.upload_folder() as folder:
                file = await asyncio.to_thread(_to_disk, audio, folder)
                return await web.unless_gone(request, self._record_along(file, asked))
        caption = await self._caption(
            request, audio, language=asked.language, candidates=asked.candidates
        )
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
            whole = await self._captioned(
                file, language=asked.language, candidates=asked.candidates
            )
            record = whole.to_dict()
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
            events = self._events(file, language)
            # Until something is found, what is wrong has a status of its own.
            first = await web.unless_gone(request, anext(events))
            return web.EventStream(_after(first, events))
        with web.upload_folder() as folder:
            path = await asyncio.to_thread(_to_disk, file, folder)
            along, segments = await web.unless_gone(request, self._segments(path, language))
        return as_transcription(segments, language, along.duration_s, response_format)

    async def _events(self, file: UploadFile, language: str) -> AsyncGenerator[str]:
        """A delta for each caption as it is found, and the end."""
        text = ""
        with web.upload_folder() as folder:
            along = self._along(await asyncio.to_thread(_to_disk, file, folder), language)
            async with aclosing(along.segments()) as segments:
                async for one in segments:
                    if isinstance(one.caption, Caption):
                        delta = (between(language) if text else "") + one.text
                        text += delta
                        yield _event("transcript.text.delta", delta=delta)
            self.metrics.audio.inc(along.duration_s)
        yield _event("transcript.text.done", text=text)

    async def chat(self, request: Request, asked: ChatRequest) -> Response:
        """The caption of the last recording of a conversation, as the assistant's message."""
        self._check_model(asked.model)
        caption = await self._caption(request, _audio_of(asked.messages), language="en")
        answer: Json = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": caption.model,
        }
        if asked.stream:
            return StreamingResponse(_chat_events(answer, caption), media_type="text/event-stream")
        message = {"role": "assistant", "content": caption.text}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**answer, "choices": [choice], "usage": usage})

    def _ready(self) -> CaptionBatcher:
        if self.batcher is None:
            raise HTTPException(503, "the model is being loaded; try again", {"Retry-After": "2"})
        return self.batcher

    def _check_model(self, name: str | None) -> None:
        served = self._ready().captioner.meta.name
        if name not in (None, served):
            raise HTTPException(404, f"no model {name!r} here; name {served!r}")

    async def timeline(
        self,
        request: Request,
        file: Annotated[FastUpload, File()],
        language: Annotated[str, Form()] = "en",
    ) -> Json:
        """The captions along a recording, and the curves that the page draws of it."""
        ended = threading.Event()
        with web.upload_folder() as folder:
            path = await asyncio.to_thread(_to_disk, file, folder)
            sound = takewhile(lambda _: not ended.is_set(), stream(path))
            both = asyncio.gather(
                self._segments(path, language), asyncio.to_thread(curves_of_stream, sound)
            )
            try:
                (along, segments), curves = await web.unless_gone(request, both)
            finally:
                ended.set()  # a thread is not cancelled with what waits for it
            return timeline(curves, segments, along.duration_s)

    def _along(self, file: Path, language: str) -> Along:
        batcher = self._ready()
        _check_language(batcher, language)
        return Along(batcher, file, language)

    async def _segments(self, file: Path, language: str) -> tuple[Along, list[Segment]]:
        along = self._along(file, language)
        async with aclosing(along.segments()) as found:
            segments = [one async for one in found]
        self.metrics.audio.inc(along.duration_s)
        return along, segments

    async def _records(self, file: Path, language: str) -> list[Json]:
        return [one.to_dict() for one in (await self._segments(file, language))[1]]

    async def _caption(
        self, request: Request, audio: UploadFile | bytes, *, language: str, candidates: int = 1
    ) -> Caption:
        with web.upload_folder() as folder:
            file = await asyncio.to_thread(_to_disk, audio, folder)
            caption = self._captioned(file, language=language, candidates=candidates)
            return await web.unless_gone(request, caption)

    async def _captioned(self, source: Path, *, language: str, candidates: int = 1) -> Caption:
        batcher = self._ready()
        _check_language(batcher, language)
        future = batcher.submit(source, language=language, candidates=candidates)
        caption = await asyncio.wrap_future(future)  # cancelled, it gives up its place
        self.metrics.audio.inc(caption.duration_s)
        return caption


def _check_language(batcher: CaptionBatcher, language: str) -> None:
    known = batcher.captioner.meta.languages
    if language not in known:
        raise HTTPException(400, f"language {language!r}: must be one of {', '.join(known)}")


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
                    },
                }
            },
            "application/json": {"schema": CaptionRequest.model_json_schema()},
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
    name = (PurePath(audio.filename or "").name if not isinstance(audio, bytes) else "") or "audio"
    file = folder / "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)[-80:]
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


def _from_base64(text: str) -> bytes:
    _, _, data = text.partition(",") if text.startswith("data:") else ("", "", text)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(422, "the audio is not base64") from None


def _audio_of(messages: Sequence[Json]) -> bytes:
    """The last recording of a conversation; HTTPException where there is none."""
    for message in reversed(messages):
        content = message.get("content")
        for part in reversed(content if isinstance(content, list) else []):
            match part:
                case {"input_audio": {"data": str(data)}}:
                    return _from_base64(data)
                case {"audio_url": {"url": str(url)} | str(url)}:
                    if not url.startswith("data:"):
                        raise HTTPException(400, "audio_url: send the recording as a data: URL")
                    return _from_base64(url)
    raise HTTPException(400, "no input_audio in the messages; send the recording as one")


def as_transcription(
    found: Sequence[Segment], language: str, duration_s: float, form: str
) -> Response:
    """The captions along a recording as /v1/audio/transcriptions answers in each of its formats."""
    segments, text = captioned(found), joined_text(found, language)
    match form:
        case "text":
            return PlainTextResponse(f"{text}\n")
        case "srt" | "vtt":
            kind = {"srt": "text/plain", "vtt": "text/vtt"}[form]
            return PlainTextResponse("\n".join(FORMATS[form](segments)), media_type=kind)
        case "verbose_json":
            table = {
                "task": "transcribe",
                "language": language,
                "duration": round(duration_s, 3),
                "text": text,
                "segments": [_verbose(number, one) for number, one in enumerate(segments)],
            }
            return JSONResponse(table)
        case _:
            usage = {"type": "duration", "seconds": round(duration_s)}
            return JSONResponse({"text": text, "usage": usage})


def _verbose(number: int, segment: Segment) -> Json:
    """A segment of verbose_json: OpenAI's keys, and ours besides."""
    assert isinstance(segment.caption, Caption)
    record = segment.to_dict()
    openai = {
        "id": number, "seek": 0, "start": record["start_s"], "end": record["end_s"],
        "text": segment.text, "tokens": [], "temperature": 0.0, "compression_ratio": 1.0,
        "avg_logprob": segment.caption.log_probability, "no_speech_prob": 0.0,
    }  # fmt: skip
    return {key: record[key] for key in SEGMENT_KEYS if record.get(key) is not None} | openai


SEGMENT_KEYS = ("emotion", "arousal", "valence", "gender", "pitch", "loudness", "pace",
                "confidence", "certainty", "second_emotion", "vocalization", "unfamiliar",
                "clues", *MEASURED)  # fmt: skip
"""What a segment of verbose_json has beyond OpenAI's keys."""


def _event(kind: str, **fields: str) -> str:
    event = {"type": kind, **fields}
    return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


async def _after(first: str, events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """The events; what goes wrong among them is one that OpenAI's clients raise."""
    async with aclosing(events):
        yield first
        try:
            async for one in events:
                yield one
        except HTTPException as error:
            told = json.dumps({"error": _error(error.status_code, str(error.detail))})
            yield f"event: error\ndata: {told}\n\n"


def _chat_events(answer: Json, caption: Caption) -> Iterator[str]:
    chunk = {**answer, "object": "chat.completion.chunk"}
    for delta, reason in (({"role": "assistant", "content": caption.text}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield f"data: {json.dumps({**chunk, 'choices': [choice]}, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return error_response(error.status_code, str(error.detail), error.headers)


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
