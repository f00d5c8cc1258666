"""`aligncap prefer annotate`: the annotation page, served until Ctrl-C."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aligncap.cli.world import World
from aligncap.errors import DataError, MissingModelError
from aligncap.preference.store import open_store
from aligncap.service.annotate_tasks import Task, tasks_of

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  only where it is asked for


@dataclass(frozen=True, slots=True)
class AnnotateWish:
    """What is annotated, by whom, and where the page is."""

    store: Path
    audio_root: Path
    annotator: str | None
    overlap: float
    per_clip: int
    host: str
    port: int


def serve_page(wish: AnnotateWish, *, world: World) -> int:
    """Serve the annotation page; returns 0 when it is stopped."""
    try:
        import uvicorn

        from aligncap.service.annotate import Desk, annotation_app
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"the annotation page needs {error.name}: pip install 'aligncap[serve]'"
        ) from error
    with open_store(wish.store) as store, _listening(wish.host, wish.port) as door:
        tasks = _playable(tasks_of(store.groups(), per_clip=wish.per_clip), wish, world=world)
        desk = Desk(store, tasks, wish.audio_root, wish.overlap, wish.annotator)
        hosts = ["*"] if wish.host in EVERYWHERE else [wish.host, "localhost", "127.0.0.1"]
        server = uvicorn.Server(
            uvicorn.Config(annotation_app(desk, hosts=hosts), log_level="error")
        )
        port = door.getsockname()[1]
        print(
            f"{len(tasks)} pairs to judge at http://{wish.host}:{port}/ (Ctrl-C ends it)",
            file=world.stdout,
            flush=True,
        )
        with suppress(KeyboardInterrupt):  # the usual end
            server.run(sockets=[door])
        world.say(f"{len(store.annotations.all())} choices are in {wish.store}")
    return 0


def _playable(tasks: Sequence[Task], wish: AnnotateWish, *, world: World) -> list[Task]:
    """The tasks whose recordings can be played; DataError where that is none."""
    from aligncap.service.annotate import recording

    found, wrong = [], []
    for task in tasks:
        try:
            recording(wish.audio_root, task.file)
            found.append(task)
        except DataError as error:
            wrong.append(str(error))
    if not found:
        lacking = f"{wish.store}: has no clip with two candidates to compare"
        raise DataError(wrong[0] if wrong else lacking)
    if wrong:
        world.say(f"{len(wrong)} pairs are left out, such as {wrong[0]}")
    return found


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise DataError(
            f"{host}:{port}: cannot listen there ({error.strerror or error}); give another --port"
        ) from error
