"""Faults of what reaches the annotation server: other sites, long bodies, no JSON, many at once."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

import httpx
import uvicorn
from fastapi.testclient import TestClient

from aligncap.preference.store import Candidate, Clip, ClipCandidates, PreferenceStore
from aligncap.service.annotate import (
    MOST_BODY_BYTES,
    MOST_SHOWN,
    TOKEN_HEADER,
    AnnotationQueue,
    annotation_app,
    tasks_of,
)
from support.preferences import PROVENANCE

ADDRESS = "http://127.0.0.1:8765"
TOKEN = {TOKEN_HEADER: "token"}
CLIPS = 4


@pytest.fixture
def queue(store: PreferenceStore, tmp_path: Path) -> AnnotationQueue:
    soundfile.write(tmp_path / "c.flac", 0.1 * np.sin(np.arange(800) / 9), 16_000)
    for number in range(CLIPS):
        name = f"c{number}"
        texts = ("He is calm.", "He is angry.")
        candidates = tuple(Candidate(name, "en", text, method="beam") for text in texts)
        found = ClipCandidates(Clip(name, "c.flac"), "en", candidates)
        store.add_findings([(found, PROVENANCE)])
    return AnnotationQueue(store, tasks_of(store.groups(), per_clip=1), tmp_path, share=1.0)


@pytest.fixture
def client(queue: AnnotationQueue) -> Iterator[TestClient]:
    app = annotation_app(queue, hosts=["127.0.0.1", "localhost"], token="token")
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as opened:
        yield opened


def choice(queue: AnnotationQueue, **changes: object) -> dict[str, Any]:
    body = {"id": "choice-0001", "annotator": "anna", "task": queue.tasks[0].id, "choice": "tie"}
    return {**body, **changes}


def kept(queue: AnnotationQueue) -> int:
    return len(queue.store.annotations.all())


def test_the_page_has_the_token_and_a_choice_with_it_is_taken(
    client: TestClient, queue: AnnotationQueue
) -> None:
    page = client.get("/").text
    assert 'let token = "token";' in page
    assert "{token}" not in page
    for headers in (
        {},
        {"Origin": ADDRESS},
        {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        sent = client.post("/api/choice", json=choice(queue), headers=TOKEN | headers)
        assert sent.status_code == 200, headers
    assert kept(queue) == 1
    assert client.get("/api/token").json() == {"token": "token"}


OTHER_SITES = [
    {"Origin": "http://evil.example"},
    {"Origin": "https://evil.example:8765"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:9999"},  # another program on this machine
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost:8765"},
    {"Origin": "http://127.0.0.1:8765.evil.example"},
    {"Origin": "http://evil.example@127.0.0.1:8765"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "unheard-of"},
    {"Sec-Fetch-Site": "cross-site", "Origin": ADDRESS},
    {TOKEN_HEADER: ""},
    {TOKEN_HEADER: "tokem"},
    {TOKEN_HEADER: "token "[:-1] + "x"},
    {TOKEN_HEADER: "é"},
]


@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
@pytest.mark.parametrize("address", ["/api/choice", "/api/undo"])
def test_another_sites_page_cannot_choose(
    client: TestClient, queue: AnnotationQueue, address: str, headers: dict[str, str]
) -> None:
    sent = client.post("/api/choice", json=choice(queue), headers=TOKEN)
    assert sent.status_code == 200
    encoded = {name: value.encode() for name, value in (TOKEN | headers).items()}
    body = choice(queue, id="choice-0002", annotator="bo")
    if address == "/api/undo":
        body = {"id": "choice-0001", "annotator": "anna"}
    assert client.post(address, json=body, headers=encoded).status_code == 403
    assert kept(queue) == 1


def test_without_the_token_nothing_is_kept(client: TestClient, queue: AnnotationQueue) -> None:
    assert client.post("/api/choice", json=choice(queue)).status_code == 403
    assert kept(queue) == 0


@pytest.mark.parametrize("address", ["/api/state?annotator=eve", "/api/token", "/audio/x"])
def test_another_sites_page_cannot_ask(client: TestClient, address: str) -> None:
    assert client.get(address, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link


NO_JSON = [
    b'{"id": NaN, "annotator": "anna", "task": "x", "choice": "tie"}',
    b'{"id": "choice-0001", "annotator": Infinity, "task": "x", "choice": "tie"}',
    b'{"id": "choice-0001", "annotator": "a", "task": "x", "choice": -Infinity}',
    b'{"id": "choice-\\ud800", "annotator": "anna", "task": "x", "choice": "tie"}',
    b'{"id": "choice-0001", "annotator": "\\udfff", "task": "x", "choice": "tie"}',
    b'{"id": "choice-0001", "annotator": "anna", "task": "x", "choice": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"a":' * 10_000,
    b"[" * 60_000,
    b'{"id": ' + b"9" * 5000 + b"}",
    b"\xff\xfe{",
    b"\xed\xa0\x80",
    b"",
    b"{",
    b"tie",
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: body[:40].decode("latin-1"))
@pytest.mark.parametrize("address", ["/api/choice", "/api/undo"])
def test_what_is_no_json_is_a_fault_of_the_asker(
    client: TestClient, queue: AnnotationQueue, address: str, body: bytes
) -> None:
    headers = TOKEN | {"Content-Type": "application/json"}
    assert client.post(address, content=body, headers=headers).status_code == 400
    assert kept(queue) == 0


NO_CHOICES: list[object] = [
    False,
    [],
    "tie",
    5,
    {},
    {"annotator": "x" * 50_000},
    {"annotator": "a\nb"},
    {"annotator": "a\0"},
    {"annotator": "\u202ebo"},
    {"annotator": 5},
    {"annotator": None},
    {"id": "x" * 50_000},
    {"id": "choice\n0001"},
    {"choice": ["tie"]},
    {"choice": True},
]


@pytest.mark.parametrize("change", NO_CHOICES, ids=lambda change: str(change)[:30])
def test_what_is_no_choice_is_refused_without_being_kept(
    client: TestClient, queue: AnnotationQueue, change: object
) -> None:
    body = choice(queue, **change) if isinstance(change, dict) and change else change
    sent = client.post("/api/choice", json=body, headers=TOKEN)
    assert sent.status_code == 422
    assert len(sent.content) < 1000  # what came is not sent back
    assert kept(queue) == 0


@pytest.mark.parametrize("name", ["x" * 81, "x" * 50_000, "a%00b", "a%0ab", "%1b[31m"])
def test_a_name_is_bounded_and_can_be_shown(
    client: TestClient, queue: AnnotationQueue, name: str
) -> None:
    assert client.get(f"/api/state?annotator={name}").status_code == 422
    assert not queue.shown
    assert client.get(f"/api/state?annotator={'x' * 80}").status_code == 200
    assert client.get("/api/state?annotator=%ed%a0%80").status_code == 200


def test_somebodys_own_page_takes_nobody_elses_choice(
    queue: AnnotationQueue, tmp_path: Path
) -> None:
    own = AnnotationQueue(queue.store, queue.tasks, tmp_path, annotator="cy")
    with TestClient(annotation_app(own, hosts=(), token="token"), base_url=ADDRESS) as client:
        assert client.post("/api/choice", json=choice(queue), headers=TOKEN).status_code == 403
        body = choice(queue, annotator="cy")
        assert client.post("/api/choice", json=body, headers=TOKEN).status_code == 200


def test_who_looks_at_what_is_forgotten_in_the_end(queue: AnnotationQueue) -> None:
    for number in range(MOST_SHOWN + 20):
        queue.state(f"name{number}")
    assert len(queue.shown) == MOST_SHOWN
    assert f"name{MOST_SHOWN + 19}" in queue.shown


@pytest.fixture
def server(queue: AnnotationQueue) -> Iterator[tuple[str, int]]:
    """The server on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = annotation_app(queue, hosts=["127.0.0.1"], token="token")
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = Thread(target=running.run, args=([listener],), daemon=True)
    thread.start()
    yield "127.0.0.1", port
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def head(length: str) -> bytes:
    return (
        f"POST /api/choice HTTP/1.1\r\nHost: 127.0.0.1\r\n{TOKEN_HEADER}: token\r\n"
        f"Content-Type: application/json\r\n{length}\r\n\r\n"
    ).encode()


def test_a_long_body_is_refused_before_it_comes(server: tuple[str, int]) -> None:
    with socket.create_connection(server, timeout=20) as connection:
        connection.sendall(head("Content-Length: 300000000"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_without_a_length_is_refused_once_it_is_long(server: tuple[str, int]) -> None:
    with socket.create_connection(server, timeout=20) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        part = b"a" * 16_000
        for _ in range(MOST_BODY_BYTES // len(part) + 1):
            connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_that_stops_half_way_costs_nothing(
    server: tuple[str, int], queue: AnnotationQueue
) -> None:
    body = json.dumps(choice(queue)).encode()
    with socket.create_connection(server, timeout=20) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body[:30])
    with socket.create_connection(server, timeout=20) as connection:
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert kept(queue) == 1


@pytest.mark.parametrize("length", ["Content-Length: -1", "Content-Length: many",
                                    "Content-Length: 5\r\nContent-Length: 7"])  # fmt: skip
def test_a_length_that_is_none_is_refused(server: tuple[str, int], length: str) -> None:
    with socket.create_connection(server, timeout=20) as connection:
        connection.sendall(head(length))
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_64_people_at_once_lose_no_choice(server: tuple[str, int], queue: AnnotationQueue) -> None:
    def sit(number: int) -> list[int]:
        """Choose until nothing is left; the status of every answer."""
        name, codes = f"p{number}", []
        with httpx.Client(base_url=f"http://{server[0]}:{server[1]}", timeout=60) as client:
            answer = client.get("/api/state", params={"annotator": name})
            while (now := answer.json())["task"]:
                body = {"id": f"{name}-choice-{len(codes)}", "annotator": name, "choice": "first"}
                body["task"] = now["task"]["id"]
                answer = client.post("/api/choice", json=body, headers=TOKEN)
                codes.append(answer.status_code)
        return codes

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(sit, range(64)))
    assert found == [[200] * CLIPS] * 64
    assert kept(queue) == 64 * CLIPS
