"""The annotation server: a page on which people choose between two captions of a recording.

For one's own machine: it answers only to the names it was started under, and gives out only
recordings that a task of its store names and that lie inside the audio folder. Choices are taken
from its own page only, which has a token; a body has to be short. A choice is in the store before
the answer leaves; one that is sent twice counts once.

Which two captions a person is shown, and in which order, depends on hashes of names only, so a page
that is opened again goes on where it was. `pages/annotate.html` is the page.
"""

import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from itertools import combinations
from pathlib import Path
from threading import RLock
from typing import Annotated, Literal, TypeVar

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, StringConstraints, TypeAdapter, ValidationError

from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.preference.store import Annotation, Candidate, Group, PreferenceStore, digest
from aligncap.preference.variety import claim_set
from aligncap.service import web


@dataclass(frozen=True)
class Task:
    """Two candidates of a clip to choose between."""

    id: str
    file: str
    """The clip's recording, as the store names it."""
    low: Candidate
    """The one whose key comes first."""
    high: Candidate

    @cached_property
    def pair(self) -> tuple[str, str]:
        """The candidates' keys, as `Annotation.pair` has them."""
        return (self.low.key, self.high.key)


def tasks_of(groups: Iterable[Group], *, per_clip: int) -> list[Task]:
    """Up to `per_clip` pairs of each clip's candidates, first those that differ in what they
    claim; captions of the corpus are not shown."""
    if per_clip < 1:
        raise RecipeError(f"pairs of a clip are {per_clip}, must be at least 1")
    tasks = []
    for clip, language, candidates in groups:
        claims = {one.key: claim_set(one.text, language) for one in candidates}
        keyed = sorted((one.key, one) for one in candidates if one.method != "gold")
        pairs = [
            Task(digest("task", low, high), clip.file, first, second)
            for (low, first), (high, second) in combinations(keyed, 2)
        ]
        same = {one.id: claims[one.low.key] == claims[one.high.key] for one in pairs}
        tasks += sorted(pairs, key=lambda task: (same[task.id], task.id))[:per_clip]
    return tasks


def presentation_order(task: Task, annotator: str) -> tuple[Candidate, Candidate]:
    """The two candidates as this person is shown them: the same each time, at random over all."""
    swapped = _uniform("order", annotator, task.id) < 0.5
    return (task.high, task.low) if swapped else (task.low, task.high)


def is_shared(task: Task, share: float) -> bool:
    """Whether everybody is asked: so `share` of the tasks are, to see how far people agree."""
    return _uniform("shared", task.id) < share


def _uniform(*parts: str) -> float:
    """A number in [0, 1) that depends on these words only."""
    return int(digest(*parts)[:12], 16) / 16**12


def open_tasks(
    tasks: Sequence[Task], annotations: Collection[Annotation], annotator: str, *, share: float
) -> list[Task]:
    """What this person is still to be asked, the next first.

    A task that is not shared is over when anybody has answered it; one that was skipped is left
    to the others. Each person has an order of their own, so two rarely meet.
    """
    mine = {one.pair for one in annotations if one.annotator == annotator}
    answered = {one.pair for one in annotations if one.value is not None}
    left = [
        task
        for task in tasks
        if task.pair not in mine and (is_shared(task, share) or task.pair not in answered)
    ]
    return sorted(left, key=lambda task: digest(annotator, task.id))


LONGEST_NAME = 80


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be shown")
    return text


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_NAME),
    AfterValidator(_printable),
]
Id = Annotated[str, StringConstraints(min_length=8, max_length=80), AfterValidator(_printable)]
NAME: TypeAdapter[str] = TypeAdapter(Name)
State = dict[str, object]


class ChoiceRequest(BaseModel):
    """What the page sends when a person has chosen."""

    id: Id
    annotator: Name
    task: str
    choice: Literal["first", "second", "tie", "skip"]


class UndoRequest(BaseModel):
    """What the page sends to take a choice back."""

    id: Id
    annotator: Name


MOST_SHOWN = 1000
"""People whose present task is remembered; of more, the one who asked longest ago is forgotten."""


@dataclass(frozen=True)
class AnnotationQueue:
    """What is to be annotated, by whom and how far; needs no web server."""

    store: PreferenceStore
    tasks: Sequence[Task]
    audio_root: Path
    share: float = 0.2
    """Of the tasks, as many are given to everybody."""
    annotator: str | None = None
    """Whose page it is, where only one person uses it."""
    by_id: Mapping[str, Task] = field(init=False)
    shown: dict[str, str] = field(default_factory=dict)
    """The task that each person sees now, so that others are given another one if there is one; not
    kept when the server stops."""
    _lock: RLock = field(default_factory=RLock, init=False)
    """Requests are answered by several threads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_id", {task.id: task for task in self.tasks})

    def state(self, annotator: str, first: Task | None = None) -> State:
        """What the page shows: the next task (or `first`), progress, and what can be undone."""
        with self._lock:
            annotations = self.store.annotations.all()
            left = open_tasks(self.tasks, annotations, annotator, share=self.share)
            self.shown.pop(annotator, None)
            seen_by_others = set(self.shown.values())
            left.sort(key=lambda one: one.id in seen_by_others)
            task = first or (left[0] if left else None)
            self.shown[annotator] = task.id if task else ""
            if len(self.shown) > MOST_SHOWN:
                del self.shown[next(iter(self.shown))]
        mine = [one for one in annotations if one.annotator == annotator]
        pairs = {one.pair for one in self.tasks}
        return {
            "annotator": annotator,
            "task": self._as_json(task, annotator) if task else None,
            "progress": {"done": sum(one.pair in pairs for one in mine), "left": len(left)},
            "last": mine[-1].id if mine else None,
        }

    def choose(self, choice: ChoiceRequest) -> State:
        """Keep a choice; KeyError for a task that is not here."""
        first, second = presentation_order(self.by_id[choice.task], choice.annotator)
        annotation = Annotation(choice.id, choice.annotator, first.key, second.key, choice.choice)
        with self._lock:
            kept = self.store.annotations.add(annotation)
            return {"kept": kept, **self.state(choice.annotator)}

    def undo(self, request: UndoRequest) -> State:
        """Take a choice back, and show its task again."""
        with self._lock:
            pairs = {one.id: one.pair for one in self.store.annotations.all()}
            undone = self.store.annotations.undo(request.id, request.annotator)
            again = [task for task in self.tasks if undone and task.pair == pairs.get(request.id)]
            state = self.state(request.annotator, again[0] if again else None)
            return {"undone": undone, **state}

    def _as_json(self, task: Task, annotator: str) -> State:
        first, second = presentation_order(task, annotator)
        return {
            "id": task.id,
            "audio": f"audio/{task.id}",
            "language": first.language,
            "first": first.text,
            "second": second.text,
        }


def recording(root: Path, file: str) -> Path:
    """A recording that a store names, inside of `root`; DataError for any other file.

    Links are followed first, so one that leads out of the folder is refused.
    """
    if not file or "\0" in file:
        raise DataError(f"{file!r}: is no name of a recording")
    folder, path = root.resolve(), (root / file).resolve()
    if not path.is_relative_to(folder):
        raise DataError(f"{file}: lies outside of {root}; give its folder as --audio-root")
    if not path.is_file():
        raise DataError(f"{file}: no such recording in {root}; give its folder as --audio-root")
    return path


def playable(tasks: Iterable[Task], root: Path) -> tuple[list[Task], list[str]]:
    """The tasks whose recordings can be played, and what is wrong with the others."""
    found, wrong = [], []
    for task in tasks:
        try:
            recording(root, task.file)
            found.append(task)
        except DataError as error:
            wrong.append(str(error))
    return found, wrong


PLAYED_BY_BROWSERS: Mapping[str, str] = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
}
"""Suffix → media type; any other recording is sent as the 16 kHz waveform of the model's input."""


TOKEN_HEADER = "X-AlignCap-Token"  # noqa: S105  a header's name
MOST_BODY_BYTES = 2**16


def _refusal(request: Request, token: str) -> str:
    """Why a request is none of the server's own page; "" where it may be."""
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if request.url.path != "/" and site not in (None, "same-origin", "none"):
        return "another site's page may not ask"
    if request.method in ("GET", "HEAD"):
        return ""
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return "another site's page may not ask"
    if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), token.encode()):
        return "the token is another one; load the page again"
    return ""


async def _table(request: Request) -> object:
    """The JSON of a body, strictly: 400 for NaN, lone surrogates, and what nests too deep."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON")
    try:
        table = json.loads(await request.body(), parse_constant=_refuse_constant)
        json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is no JSON") from error
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


Body = Annotated[object, Depends(_table)]
Asked = TypeVar("Asked", bound=BaseModel)


def _valid(kind: type[Asked], table: object, queue: AnnotationQueue) -> Asked:
    """A request's values; 422 where they do not fit, 403 where the page is another person's."""
    try:
        asked = kind.model_validate(table)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise HTTPException(422, "; ".join(faults)) from error
    if queue.annotator not in (None, getattr(asked, "annotator", None)):
        raise HTTPException(403, f"this page is that of {queue.annotator}")
    return asked


def annotation_app(queue: AnnotationQueue, *, hosts: Sequence[str], token: str = "") -> FastAPI:
    """The server; `hosts` are the names it answers to (none: any), `token` is what its page sends
    with a choice, a random one if not given."""
    token = token or secrets.token_urlsafe(16)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(web.LimitedBody, largest_bytes=MOST_BODY_BYTES)  # the innermost

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not web.answers_to(hosts, request.headers.get("host", "")):
            return web.with_headers(JSONResponse({"detail": "another host's name"}, 400))
        detail = _refusal(request, token)
        answer = JSONResponse({"detail": detail}, 403) if detail else await call_next(request)
        return web.with_headers(answer)

    # A full disk or a locked store: the page keeps the choice and sends it again.
    app.add_exception_handler(
        AlignCapError, lambda _, error: JSONResponse({"detail": str(error)}, status_code=503)
    )

    @app.get("/")
    def page() -> HTMLResponse:
        return web.page("annotate", token=token)

    _add_choices(app, queue, token)

    @app.get("/audio/{task}")
    def audio(task: str) -> Response:
        if task not in queue.by_id:
            raise HTTPException(404, "no such recording")
        try:
            return _sound(recording(queue.audio_root, queue.by_id[task].file))
        except AlignCapError as error:
            raise HTTPException(404, str(error)) from error

    return app


def _add_choices(app: FastAPI, queue: AnnotationQueue, token: str) -> None:
    """What the page asks, and the choices that it sends."""

    @app.get("/api/state")
    def state(annotator: str = "") -> State:
        name = queue.annotator or annotator.strip()
        if not name:
            return {"annotator": None}
        try:
            return queue.state(NAME.validate_python(name))
        except ValidationError as error:
            raise HTTPException(422, f"a name has 1 to {LONGEST_NAME} letters") from error

    @app.get("/api/token")
    def present_token() -> State:
        # For a page from before the server was started again; another site cannot read this.
        return {"token": token}

    @app.post("/api/choice")
    def choose(table: Body) -> State:
        choice = _valid(ChoiceRequest, table, queue)
        if choice.task not in queue.by_id:
            raise HTTPException(404, "no such task; load the page again")
        return queue.choose(choice)

    @app.post("/api/undo")
    def undo(table: Body) -> State:
        return queue.undo(_valid(UndoRequest, table, queue))


def _sound(file: Path) -> Response:
    kind = PLAYED_BY_BROWSERS.get(file.suffix.lower())
    if kind is not None:
        return FileResponse(file, media_type=kind)
    import soundfile

    from aligncap.audio import load
    from aligncap.values import RATE_HZ

    data = BytesIO()
    soundfile.write(data, load(file).samples, RATE_HZ, format="WAV")
    return Response(data.getvalue(), media_type="audio/wav")


def serve(queue: AnnotationQueue, listener: socket.socket, *, host: str) -> None:
    """Serve the page until Ctrl-C."""
    everywhere = ("0.0.0.0", "::")  # noqa: S104  only where it is asked for
    hosts = [] if host in everywhere else [host, "localhost", "127.0.0.1"]
    config = uvicorn.Config(annotation_app(queue, hosts=hosts), log_level="error")
    with suppress(KeyboardInterrupt):  # the usual end
        uvicorn.Server(config).run(sockets=[listener])
