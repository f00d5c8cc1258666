"""What OpenAI's clients send and read: errors, transcriptions, chat completions, their streams."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import HTTPException, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from aligncap.captioner.segments import MEASURED, Segment
from aligncap.captioner.transcripts import FORMATS
from aligncap.service.description import CHAT_REQUEST, error_body
from aligncap.service.timeline import captioned, joined_text
from aligncap.service.web import from_base64
from aligncap.values import Caption

Json = dict[str, Any]


class ChatRequest(BaseModel):
    """The part of a chat request that counts here; everything else is passed over."""

    model_config = ConfigDict(json_schema_extra={"example": CHAT_REQUEST})
    model: str | None = None
    messages: list[Json]
    stream: bool | None = False
    language: str = "en"


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as OpenAI's clients read it."""
    body = {"error": error_body(status, message)}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


def audio_of(messages: Sequence[Json]) -> bytes:
    """The last recording of a conversation; HTTPException where there is none."""
    for message in reversed(messages):
        content = message.get("content")
        for part in reversed(content if isinstance(content, list) else []):
            match part:
                case {"input_audio": {"data": str(data)}}:
                    return from_base64(data)
                case {"audio_url": {"url": str(url)} | str(url)}:
                    if not url.startswith("data:"):
                        raise HTTPException(400, "audio_url: send the recording as a data: URL")
                    return from_base64(url)
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


def event(kind: str, **fields: Any) -> str:
    """A server-sent event."""
    told = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {told}\n\n"


async def ending_in_error(events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """The events; what goes wrong among them is one that OpenAI's clients raise."""
    async with aclosing(events):
        try:
            async for one in events:
                yield one
        except HTTPException as error:
            told = json.dumps({"error": error_body(error.status_code, str(error.detail))})
            yield f"event: error\ndata: {told}\n\n"


class ChatAnswer:
    """A chat completion of a model, as a whole or piece by piece."""

    def __init__(self, model: str) -> None:
        self._head: Json = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str) -> Json:
        """The answer at once."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        head = {**self._head, "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": usage}

    async def streamed(self, texts: AsyncGenerator[str]) -> AsyncGenerator[str]:
        """An event for each text as it comes, then the end."""
        role = {"role": "assistant"}
        async with aclosing(texts):
            async for text in texts:
                yield self._chunk({**role, "content": text})
                role = {}
        yield self._chunk({}, "stop")
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: Json, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
