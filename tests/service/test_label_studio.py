"""The routes that Label Studio asks, against a made Label Studio."""

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from fastapi import HTTPException

import aligncap
from aligncap.errors import DataError
from aligncap.service.label_studio import LabelStudio, controls_of, fetch, prediction
from support.served import ready, served

CLIP = Path(__file__).resolve().parents[2] / "examples" / "clips" / "woman-slow-soft.ogg"
CONFIG = """
<View>
  <!-- how it was said -->
  <Audio name="audio" value="$audio"/>
  <Labels name="feeling" toName="audio"><Label value="Sad"/><Label value="Neutral"/></Labels>
  <TextArea name="caption" toName="audio" perRegion="true"/>
  <TextArea name="all" toName="audio"/>
  <Choices name="mood" toName="audio"><Choice value="angry"/><Choice value="sad"/></Choices>
  <Choices name="keep" toName="audio"><Choice value="yes"/></Choices>
  <Text name="note" value="$note"/><TextArea name="other" toName="note"/>
</View>
"""
SEGMENTS = [
    {
        "start_s": 0.0,
        "end_s": 1.5,
        "caption": "She is sad.",
        "emotion": {"sad": 0.7, "neutral": 0.3},
    },
    {"start_s": 1.5, "end_s": 2.0, "kind": "silence"},
    {"start_s": 2.0, "end_s": 3.0, "caption": "Calm.", "emotion": {"angry": 0.1, "neutral": 0.9}},
]


@pytest.fixture(scope="module")
def captioner():
    return aligncap.load("mini")


@contextmanager
def label_studio():
    """A server that gives the clip to who has the key; /away leads to another server."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{server.server_port}/free.ogg")
                self.end_headers()
                return
            allowed = self.path == "/free.ogg" or seen[-1][1] == "Token key"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(CLIP.read_bytes() if allowed else b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def test_a_configuration_says_what_a_prediction_fills():
    by_name = {one.name: one for one in controls_of(CONFIG)}
    assert list(by_name) == ["feeling", "caption", "all", "mood", "keep"]
    assert by_name["feeling"].values == ("Sad", "Neutral")
    assert by_name["caption"].per_region
    assert {one.field for one in by_name.values()} == {"audio"}

    found = prediction(controls_of(CONFIG), SEGMENTS)
    kept = [(one["from_name"], one.get("id"), one["value"]) for one in found]
    first = {"start": 0.0, "end": 1.5, "channel": 0}
    second = {"start": 2.0, "end": 3.0, "channel": 0}
    assert kept == [
        ("feeling", "segment-0", {**first, "labels": ["Sad"]}),
        ("feeling", "segment-1", {**second, "labels": ["Neutral"]}),
        ("caption", "segment-0", {**first, "text": ["She is sad."]}),
        ("caption", "segment-1", {**second, "text": ["Calm."]}),
        ("all", None, {"text": ["She is sad.", "Calm."]}),
        ("mood", None, {"choices": ["sad"]}),
    ]
    assert {one["to_name"] for one in found} == {"audio"}
    assert {one["type"] for one in found} == {"labels", "textarea", "choices"}


@pytest.mark.parametrize(
    "config", ["<View>", "", "<!DOCTYPE a [<!ENTITY b 'c'>]><View/>", "<\ud800/>"]
)
def test_what_is_no_configuration_is_refused(config):
    with pytest.raises(DataError, match="label_config: "):
        controls_of(config)


def test_a_recording_is_read_from_label_studio_only(tmp_path):
    with label_studio() as (url, seen):
        known = LabelStudio(url=url, key="key")
        assert fetch("/data/upload/1/a%20b.ogg", tmp_path, known).name == "a b.ogg"
        assert fetch(f"{url}/away", tmp_path, known).read_bytes() == CLIP.read_bytes()
        assert seen[-2:] == [("/away", "Token key"), ("/free.ogg", None)]
        count = len(seen)
        for address, settings, words in (
            ("/data/a.ogg", LabelStudio(), "LABEL_STUDIO_URL"),
            ("//localhost/a.ogg", known, "outside"),
            ("http://169.254.169.254/x", known, "outside"),
            (f"{url}.evil.example/x", known, "outside"),
            ("file:///etc/passwd", known, "outside"),
            ("/data/a.ogg", LabelStudio(url=url), "401; set LABEL_STUDIO_API_KEY"),
            ("/data/a.ogg", LabelStudio(url=url, key="key", largest_bytes=9), "over 9 bytes"),
        ):
            with pytest.raises(aligncap.AlignCapError, match=words):
                fetch(address, tmp_path, settings)
        assert len(seen) == count + 2
        with pytest.raises(HTTPException, match="base64"):
            fetch("data:audio/ogg;base64,&&", tmp_path, known)
    with pytest.raises(aligncap.AlignCapError, match="cannot be fetched"):
        fetch("/a.ogg", tmp_path, known)


def test_tasks_are_captioned_and_the_others_say_why(captioner):
    whole = f"data:audio/ogg;base64,{base64.b64encode(CLIP.read_bytes()).decode()}"
    with (
        label_studio() as (url, _),
        served(
            lambda: captioner, token="s", label_studio=LabelStudio(url=url, key="key")
        ) as address,
    ):
        with httpx.Client(base_url=f"{ready(address)}/label-studio", auth=("x", "s")) as client:
            assert client.get("/health").json()["status"] == "UP"
            project = {"project": "1.2", "schema": CONFIG, "extra_params": ""}
            version = client.post("/setup", json=project).json()["model_version"]
            assert version.startswith("mini/")
            tasks = [
                {"id": 1, "data": {"audio": "/data/upload/1/clip.ogg"}},
                {"id": 2, "data": {"audio": "http://elsewhere.example/x.wav"}},
                {"id": 3, "data": {"audio": whole}},
                {"id": 4, "data": {"text": "nothing"}},
                {"id": 5, "data": {"audio": "/data/upload/1/my clip, 录音.ogg"}},
                {"id": 6, "data": {"audio": "http://[x"}},
                {"id": 7, "data": {"audio": "data:audio/ogg;base64,é"}},
            ]
            body = {"tasks": tasks, "label_config": CONFIG, "project": "1.2", "params": {}}
            answer = client.post("/predict", json=body, timeout=60).json()["results"]
            zh = client.post("/zh/predict", json=body, timeout=60).json()["results"]
            hook = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
            assert client.post("/webhook", json=hook).status_code == 201
            assert client.post("/predict", json={**body, "label_config": "<"}).status_code == 422
        assert httpx.get(f"{address}/label-studio/health").status_code == 401
    for found, language in ((answer, "en"), (zh, "zh")):
        expected = captioner.caption(CLIP, language=language)
        texts = {one["from_name"]: one["value"] for one in found[0]["result"]}
        assert texts["all"] == {"text": [expected.text]}
        assert found[0]["score"] == pytest.approx(expected.confidence, abs=1e-4)
        assert found[2]["result"] == found[0]["result"]
        assert "lies outside" in found[1]["error"]
        assert found[4]["result"] == found[0]["result"]
        assert "is no address" in found[5]["error"]
        assert "not base64" in found[6]["error"]
        assert [one["result"] for one in (found[1], found[3])] == [[], []]
        assert {one["model_version"] for one in found} == {version}
        json.dumps(found)
