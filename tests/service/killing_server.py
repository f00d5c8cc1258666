"""An annotation server that is killed again and again while a page sends choices to it.

Run as a script, it prints how often it was killed and what the store holds, as JSON.
"""

import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path

import uvicorn

from aligncap.preference.store import PreferenceStore
from aligncap.service.annotate import AnnotationQueue, annotation_app, tasks_of
from support.preferences import fill

CHOICES = ("first", "second", "tie")
TIMEOUT_S = 3.0


def serve(path: Path, listener: socket.socket) -> int:
    """A child that serves at a listener that outlives it; returns its process id."""
    child = os.fork()
    if child == 0:
        with PreferenceStore(path) as store:
            queue = AnnotationQueue(store, tasks_of(store.groups(), per_clip=1), path.parent, 0.0)
            app = annotation_app(queue, hosts=(), token="token")
            config = uvicorn.Config(app, log_level="critical")
            uvicorn.Server(config).run(sockets=[listener])
        os._exit(0)
    return child


def ask(
    port: int, method: str, path: str, body: dict[str, str] | None = None, patience: int = 0
) -> dict[str, object]:
    # The listener stays open while nobody is behind it: whoever knocks then would wait for ever.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S * 2**patience)
    try:
        sent = json.dumps(body) if body else None
        connection.request(
            method, path, sent, {"Content-Type": "application/json", "X-AlignCap-Token": "token"}
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return json.loads(answer.read())
    finally:
        connection.close()


def main(path: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    with PreferenceStore(path) as store:
        fill(store, 8 * kills)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    child, killed, resent, sent = serve(path, listener), 0, 0, {}
    now = {"task": None}
    while not now["task"]:
        with suppress(OSError):  # a slow start
            now = ask(port, "GET", "/api/state?annotator=anna")
    while now["task"]:
        choice = draw.choice(CHOICES)
        body = {"id": f"choice-{len(sent):05}", "annotator": "anna", "choice": choice}
        body["task"] = now["task"]["id"]  # type: ignore[index]
        if killed < kills and len(sent) % 4 == 2:
            threading.Timer(draw.uniform(0, 0.02), os.kill, (child, signal.SIGKILL)).start()
            killed += 1
        for patience in count():
            try:
                now = ask(port, "POST", "/api/choice", body, patience)
                break
            except (OSError, http.client.HTTPException):
                resent += 1
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                child = serve(path, listener)
        sent[body["id"]] = choice
        if os.waitpid(child, os.WNOHANG)[0]:
            child = serve(path, listener)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with PreferenceStore(path) as store:
        found = {one.id: one.choice for one in store.annotations.all()}
        whole = store._database.row("PRAGMA integrity_check")[0]
    report = {"killed": killed, "resent": resent, "same": found == sent, "kept": len(found)}
    print(json.dumps({**report, "whole": whole}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
