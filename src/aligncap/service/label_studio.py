"""Label Studio's machine-learning backend: captions as predictions of its tasks.

What a project asks for stands in its labelling configuration: a TextArea takes the captions, Labels
take a region for each with its emotion, Choices take the likeliest emotion. A recording is read
from Label Studio itself, whose address and key the server was given, and from nowhere else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException as ProtocolError
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from xml.etree import ElementTree as ET

from fastapi import APIRouter, HTTPException
from fastapi import Request as Asked
from pydantic import BaseModel

from aligncap.errors import AudioError, DataError
from aligncap.service.web import from_base64, safe_name, unless_gone, upload_folder
from aligncap.values import EMOTIONS

LOG = logging.getLogger(__name__)

Json = dict[str, Any]
AT_ONCE = 4
"""Tasks of one request that are fetched and captioned at a time."""
LONGEST_PAUSE_S = 30.0
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStudio:
    """Where recordings of tasks are read from."""

    url: str | None = None
    """Of Label Studio; None: only recordings within the tasks themselves (data: URLs)."""
    key: str | None = None
    """Its access token."""
    largest_bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class Control:
    """A tag of a labelling configuration that a prediction can fill."""

    kind: Literal["TextArea", "Labels", "Choices"]
    name: str
    audio: str
    """The name of the Audio tag it belongs to."""
    field: str
    """Where a task's data has that recording."""
    values: tuple[str, ...]
    per_region: bool


def controls_of(config: str) -> list[Control]:
    """The tags of a labelling configuration that captions can fill; DataError for no XML."""
    if "<!" in config.replace("<!--", ""):
        raise DataError("label_config: a document type is not read; take it out")
    try:
        tags = list(ET.fromstring(config).iter())  # noqa: S314  no document type reaches it
    except (ET.ParseError, UnicodeEncodeError) as error:
        raise DataError(f"label_config: is not XML ({error})") from error
    fields = {
        tag.get("name", ""): tag.get("value", "").removeprefix("$")
        for tag in tags
        if tag.tag.lower() in ("audio", "audioplus")
    }
    return [
        Control(
            kind,
            tag.get("name", ""),
            audio,
            fields[audio],
            tuple(one.get("value", "") for one in tag if one.tag in ("Label", "Choice")),
            tag.get("perRegion") == "true",
        )
        for tag in tags
        for kind in ("TextArea", "Labels", "Choices")
        if tag.tag == kind and (audio := tag.get("toName", "")) in fields
    ]


def prediction(controls: Sequence[Control], segments: Sequence[Json]) -> list[Json]:
    """What Label Studio shows of the captions of a recording."""
    spoken = [one for one in segments if "caption" in one]
    found: list[Json] = []
    for control in controls:
        if control.per_region or control.kind == "Labels":
            for number, one in enumerate(spoken):
                place = {"start": one["start_s"], "end": one["end_s"], "channel": 0}
                if value := _value(control, [one]):
                    entry = _entry(control, {**place, **value})
                    found.append({**entry, "id": f"segment-{number}"})
        elif spoken and (value := _value(control, spoken)):
            found.append(_entry(control, value))
    return found


def _entry(control: Control, value: Json) -> Json:
    kind = control.kind.lower()
    return {"from_name": control.name, "to_name": control.audio, "type": kind, "value": value}


def _value(control: Control, segments: Sequence[Json]) -> Json:
    """What stands in a tag; nothing where none of its labels fits."""
    if control.kind == "TextArea":
        return {"text": [one["caption"] for one in segments]}
    named = {value.strip().lower(): value for value in control.values}
    # A segment without words has no emotion.
    emotions = [one["emotion"] for one in segments if one["emotion"]]
    heard = {
        name: sum(one.get(name, 0.0) for one in emotions)
        for name in EMOTIONS
        if name in named and emotions
    }
    if heard:
        chosen = named[max(heard, key=lambda name: heard[name])]
    elif control.kind == "Labels" and len(control.values) == 1:
        (chosen,) = control.values
    else:
        return {}
    return {control.kind.lower(): [chosen]}


class _Redirects(HTTPRedirectHandler):
    """Follows to a storage without showing it the key."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        """The request to the new place."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


_IN_ADDRESSES = ":/?#[]@!$&'()*+,;=%~"
"""What stands in an address for itself."""


def fetch(address: str, folder: Path, settings: LabelStudio) -> Path:
    """A task's recording as a file; AudioError where it may not be read or cannot be, HTTPException
    where it is in the task and no base64."""
    if address.startswith("data:"):
        file = folder / "audio"
        file.write_bytes(from_base64(address))
        return file
    if settings.url is None:
        raise AudioError(f"{address}: start the server with LABEL_STUDIO_URL, to read it there")
    try:
        # Names of files as people write them, with spaces and of any script.
        url = urljoin(settings.url.rstrip("/") + "/", quote(address, safe=_IN_ADDRESSES))
        place = urlsplit(url)
    except ValueError as error:
        raise AudioError(f"{address!a}: is no address") from error
    if place[:2] != urlsplit(settings.url)[:2]:
        raise AudioError(f"{address}: lies outside of {settings.url}; import it there")
    headers = {"Authorization": f"Token {settings.key}"} if settings.key else {}
    file = folder / safe_name(PurePosixPath(unquote(place.path)).name)
    try:
        with (
            build_opener(_Redirects).open(
                Request(url, headers=headers),  # noqa: S310  http(s), as the settings are checked
                timeout=LONGEST_PAUSE_S,
            ) as answer,
            file.open("wb") as out,
        ):
            size = 0
            while block := answer.read(BLOCK_BYTES):
                size += len(block)
                if size > settings.largest_bytes:
                    raise AudioError(f"{address}: has over {settings.largest_bytes:,} bytes")
                out.write(block)
    except HTTPError as error:
        hint = "; set LABEL_STUDIO_API_KEY" if error.code in (401, 403) else ""
        raise AudioError(f"{address}: Label Studio answers {error.code}{hint}") from error
    except (URLError, OSError, ProtocolError) as error:
        raise AudioError(f"{address}: cannot be fetched ({error})") from error
    return file


class Task(BaseModel):
    """One task; its data by field."""

    data: Json


class PredictRequest(BaseModel):
    """What Label Studio sends for predictions; the rest of it is passed over."""

    tasks: list[Task]
    label_config: str


Caption = Callable[[Path, str], Awaitable[list[Json]]]
"""Gives the records of the segments of a file, in a language."""


def add_routes(
    router: APIRouter, prefix: str, language: str, caption: Caption, settings: LabelStudio,
    version: Callable[[], str],
) -> None:  # fmt: skip
    """Label Studio's routes below a prefix, for captions in one language."""

    def health() -> Json:
        return {"status": "UP", "model_class": "aligncap"}

    def setup(_: Json) -> Json:
        return {"model_version": version()}

    async def predict(request: Asked, asked: PredictRequest) -> Json:
        try:
            controls = controls_of(asked.label_config)
        except DataError as error:
            raise HTTPException(422, str(error)) from error
        model, places = version(), asyncio.Semaphore(AT_ONCE)

        async def one(task: Task) -> Json:
            async with places:
                return await _predicted(task.data, controls, language, caption, settings)

        found = await unless_gone(request, asyncio.gather(*map(one, asked.tasks)))
        return {"results": [{"model_version": model, **each} for each in found]}

    def webhook(_: Json) -> Json:
        return {"result": "nothing is learnt from annotations here"}

    for path in ("/", "/health"):
        router.add_api_route(prefix + path, health, methods=["GET"])
    router.add_api_route(f"{prefix}/setup", setup, methods=["POST"])
    router.add_api_route(f"{prefix}/predict", predict, methods=["POST"])
    router.add_api_route(f"{prefix}/webhook", webhook, methods=["POST"], status_code=201)


async def _predicted(
    data: Mapping[str, Any],
    controls: Sequence[Control],
    language: str,
    caption: Caption,
    settings: LabelStudio,
) -> Json:
    """The prediction of one task; of one that cannot be captioned, why."""
    fields = list(
        dict.fromkeys(one.field for one in controls if isinstance(data.get(one.field), str))
    )
    result: list[Json] = []
    scores: list[float] = []
    try:
        for field in fields:
            with upload_folder() as folder:
                file = await asyncio.to_thread(fetch, data[field], folder, settings)
                segments = await caption(file, language)
            result += prediction([one for one in controls if one.field == field], segments)
            scores += [one["confidence"] for one in segments if "caption" in one]
    except HTTPException as error:
        LOG.warning("Label Studio's task: %s", error.detail)
        return {"result": [], "score": 0.0, "error": error.detail}
    return {"result": result, "score": sum(scores) / len(scores) if scores else 0.0}
