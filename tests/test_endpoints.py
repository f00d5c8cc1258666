"""A server that misbehaves in every way that servers do."""

import sys
import time
from threading import Event

import pytest

from aligncap.endpoints import NoReplyError, StoppedError
from aligncap.errors import JudgeError, RecipeError
from aligncap.metrics.judge import EndpointModel, JudgeSettings
from support.server import SERVED, Answer, failing, saying, serving


def model_at(url: str, stop: Event | None = None, **more: object) -> EndpointModel:
    settings = JudgeSettings(model="small", url=url, **{"attempts": 4, **more})
    return EndpointModel(settings, stop=stop)


def test_a_prompt_goes_out_as_such_servers_expect_it() -> None:
    with serving(lambda asked: saying("yes")) as server:
        model = model_at(server.url + "/", key="secret", request={"seed": 1, "max_tokens": None})
        reply = model.ask("「他很平静」 \U0001f600?")
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == "Bearer secret"
    assert asked.prompt == "「他很平静」 \U0001f600?"
    assert asked.body.pop("messages")
    assert asked.body == {"model": "small", "temperature": 0.0, "seed": 1}
    assert (reply.text, reply.finish, reply.served) == ("yes", "stop", SERVED)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.retries) == (30, 12, 0)


PASSING = [
    *(failing(500), failing(503), failing(429), failing(408), failing(429, Retry_After="0")),
    *(saying("yes", cut=10), saying("yes", cut=0), Answer(b"<html>bad gateway</html>")),
    *(Answer(b'{"choices": []}'), Answer(b"[]"), Answer(b"\xff\xfe"), Answer(b"[" * 100_000)),
    Answer(b'{"choices": [{"message": {"content": 7}}]}'),
    Answer(b'{"error": {"message": "provider is busy"}}'),
    Answer(b'{"choices": [{"message"', headers={"Connection": "close"}),
]


@pytest.mark.parametrize("bad", PASSING, ids=range(len(PASSING)))
def test_what_may_pass_is_tried_again(bad: Answer) -> None:
    with serving(lambda asked: saying("yes") if asked.number else bad) as server:
        reply = model_at(server.url).ask("?")
    assert (reply.text, reply.retries, len(server.asked)) == ("yes", 1, 2)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (failing(500, "out of memory"), "HTTP 500 (out of memory)"),
        (Answer(b"<html>"), "the body is no chat completion (<html>)"),
    ],
)
def test_attempts_are_counted_and_come_to_an_end(bad: Answer, reason: str) -> None:
    quick = Answer(bad.body, status=bad.status, headers={"Retry-After-Ms": "1"})
    with serving(lambda asked: quick) as server, pytest.raises(NoReplyError) as caught:
        model_at(server.url).ask("?")
    assert str(caught.value) == f"no reply in 4 attempts, the last: {reason}"
    assert (caught.value.retries, len(server.asked)) == (3, 4)


def test_silence_is_not_waited_for() -> None:
    late = saying("late", after_s=600)
    silent = pytest.raises(NoReplyError, match=r"in 2 attempts, the last: silent for 0.2 s")
    with serving(lambda asked: late) as server, silent:
        model_at(server.url, timeout_s=0.2, attempts=2).ask("?")
    with serving(lambda asked: saying("yes") if asked.number else late) as server:
        reply = model_at(server.url, timeout_s=5).ask("?")
    assert (reply.text, reply.retries) == ("yes", len(server.asked) - 1)


def test_retry_after_is_waited_for() -> None:
    busy = failing(429, Retry_After="1")
    with serving(lambda asked: saying("yes") if asked.number else busy) as server:
        start = time.monotonic()
        assert model_at(server.url).ask("?").retries == 1
    assert time.monotonic() - start >= 1.0


def test_the_end_of_the_run_cuts_a_pause_short_and_nothing_more_is_sent() -> None:
    stop = Event()

    def behave(asked: object) -> Answer:
        stop.set()
        return failing(429, Retry_After="60")

    with serving(behave) as server:
        model = model_at(server.url, stop)
        for _ in range(2):
            with pytest.raises(StoppedError):
                model.ask("?")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_that_nobody_waits_for_ends_the_run(status: int) -> None:
    refused = pytest.raises(JudgeError, match="asks to wait 3600 s, more than 60 s; run the same")
    with serving(lambda asked: failing(status, Retry_After="3600")) as server, refused:
        model_at(server.url).ask("?")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (failing(401, "no such key"), r"HTTP 401 \(no such key\); set ALIGNCAP_JUDGE_KEY"),
        (failing(403, "not yours"), r"HTTP 403 \(not yours\); set ALIGNCAP_JUDGE_KEY"),
        (failing(404, "no 'small'"), r"HTTP 404 \(no 'small'\); give the base URL up to and"),
        (failing(400, "too\nhot"), r"HTTP 400 \(too hot\); correct the model or the judge's"),
        (failing(301, "", Location="http://localhost:9"), "HTTP 301; give the URL that it leads"),
        (Answer(b"", status=422), "HTTP 422; correct the model"),
    ],
)
def test_what_no_attempt_can_change_ends_at_once(answer: Answer, line: str) -> None:
    refused = pytest.raises(JudgeError, match=line)
    with serving(lambda asked: answer) as server, refused as caught:
        model_at(server.url, key="secret").ask("?")
    assert len(server.asked) == 1
    assert str(caught.value).startswith(server.url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_goes_away_is_tried_again_but_not_one_that_was_never_there() -> None:
    with serving(lambda asked: saying("yes")) as server:
        model = model_at(server.url, attempts=2)
        model.ask("?")
    with pytest.raises(NoReplyError, match=r"in 2 attempts, the last: .*refused"):
        model.ask("?")
    with pytest.raises(JudgeError, match=r"nobody answers there .* start the server or give its"):
        model_at(server.url).ask("?")


def test_a_redirect_gets_neither_captions_nor_key() -> None:
    with (
        serving(lambda asked: saying("yes")) as other,
        serving(lambda asked: failing(307, Location=other.url)) as server,
        pytest.raises(JudgeError, match="HTTP 307"),
    ):
        model_at(server.url, key="secret").ask("?")
    assert other.asked == []


def test_a_proxy_is_used_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(lambda asked: saying("yes")) as proxy:
        model_at("http://judge.invalid/v1", proxy=proxy.url.removesuffix("/v1")).ask("?")
    assert proxy.asked[0].path == "http://judge.invalid/v1/chat/completions"


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "not for you")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: not for you\nX-Mine: not for you")
    with serving(lambda asked: saying("yes")) as server:
        assert model_at(server.url).ask("?").text == "yes"
        assert model_at(server.url, key="ours").ask("?").text == "yes"
    without, with_key = (asked.headers for asked in server.asked)
    assert "not for you" not in {*without.values(), *with_key.values()}
    assert with_key.keys() - without.keys() == {"Authorization"}
    assert with_key["Authorization"] == "Bearer ours"
    assert "aligncap" in without.values()


def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"openai, .*pip install 'aligncap\[endpoint\]'"):
        model_at("http://localhost:8000/v1")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"url": "localhost:8000"}, "is none; write http://localhost:8000/v1"),
        ({"url": "http://x:port/v1"}, "is none"),
        ({"url": "file:///etc/passwd"}, "is none"),
        ({"url": "http://a b/v1"}, "is none"),
        ({"url": "http://a..b/v1"}, "is none"),
        ({"url": "http://[::1/v1"}, "is none"),
        ({"url": "http://me:word@x/v1"}, "holds a password"),
        ({"url": "http://x/v1/chat/completions/"}, "give its base, http://x/v1"),
        ({"proxy": "me:word@proxy:3128"}, "proxy is none; write http://host:port"),
        ({"key": "two\nlines"}, "key holds characters"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"concurrency": 0}, "concurrency is 0, must be 1 or more"),
        ({"timeout_s": float("nan")}, "timeout_s is nan, must be above 0"),
        ({"request": {"stream": True}}, "sets 'stream'"),
        ({"model": " "}, "has no model"),
        ({"url": None, "temperature": 0.5}, "greedy"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], line: str) -> None:
    right = {"model": "small", "url": "http://localhost/v1", "key": "secret"}
    assert "secret" not in repr(JudgeSettings(**right))
    with pytest.raises(RecipeError, match=line):
        JudgeSettings(**{**right, **settings})
