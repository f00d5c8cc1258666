"""What /docs says of each route besides its parameters: requests and answers by example, errors."""

from typing import Any

Json = dict[str, Any]

RECORD: Json = {
    "duration_s": 4.734,
    "language": "en",
    "caption": "The woman puts calmness into every syllable; her voice is soft.",
    "clues": [
        {
            "word": "soft",
            "trait": "volume",
            "verdict": "supported",
            "evidence": "loudness -39.5 LUFS (quiet to -38, loud from -19.5)",
        }
    ],
    "emotion": {
        "angry": 0.0328, "bored": 0.0331, "disgusted": 0.031, "fearful": 0.0294,
        "happy": 0.0348, "neutral": 0.7701, "sad": 0.0359, "surprised": 0.0328,
    },
    "arousal": -0.282,
    "valence": 0.001,
    "gender": "female",
    "pitch": "low",
    "loudness": "quiet",
    "pace": None,
    "confidence": 0.7701,
    "certainty": "sure",
    "second_emotion": None,
    "vocalization": None,
    "unfamiliar": False,
    "model": "mini",
}  # fmt: skip
"""A record of /v1/captions."""

CHAT_REQUEST: Json = {
    "model": "mini",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": "UklGR…", "format": "wav"}}
            ],
        }
    ],
}
CHAT_ANSWER: Json = {
    "id": "chatcmpl-5f0c",
    "created": 1764115200,
    "model": "mini",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": RECORD["caption"]},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
}
TRANSCRIPTION: Json = {"text": RECORD["caption"], "usage": {"type": "duration", "seconds": 5}}
EVENTS = (
    'event: timeline.begun\ndata: {"type": "timeline.begun", "duration_s": 4.734}\n\n'
    'event: timeline.segment\ndata: {"type": "timeline.segment", "segment": {…}}\n\n'
    'event: timeline.done\ndata: {"type": "timeline.done", "duration_s": 4.734}\n\n'
)


def answers(example: object, kind: str = "application/json") -> dict[int | str, Json]:
    """What a route answers where all is well."""
    return {200: {"description": "OK", "content": {kind: {"example": example}}}}


def _errors() -> dict[int | str, Json]:
    told = {
        401: ("No token", "send the server's token: Authorization: Bearer …"),
        413: ("Too large", "a body has at most 200,000,000 bytes here"),
        415: ("Another content type", "text/plain: send multipart/form-data or application/json"),
        422: ("No recording, or one that cannot be captioned", "a.wav: no speech in it: silence"),
        429: ("Too many wait; Retry-After says when to try again", "too many wait; try again"),
        503: ("Loading", "the model is being loaded; try again"),
    }
    return {
        status: {
            "description": reason,
            "content": {"application/json": {"example": {"error": error_body(status, message)}}},
        }
        for status, (reason, message) in told.items()
    }


def error_body(status: int, message: str) -> Json:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"message": message, "type": kind, "param": None, "code": status}


ERRORS = _errors()
"""Errors of the routes that caption."""
