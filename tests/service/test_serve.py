"""The caption server, by the clients that people have: openai's own, and plain HTTP."""

import base64
import io
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import openai
import pytest
import soundfile
import srt
from openai.types.audio import Transcription
from openai.types.chat import ChatCompletion

import aligncap
from aligncap.audio import load
from aligncap.cli.main import main
from aligncap.errors import AudioError
from aligncap.service.batcher import CaptionBatcher, QueueFullError
from aligncap.service.serve import LOOPBACK
from aligncap.values import RATE_HZ
from support.served import Teller, ready, served

PATIENCE_S = 600.0
"""A busy machine is no failure."""
post, get = partial(httpx.post, timeout=PATIENCE_S), partial(httpx.get, timeout=PATIENCE_S)

CLIPS = Path(__file__).resolve().parents[2] / "examples" / "clips"
CLIP = CLIPS / "woman-slow-soft.ogg"
OTHER = CLIPS / "man-loud-fast.ogg"


@pytest.fixture(scope="module")
def captioner():
    return aligncap.load("mini")


@pytest.fixture(scope="module")
def address(captioner):
    with served(lambda: captioner, largest_upload_bytes=2_000_000) as url:
        yield ready(url)


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_the_openai_client_captions_in_every_format(captioner, client):
    expected = captioner.caption(CLIP)

    def ask(**options):
        return client.audio.transcriptions.create(file=CLIP, model="mini", **options)

    assert ask().text == expected.text
    assert ask(response_format="text").strip() == expected.text
    assert ask(language="zh").text == captioner.caption(CLIP, language="zh").text
    end = f"00:00:0{expected.duration_s:.3f}"
    assert ask(response_format="srt") == (
        f"1\n00:00:00,000 --> {end.replace('.', ',')}\n{expected.text}\n"
    )
    assert ask(response_format="vtt") == (f"WEBVTT\n\n00:00:00.000 --> {end}\n{expected.text}\n")
    verbose = ask(response_format="verbose_json", timestamp_granularities=["segment"])
    (segment,) = verbose.segments
    assert (verbose.text, segment.text) == (expected.text, expected.text)
    assert (segment.start, segment.end) == (0.0, pytest.approx(expected.duration_s, abs=1e-3))
    assert segment.model_extra["emotion"] == expected.to_dict()["emotion"]
    events = list(ask(stream=True))
    assert [one.type for one in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == expected.text


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Two clips with a pause between."""
    return recording(tmp_path_factory.mktemp("talk") / "talk.wav", [CLIP, OTHER])


def recording(path, clips, pause_s=1.5):
    """The clips one after the other, a pause after each."""
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    soundfile.write(
        path,
        np.concatenate([one for clip in clips for one in (load(clip).samples, pause)]),
        RATE_HZ,
    )
    return path


def test_the_openai_client_finds_the_model_and_no_other(captioner, client):
    name = captioner.meta.name
    assert [one.id for one in client.models.list()] == [name]
    assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match=f"name '{name}'"):
        client.models.retrieve("some/other")


def test_the_openai_client_is_given_the_segments_of_the_command_line(captioner, client, talk):
    offline = list(captioner.segments(talk))
    spoken = [one for one in offline if one.kind == "speech"]
    assert len(spoken) == 2
    whole = " ".join(one.text for one in spoken)
    times = [(round(one.start_s, 3), round(one.end_s, 3)) for one in spoken]

    def ask(**options):
        return client.audio.transcriptions.create(file=talk, model="mini", **options)

    verbose = ask(response_format="verbose_json")
    assert verbose.text == ask().text == ask(response_format="text").strip() == whole
    assert float(verbose.duration) == pytest.approx(soundfile.info(talk).duration, abs=1e-3)
    assert [one.id for one in verbose.segments] == [0, 1]
    for found, expected, (start, end) in zip(verbose.segments, spoken, times, strict=True):
        assert (found.text, found.start, found.end) == (expected.text, start, end)
        ours = expected.to_dict()
        for name in ("emotion", "arousal", "valence", "confidence", "clues", "loudness_lufs"):
            assert found.model_extra[name] == ours[name]
    cues = list(srt.parse(ask(response_format="srt"), ignore_errors=False))
    assert [one.content for one in cues] == [one.text for one in spoken]
    assert [(one.start.total_seconds(), one.end.total_seconds()) for one in cues] == times
    blocks = ask(response_format="vtt").strip().split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert [one.split("\n")[1] for one in blocks[1:]] == [one.text for one in spoken]
    *deltas, last = ask(stream=True)
    assert [one.type for one in deltas] == ["transcript.text.delta"] * 2
    assert "".join(one.delta for one in deltas) == last.text == whole
    zh = ask(stream=True, language="zh")
    assert list(zh)[-1].text == "".join(
        one.text for one in captioner.segments(talk, language="zh") if one.kind == "speech"
    )


def test_the_openai_client_chats_about_a_recording(captioner, client):
    data = base64.b64encode(CLIP.read_bytes()).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    messages = [{"role": "user", "content": [audio, {"type": "text", "text": "How is it said?"}]}]
    expected = captioner.caption(CLIP).text

    answer = client.chat.completions.create(model="mini", messages=messages)
    chunks = client.chat.completions.create(model="mini", messages=messages, stream=True)

    assert answer.choices[0].message.content == expected
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == expected
    assert [one.id for one in client.models.list()] == ["mini"]


def test_the_openai_client_is_told_of_all_of_a_long_recording(captioner, client, tmp_path, capsys):
    long = recording(tmp_path / "long.wav", [OTHER, CLIP] * 4)
    main(["caption", str(long), "--segments"])
    expected = capsys.readouterr().out
    assert expected.count(" – ") > 8
    data = base64.b64encode(long.read_bytes()).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    messages = [{"role": "user", "content": [audio]}]

    answer = client.chat.completions.create(model="mini", messages=messages)
    chunks = client.chat.completions.create(model="mini", messages=messages, stream=True)
    zh = client.chat.completions.create(
        model="mini", messages=messages, extra_body={"language": "zh"}
    )

    assert f"{answer.choices[0].message.content}\n" == expected
    pieces = [one.choices[0].delta.content or "" for one in chunks]
    assert len(pieces) > 8
    assert f"{''.join(pieces)}\n" == expected
    first = next(one for one in captioner.segments(long, language="zh") if one.kind == "speech")
    assert first.text in zh.choices[0].message.content


def test_a_record_is_that_of_the_command_line(address, capsys):
    main(["caption", str(CLIP), "--format", "jsonl", "--candidates", "3"])
    expected = json.loads(capsys.readouterr().out)
    del expected["file"]

    form = post(
        f"{address}/v1/captions",
        files={"file": (CLIP.name, CLIP.read_bytes())},
        data={"candidates": "3"},
    )
    body = {"audio": base64.b64encode(CLIP.read_bytes()).decode(), "candidates": 3}
    plain = post(f"{address}/v1/captions", json=body)

    assert form.json() == plain.json() == expected


def test_a_record_has_the_style_that_is_asked_for(captioner, address):
    def ask(**fields):
        files = {"file": (CLIP.name, CLIP.read_bytes())}
        return post(f"{address}/v1/captions", files=files, data=fields)

    assert ask(style="short").json() == captioner.caption(CLIP, style="short").to_dict()
    for fields in ({"style": "long"}, {"style": "short", "segments": "true"}):
        answer = ask(**fields)
        assert (answer.status_code, "style" in answer.json()["error"]["message"]) == (422, True)


def test_the_description_has_examples_that_are_true(captioner, address):
    told = get(f"{address}/openapi.json").json()
    routes = {path: told["paths"][path]["post"] for path in told["paths"] if "/v1/" in path[:4]
              and "post" in told["paths"][path]}  # fmt: skip
    assert len(routes) == 4
    examples = {}
    for path, route in routes.items():
        (answer,) = route["responses"]["200"]["content"].values()
        examples[path] = answer["example"]
        for status in ("401", "413", "415", "422", "429", "503"):
            error = route["responses"][status]["content"]["application/json"]["example"]["error"]
            assert error["code"] == int(status)
    record = captioner.caption(CLIP).to_dict()
    known = [name for name, value in record.items() if value is not None]  # null is left out
    assert list(examples["/v1/captions"]) == known
    assert set(examples["/v1/captions"]["clues"][0]) == set(record["clues"][0])
    assert Transcription(**examples["/v1/audio/transcriptions"]).text
    chat = ChatCompletion(**examples["/v1/chat/completions"])
    assert chat.choices[0].message.content
    asked = told["components"]["schemas"]["ChatRequest"]["example"]
    (part,) = asked["messages"][0]["content"]
    part["input_audio"]["data"] = base64.b64encode(CLIP.read_bytes()).decode()
    answer = post(f"{address}/v1/chat/completions", json=asked).json()
    assert set(answer) == set(examples["/v1/chat/completions"])


def test_a_record_has_its_segments_where_they_are_asked_for(captioner, address, talk, tmp_path):
    def ask(file, **options):
        form = post(
            f"{address}/v1/captions",
            files={"file": (file.name, file.read_bytes())},
            data={"segments": "true", **options},
        )
        body = {"audio": base64.b64encode(file.read_bytes()).decode(), "segments": True, **options}
        assert post(f"{address}/v1/captions", json=body).json() == form.json()
        return form.json()

    found = ask(talk)
    assert found.pop("segments") == [one.to_dict() for one in captioner.segments(talk)]
    assert found == captioner.caption(talk).to_dict()
    found = ask(CLIP, language="zh")
    (segment,) = found.pop("segments")
    assert found == captioner.caption(CLIP, language="zh").to_dict()
    end_s = pytest.approx(found["duration_s"], abs=1e-3)
    assert segment == segment | found | {"start_s": 0.0, "end_s": end_s, "kind": "speech"}
    # Nothing of the whole is heard at once of what is longer than the model reads.
    long = recording(tmp_path / "long.wav", [OTHER, CLIP] * 4)
    assert soundfile.info(long).duration > 30
    found, offline = ask(long), list(captioner.segments(long))
    assert found == {
        "duration_s": pytest.approx(soundfile.info(long).duration, abs=1e-3),
        "language": "en",
        "caption": " ".join(one.text for one in offline if one.kind == "speech"),
        "model": "mini",
        "segments": [one.to_dict() for one in offline],
    }


def events_of(lines):
    """The data of server-sent events."""
    return (json.loads(one[5:]) for one in lines if one.startswith("data:"))


def test_a_timeline_has_the_captions_and_what_is_drawn(captioner, address, talk):
    def ask(file, **fields):
        files = {"file": (file.name, file.read_bytes())}
        answer = post(f"{address}/v1/timeline", files=files, data=fields)
        first, *found, last = events_of(answer.text.splitlines())
        length_s = pytest.approx(soundfile.info(file).duration, abs=1e-3)
        assert first == {"type": "timeline.begun", "duration_s": length_s}
        assert last == {"type": "timeline.done", "duration_s": length_s}
        (curves,) = (one for one in found if one["type"] == "timeline.curves")
        return [one["segment"] for one in found if one["type"] == "timeline.segment"], curves

    for language in ("en", "zh"):
        expected = captioner.caption(CLIP, language=language).to_dict()
        (segment,), curves = ask(CLIP, language=language)
        end_s = pytest.approx(expected["duration_s"], abs=1e-3)
        assert segment == segment | expected | {"start_s": 0.0, "end_s": end_s, "kind": "speech"}
    points = {len(curves[name]) for name in ("peak", "pitch_hz", "loudness_lufs")}
    assert points == {math.ceil(expected["duration_s"] / curves["step_s"])}
    voiced = [one for one in curves["pitch_hz"] if one is not None]
    assert 150 < np.median(voiced) < 230
    assert ask(talk)[0] == [one.to_dict() for one in captioner.segments(talk)]


JSON = {"Content-Type": "application/json"}
SILENCE = io.BytesIO()
soundfile.write(SILENCE, np.zeros(16000), 16000, format="WAV")
LONG_SILENCE = io.BytesIO()
soundfile.write(LONG_SILENCE, np.zeros(640_000), 16000, format="WAV")


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("/v1/captions", {"files": {"file": ("a.wav", b"no sound")}}, 422, "a.wav: "),
        ("/v1/captions", {"files": {"file": ("a.wav", b"")}}, 422, "a.wav: "),
        ("/v1/captions", {"files": {"file": ("s.wav", SILENCE.getvalue())}}, 422, "no speech"),
        ("/v1/captions", {"files": {"file": ("../x/../é\n.wav", b"?")}}, 422, "é%0A.wav: "),
        ("/v1/captions", {"data": {"file": "a.wav"}}, 415, "multipart/form-data"),
        ("/v1/captions", {"files": {"sound": ("a.wav", b"")}}, 422, "`file`"),
        ("/v1/captions", {"content": b"RIFF"}, 415, "multipart/form-data"),
        ("/v1/captions", {"json": {"audio": "&&"}}, 422, "base64"),
        ("/v1/captions", {"content": b"{", "headers": JSON}, 422, "JSON"),
        ("/v1/captions", {"json": {"audio": "", "candidates": 99}}, 422, "candidates"),
        ("/v1/captions", {"json": {"audio": "AAAA", "language": "xx"}}, 400, "one of en, zh"),
        ("/v1/captions", {"files": {"file": ("a", bytes(3_000_000))}}, 413, "2,000,000 bytes"),
        ("/v1/audio/transcriptions", {"data": {"file": "text"}}, 422, "file"),
        (
            "/v1/audio/transcriptions",
            {"files": {"file": ("a", b"")}, "data": {"model": "whisper-9"}},
            404,
            "'mini'",
        ),
        ("/v1/chat/completions", {"json": {"messages": []}}, 400, "input_audio"),
        (
            "/v1/chat/completions",
            {"json": {"messages": [{"content": [{"audio_url": "http://169.254.0.1/"}]}]}},
            400,
            "data:",
        ),
        ("/v1/timeline", {"files": {"file": ("a.wav", b"no sound")}}, 422, "a.wav: "),
        (
            "/v1/audio/transcriptions",
            {"files": {"file": ("s.wav", LONG_SILENCE.getvalue())}, "data": {"stream": "true"}},
            422,
            "s.wav: no speech in it: silence",
        ),
        ("/v1/nothing", {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_captioned_is_answered_in_one_line(address, path, request_, status, words):
    answer = post(f"{address}{path}", **request_)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_what_goes_wrong_in_a_stream_is_its_last_event(address):
    files = {"file": ("s.wav", SILENCE.getvalue())}
    answer = post(f"{address}/v1/timeline", files=files)
    *_, last = events_of(answer.text.splitlines())
    assert last["error"]["code"] == 422
    assert last["error"]["message"].startswith("s.wav: no speech")


def test_a_body_of_unknown_length_is_stopped_where_it_grows_too_large(address):
    chunks = (bytes(500_000) for _ in range(100))
    headers = {"Content-Type": "application/json"}
    answer = post(f"{address}/v1/captions", content=chunks, headers=headers)
    assert answer.status_code == 413


def test_a_token_is_asked_for_everywhere_but_at_health(captioner):
    with served(lambda: captioner, token="s3cret") as url:
        ready(url)
        for token in ("no", "s3cre", "s3cret"):
            headers = {"Authorization": f"Bearer {token}"}
            status = get(f"{url}/v1/models", headers=headers).status_code
            assert status == (200 if token == "s3cret" else 401)
        assert get(f"{url}/metrics").status_code == 401


def test_the_token_is_looked_at_before_the_body(captioner):
    with served(lambda: captioner, token="s3cret", largest_upload_bytes=1000) as url:
        address = ready(url).removeprefix("http://").split(":")
        head = "POST /v1/captions HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n"
        with socket.create_connection((address[0], int(address[1])), timeout=PATIENCE_S) as line:
            line.sendall(head.encode())  # and nothing of its body
            assert line.recv(100).startswith(b"HTTP/1.1 401 ")
        for body in (b"{bad", b"0" * 2000):
            assert post(f"{url}/v1/chat/completions", content=body).status_code == 401


def test_another_hosts_name_is_not_answered(captioner):
    with served(lambda: captioner, names=LOOPBACK) as url:
        port = ready(url).rpartition(":")[2]
        for host, status in (
            ("localhost", 200), (f"127.0.0.1:{port}", 200), (f"[::1]:{port}", 200),
            ("evil.example", 400), (f"localhost.evil.example:{port}", 400), ("[x", 400),
        ):  # fmt: skip
            assert get(f"{url}/v1/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("name", ["..", "😀" * 90 + ".ogg", ".", "../../etc/a.ogg", "a\\b.ogg"])
def test_a_name_of_an_upload_is_no_path_and_not_too_long(address, name):
    answer = post(f"{address}/v1/captions", files={"file": (name, CLIP.read_bytes())})
    assert answer.status_code == 200


def test_what_fails_within_is_answered_and_counted(captioner):
    def broken():
        raise RuntimeError("broken")

    with served(lambda: captioner) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr("aligncap.service.serve.generate_latest", lambda _: broken())
        answer = get(f"{ready(url)}/metrics")
        patch.undo()
        assert (answer.status_code, answer.json()["error"]["message"][:10]) == (500, "the server")
        assert 'path="/metrics",status="500"' in get(f"{url}/metrics").text


def test_health_and_requests_wait_for_the_model(captioner):
    loaded = threading.Event()

    def load():
        loaded.wait()
        return captioner

    with served(load) as url:
        file = {"file": CLIP.read_bytes()}
        early = post(f"{url}/v1/captions", files=file)
        assert get(f"{url}/health").json() == {"status": "loading model"}
        assert (early.status_code, early.headers["retry-after"]) == (503, "2")
        loaded.set()
        assert post(f"{ready(url)}/v1/captions", files=file).status_code == 200


def test_many_clients_get_the_captions_that_one_gets(captioner, address):
    clips = [CLIP, OTHER] * 6
    expected = {clip: captioner.caption(clip).text for clip in (CLIP, OTHER)}

    def ask(clip):
        answer = post(f"{address}/v1/captions", files={"file": clip.read_bytes()})
        return answer.json()["caption"]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, clips)) == [expected[clip] for clip in clips]
    metrics = get(f"{address}/metrics").text
    assert 'aligncap_requests_total{path="/v1/captions",status="200"}' in metrics


class Gate:
    """A captioner that captions when it is let; it keeps what it is given."""

    meta = SimpleNamespace(name="gate", languages=("en",))

    def __init__(self):
        self.open, self.seen = threading.Event(), []

    def caption_many(self, sources, **options):
        given = [str(one) for one in sources]
        self.seen += given
        self.open.wait()
        for one in given:
            yield AudioError(f"{one}: broken") if "bad" in one else f"{one} {options['language']}"


def until(condition):
    while not condition():
        time.sleep(0.002)


def test_utterances_of_one_recording_are_captioned_with_the_clips_of_others(talk):
    teller = Teller()
    with (
        served(lambda: teller, batch_wait_s=0.2) as url,
        ThreadPoolExecutor(3) as pool,
        teller.let_all(),
    ):
        ready(url)

        def ask(path, file):
            answer = post(f"{url}/v1/{path}", files={"file": file.read_bytes()})
            return answer.json()

        first = pool.submit(ask, "captions", CLIP)
        until(lambda: teller.batches)  # the model is at work, and what comes now waits
        along = pool.submit(ask, "audio/transcriptions", talk)
        other = pool.submit(ask, "captions", OTHER)
        until(lambda: "aligncap_waiting 3.0" in get(f"{url}/metrics").text)
        teller.let.release(2)
        texts = f"{along.result()['text']} {other.result()['caption']}".split(" Caption ")
        assert first.result()["caption"] == "Caption 1.0."
    assert [len(batch) for batch in teller.batches] == [1, 3]
    assert sorted(one.removeprefix("Caption ") for one in texts) == ["2.0.", "2.1.", "2.2."]
    kinds = sorted(type(one).__name__ for one in teller.batches[1])
    assert kinds == ["PosixPath", "Waveform", "Waveform"]


def test_captions_are_streamed_as_they_are_found_and_a_client_that_leaves_stops_it(tmp_path):
    long = recording(tmp_path / "long.wav", [CLIP] * 12)
    teller = Teller()
    with served(lambda: teller, batch_wait_s=0.0) as url, teller.let_all():
        ready(url)
        request = {
            "files": {"file": long.read_bytes()},
            "data": {"stream": "true"},
            "timeout": PATIENCE_S,
        }
        teller.let.release()
        with httpx.stream("POST", f"{url}/v1/audio/transcriptions", **request) as answer:
            lines = answer.iter_lines()  # where it goes, the line is cut
            first = next(events_of(lines))
            assert first == {"type": "transcript.text.delta", "delta": "Caption 1.0."}
            until(lambda: len(teller.batches) > 1)
            assert "aligncap_along 1.0" in get(f"{url}/metrics").text
        until(lambda: "aligncap_along 0.0" in get(f"{url}/metrics").text)
        seen = sum(map(len, teller.batches))
    assert sum(map(len, teller.batches)) == seen < 12


def test_what_waits_is_captioned_together_and_a_full_queue_refuses():
    gate = Gate()
    batcher = CaptionBatcher(gate, waiting=3, batch_wait_s=0.0)
    first = batcher.submit(Path("a"), language="en")
    while not gate.seen:
        time.sleep(0.001)
    others = [batcher.submit(Path(name), language="en") for name in ("bad", "gone", "c")]
    with pytest.raises(QueueFullError):
        batcher.submit(Path("d"), language="en")
    others[1].cancel()
    gate.open.set()
    batcher.close()

    assert (first.result(), others[2].result()) == ("a en", "c en")
    assert "broken" in str(others[0].exception())
    assert gate.seen == ["a", "bad", "c"]


def test_a_full_queue_is_429_and_a_client_that_leaves_frees_its_place():
    gate = Gate()
    with served(lambda: gate, waiting=1, batch_wait_s=0.0) as url:
        ready(url)
        file = {"file": b"x"}
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(post, f"{url}/v1/captions", files=file)
            while not gate.seen:
                time.sleep(0.001)
            with pytest.raises(httpx.ReadTimeout):  # waits in the queue, and leaves
                post(f"{url}/v1/captions", files=file, timeout=0.3)
            answer = post(f"{url}/v1/captions", files=file)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            gate.open.set()
            held.result()
    assert len(gate.seen) == 1


def test_a_line_that_is_cut_or_that_is_no_http_does_no_harm(address, caplog, capsys):
    host, port = address.removeprefix("http://").split(":")
    whole = httpx.Request("POST", f"{address}/v1/captions", files={"file": CLIP.read_bytes()})
    head = "POST /v1/captions HTTP/1.1\r\nHost: a\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in whole.headers.items() if name != "host"
    )
    for sent in (b"\0\1garbage\r\n\r\n", f"{head}\r\n".encode() + whole.read()[:5000]):
        with socket.create_connection((host, int(port))) as line:
            line.sendall(sent)
    told = ""
    while 'status="499"' not in told:
        told = get(f"{address}/metrics").text
    answer = post(f"{address}/v1/captions", files={"file": CLIP.read_bytes()})
    assert answer.status_code == 200
    assert "Traceback" not in caplog.text + capsys.readouterr().err


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error(capsys):
    assert main(["serve", "--port", "0", "--model", "nowhere"]) == 2
    assert "no model called 'nowhere'" in capsys.readouterr().err


def test_beyond_this_machine_it_asks_for_a_token_first(capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "--token-file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_end():
    command = [sys.executable, "-m", "aligncap", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        address = process.stdout.readline().split()[2].removesuffix("/v1,")
        answer = post(f"{ready(address)}/v1/captions", files={"file": CLIP.read_bytes()})
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM  # after what is begun is finished
    assert answer.json()["language"] == "en"
