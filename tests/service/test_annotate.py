"""The annotation server: what it answers, what it refuses, whom it shows what, what it keeps."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")

from fastapi.testclient import TestClient

from aligncap.errors import DataError
from aligncap.preference.store import Annotation, Candidate, Clip, ClipCandidates, PreferenceStore
from aligncap.service.annotate import (
    AnnotationQueue,
    Task,
    annotation_app,
    is_shared,
    open_tasks,
    presentation_order,
    recording,
    tasks_of,
)
from support.killer import finish, start
from support.preferences import PROVENANCE, candidate

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{nonce} ${x} </textarea><b>",
)
HOSTS = ["127.0.0.1", "localhost"]


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A folder of recordings, with a secret beside it and a link to that."""
    folder = tmp_path / "audio"
    folder.mkdir()
    tone = 0.1 * np.sin(np.arange(8000) / 9)
    for number in range(6):
        soundfile.write(folder / f"c{number}.flac", tone, 16_000)
    soundfile.write(folder / "c6.aiff", tone, 16_000)
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "inner.flac").symlink_to(folder / "c0.flac")
    return folder


def add(
    store: PreferenceStore, name: str, file: str, texts: tuple[str, ...] = ("He is calm.", "No.")
) -> None:
    candidates = tuple(Candidate(name, "en", text, method="beam") for text in texts)
    store.add_findings([(ClipCandidates(Clip(name, file), "en", candidates), PROVENANCE)])


def client_of(store: PreferenceStore, audio: Path, **options: Any) -> TestClient:
    tasks = tasks_of(store.groups(), per_clip=1)
    queue = AnnotationQueue(store, tasks, audio, **{"share": 0.0, **options})
    app = annotation_app(queue, hosts=HOSTS, token="token")
    headers = {"X-AlignCap-Token": "token"}
    return TestClient(app, base_url="http://127.0.0.1:8765", headers=headers)


@pytest.fixture
def client(store: PreferenceStore, audio: Path) -> Iterator[TestClient]:
    for number in range(6):
        add(store, f"c{number}", f"c{number}.flac")
    with client_of(store, audio) as opened:
        yield opened


def state(client: TestClient, annotator: str = "anna") -> dict[str, Any]:
    return client.get("/api/state", params={"annotator": annotator}).json()


def choose(client: TestClient, now: dict[str, Any], number: int, choice: str) -> dict[str, Any]:
    body = {"id": f"choice-{number:04}", "annotator": now["annotator"], "choice": choice}
    answer = client.post("/api/choice", json=body | {"task": now["task"]["id"]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_sitting_from_the_first_pair_to_the_last(client, store) -> None:
    now = state(client)
    assert (now["progress"], now["last"]) == ({"done": 0, "left": 6}, None)
    assert {now["task"]["first"], now["task"]["second"]} == {"He is calm.", "No."}
    preferred = {}
    for number, choice in enumerate(["first", "second", "tie", "skip", "first", "second"]):
        assert (now["progress"]["done"], now["progress"]["left"]) == (number, 6 - number)
        if choice in now["task"]:
            preferred[f"choice-{number:04}"] = now["task"][choice]
        now = choose(client, now, number, choice)
        assert (now["kept"], now["last"]) == (True, f"choice-{number:04}")
    assert now["task"] is None
    assert len(store.annotations.all()) == 6
    texts = {one.key: one.text for _, _, found in store.groups() for one in found}
    for one in store.annotations.all():
        if one.id in preferred:
            assert texts[getattr(one, one.choice)] == preferred[one.id]


def test_a_choice_that_is_sent_again_counts_once(client, store) -> None:
    now = state(client)
    after = choose(client, now, 0, "first")
    assert choose(client, now, 0, "first") == after | {"kept": False}
    other_window = choose(client, now, 1, "second")
    assert not other_window["kept"]
    assert [one.choice for one in store.annotations.all()] == ["first"]


def test_undo_shows_the_pair_again_and_undoes_no_more_than_that(client, store) -> None:
    first = state(client)
    second = choose(client, first, 0, "first")
    third = choose(client, second, 1, "tie")
    undoing = {"id": third["last"], "annotator": "anna"}
    back = client.post("/api/undo", json=undoing).json()
    assert (back["undone"], back["task"]) == (True, second["task"])
    assert back["progress"] == {"done": 1, "left": 5}
    again = client.post("/api/undo", json=undoing).json()  # its answer was lost
    assert not again["undone"]
    assert [one.id for one in store.annotations.all()] == ["choice-0000"]
    assert not client.post("/api/undo", json={**undoing, "annotator": "bo"}).json()["undone"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_two_people_share_the_work_but_what_is_shared_both_judge(store, audio, share) -> None:
    for number in range(6):
        add(store, f"c{number}", f"c{number}.flac")
    with client_of(store, audio, share=share) as client:
        now, number = {name: state(client, name) for name in ("anna", "bo")}, 0
        while any(one["task"] for one in now.values()):
            for name, one in now.items():
                if one["task"]:
                    now[name] = choose(client, one, number, "first")
                    number += 1
    done = store.annotations.all()
    assert {one.annotator for one in done} == {"anna", "bo"}
    # The last pair may be before both of them at once.
    assert len(done) in ((12,) if share else (6, 7))
    assert len({one.pair for one in done}) == 6


def test_the_page_asks_for_a_name_unless_it_is_somebodys(store, audio) -> None:
    add(store, "c0", "c0.flac")
    with client_of(store, audio) as client:
        assert client.get("/api/state").json() == {"annotator": None}
    with client_of(store, audio, annotator="cy") as client:
        assert state(client, "")["annotator"] == "cy"


def test_a_recording_is_given_out_in_parts_too(client: TestClient, audio: Path) -> None:
    url = "/" + state(client)["task"]["audio"]
    whole = client.get(url)
    assert whole.headers["content-type"] == "audio/flac"
    assert whole.content == (audio / "c0.flac").read_bytes()
    part = client.get(url, headers={"Range": "bytes=4-9"})
    assert (part.status_code, part.content) == (206, whole.content[4:10])


def test_what_browsers_cannot_play_is_sent_as_wav(store: PreferenceStore, audio: Path) -> None:
    add(store, "c6", "c6.aiff")
    with client_of(store, audio) as client:
        answer = client.get("/" + state(client)["task"]["audio"])
    assert answer.headers["content-type"] == "audio/wav"
    samples, rate_hz = soundfile.read(io.BytesIO(answer.content))
    assert (len(samples), rate_hz) == (8000, 16_000)


TRICKS = [
    *("../secret.wav", "..%2fsecret.wav", "%2e%2e/secret.wav", "%2e%2e%2fsecret.wav"),
    *("..%5csecret.wav", "c0.flac", "c0.flac%00", "%00", "link.wav", "%2fetc%2fpasswd"),
    *("//etc/passwd", "a" * 5000),
]


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick[:20])
def test_no_address_leads_to_a_file(client: TestClient, trick: str) -> None:
    for folder in ("/audio/", "/", "/audio/../audio/"):
        answer = client.get(folder + trick)
        assert answer.status_code in (400, 404), trick
        assert b"secret" not in answer.content


@pytest.mark.parametrize(
    "file", ["../secret.wav", "link.wav", "/etc/passwd", "a\0b", "", ".", "none.wav", "../audio"]
)
def test_a_store_cannot_name_a_file_outside_of_the_folder(store, audio, file: str) -> None:
    with pytest.raises(DataError):
        recording(audio, file)
    if "\0" not in file:
        add(store, "evil", file or "x")
        with client_of(store, audio) as client:
            answer = client.get("/" + state(client)["task"]["audio"])
        assert answer.status_code == 404
        assert answer.content != b"secret"


def test_a_file_of_the_folder_may_be_named_in_full_or_by_a_link_within(audio: Path) -> None:
    assert recording(audio, str(audio / "c0.flac")) == (audio / "c0.flac").resolve()
    assert recording(audio, "inner.flac") == (audio / "c0.flac").resolve()


def test_evil_captions_and_names_are_text_everywhere(store: PreferenceStore, audio: Path) -> None:
    add(store, "c0", "c0.flac", EVIL)
    with client_of(store, audio) as client:
        page = client.get("/")
        answer = client.get("/api/state", params={"annotator": EVIL[0]})
    # Captions reach the page as JSON only, and the page writes them as text only.
    assert not any(evil in page.text for evil in EVIL[:2])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert {answer.json()["task"]["first"], answer.json()["task"]["second"]} < set(EVIL)
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    assert not re.search(unsafe, page.text)


def test_the_page_brings_everything_itself_and_nothing_else_may_run(client: TestClient) -> None:
    first, second = client.get("/"), client.get("/")
    policy = first.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy)
    assert nonce
    assert policy.startswith("default-src 'none';")
    assert first.text.count(f'nonce="{nonce[1]}"') == 2
    assert nonce[1] not in second.text
    assert first.headers["x-frame-options"] == "DENY"
    assert first.headers["cache-control"] == "no-store"
    assert not re.findall(r"https?://|@import|url\(", first.text)
    # The policy would stop them.
    assert not re.findall(r"<[^>]+\son\w+=|<[^>]+\sstyle=", first.text)


def test_another_site_can_neither_read_nor_write(client, store) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/api/state", headers={"Host": "evil.example:8765"}).status_code == 400
    now = state(client)
    body = f'{{"id": "choice-1", "annotator": "a", "task": "{now["task"]["id"]}", "choice": "tie"}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        sent = client.post("/api/choice", content=body, headers={"Content-Type": kind})
        assert sent.status_code in (400, 415, 422), kind
    assert store.annotations.all() == []
    assert "access-control-allow-origin" not in client.get("/api/state").headers


@pytest.mark.parametrize(
    "change",
    [
        *({"choice": "third"}, {"id": "short"}, {"id": "x" * 100}, {"annotator": "  "}),
        *({"annotator": "x" * 100}, {"task": "none"}, {"task": 5}),
    ],
)
def test_what_is_no_choice_is_refused(client, store, change: dict[str, object]) -> None:
    body = {"id": "choice-1", "annotator": "anna", "task": state(client)["task"]["id"]}
    answer = client.post("/api/choice", json={**body, "choice": "tie", **change})
    assert answer.status_code in (404, 422)
    assert store.annotations.all() == []


def test_a_store_that_cannot_be_written_asks_the_page_to_try_again(store, audio) -> None:
    class Full(PreferenceStore):
        @property
        def annotations(self):  # type: ignore[no-untyped-def,override]
            raise DataError("s.sqlite: disk is full")

        @annotations.setter
        def annotations(self, value: object) -> None:
            pass

    add(store, "c0", "c0.flac")
    with Full(store.path) as full, client_of(full, audio) as client:
        answer = client.get("/api/state", params={"annotator": "anna"})
    assert (answer.status_code, answer.json()) == (503, {"detail": "s.sqlite: disk is full"})


def test_names_of_any_script_are_welcome(client: TestClient, store: PreferenceStore) -> None:
    name = "安娜 Müller <b>"
    now = client.get(f"/api/state?annotator={quote(name)}").json()
    choose(client, now, 0, "tie")
    assert [one.annotator for one in store.annotations.all()] == [name]


PEOPLE = ("anna", "bo", "cy")


def tasks(clips: int, *, each: int = 3, per_clip: int = 1) -> list[Task]:
    groups = []
    for number in range(clips):
        name = f"c{number:03}"
        texts = [candidate(f"Caption {place} of {name}.", name) for place in range(each)]
        gold = candidate("Gold.", name, method="gold")
        groups.append((Clip(name, f"{name}.wav"), "en", [gold, *texts]))
    return tasks_of(groups, per_clip=per_clip)


def said(task: Task, annotator: str, choice: str = "first") -> Annotation:
    first, second = presentation_order(task, annotator)
    return Annotation(f"{annotator}/{task.id}", annotator, first.key, second.key, choice)


def test_a_clip_gives_so_many_pairs_at_most_and_never_the_corpus_caption() -> None:
    assert len(tasks(10)) == 10
    assert len(tasks(10, per_clip=2)) == 20
    assert len(tasks(10, per_clip=99)) == 30  # of three candidates, three pairs
    assert len({task.pair for task in tasks(10, per_clip=99)}) == 30
    assert tasks(3, each=1) == []
    assert not [one for task in tasks(9) for one in (task.low, task.high) if one.method == "gold"]


def test_the_order_is_stable_and_at_random() -> None:
    found = tasks(400)
    first, again, other = (
        [presentation_order(task, name) for task in found] for name in ("anna", "anna", "bo")
    )
    assert first == again
    assert 150 < sum(one[0] == task.high for one, task in zip(first, found, strict=True)) < 250
    assert 100 < sum(a == b for a, b in zip(first, other, strict=True)) < 300


def test_the_shared_part_is_the_share_asked_for() -> None:
    none, some, every = (
        sum(is_shared(task, share) for task in tasks(1000)) for share in (0.0, 0.2, 1.0)
    )
    assert (none, every) == (0, 1000)
    assert 150 < some < 250


def test_a_task_is_over_when_answered_but_shared_ones_are_for_everybody() -> None:
    found = tasks(40)
    kept: list[Annotation] = []
    for annotator in PEOPLE:
        while left := open_tasks(found, kept, annotator, share=0.25):
            kept.append(said(left[0], annotator))
    for task in found:
        people = list(PEOPLE) if is_shared(task, 0.25) else ["anna"]
        assert [one.annotator for one in kept if one.pair == task.pair] == people


def test_what_one_skips_is_left_to_the_others() -> None:
    (task,) = tasks(1)
    skipped = [said(task, "anna", "skip")]
    assert open_tasks([task], skipped, "anna", share=0) == []
    assert open_tasks([task], skipped, "bo", share=0) == [task]


def test_people_go_different_ways() -> None:
    found = tasks(50)
    orders = [[one.id for one in open_tasks(found, [], name, share=0)] for name in PEOPLE]
    assert len({order[0] for order in orders}) == 3


@pytest.mark.slow
def test_no_choice_is_lost_or_counted_twice_when_the_server_is_killed(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killing_server.py")
    found = json.loads(finish(start(script, tmp_path / "s.sqlite", 10, 1))[0])
    found.pop("resent")
    assert found == {"killed": 10, "same": True, "kept": 80, "whole": "ok"}
