"""Servers as they are: thoughts, parts, spent quotas, empty and endless replies, URLs."""

import json
from collections.abc import Callable

import pytest

from aligncap import endpoints
from aligncap.cli.console import Console
from aligncap.errors import JudgeError, RecipeError
from aligncap.metrics.aes import read_aes, without_thoughts
from aligncap.metrics.judge import EndpointModel, JudgeSettings, MalformedReplyError, Reply
from support.server import Answer, Asked, failing, saying, serving

GOOD = '{"reason": "near", "score": 7}'


def ask(behave: Callable[[Asked], Answer], query: str = "", **more: object) -> tuple[Reply, list]:
    with serving(behave) as server:
        settings = JudgeSettings(model="m", url=server.url + query, **{"attempts": 3, **more})
        return EndpointModel(settings).ask("?"), server.asked


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f'Maybe {{"score": 3}}?\n</think>\n{GOOD}',
        f'<think>Maybe {{"score": 3}}?</think>\n{GOOD}',
        f"<think>\n</think>\n\n{GOOD}",
        f"<think>a</think>then <think>{{b}}</think>{GOOD}",
        f"<thinking>{{}}</thinking>{GOOD}",
        f'<reasoning>{{"score": 1}}</reasoning>```json\n{GOOD}\n```',
        f"◁think▷{{}}◁/think▷{GOOD}",
        f"<|channel|>analysis {{}} <|channel|>final<|message|>{GOOD}",
        '{"reason": "it says </think>", "score": 7}',
    ],
)
def test_thoughts_are_passed_over(reply: str) -> None:
    assert read_aes(reply) == 7


@pytest.mark.parametrize("reply", [f"<think>perhaps {GOOD}", f"\n<thinking>{GOOD}", "◁think▷{}"])
def test_thoughts_that_do_not_end_are_no_rating(reply: str) -> None:
    with pytest.raises(MalformedReplyError, match="its thoughts do not end"):
        read_aes(reply)


def test_many_tags_are_read_in_one_pass() -> None:
    assert without_thoughts("</think>" * 20_000 + GOOD) == GOOD


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (GOOD, GOOD),
        ([{"type": "text", "text": GOOD}], GOOD),
        ([{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}], GOOD),
        ([{"type": "output_text", "text": GOOD}], GOOD),
        ([{"type": "thinking", "thinking": "{}"}, {"type": "text", "text": GOOD}], GOOD),
        ([GOOD], GOOD),
        (None, ""),
        ([], ""),
        ("", ""),
    ],
)
def test_the_content_may_be_a_list_of_parts(content: object, text: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": content}}], "usage": None})
    reply, _ = ask(lambda asked: Answer(body.encode()))
    assert reply.text == text


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_completion_is_no_rating(text: str) -> None:
    with pytest.raises(MalformedReplyError, match="no whole JSON object"):
        read_aes(text)


QUOTA = {"message": "You exceeded your current quota", "code": "insufficient_quota"}


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (429, QUOTA, "HTTP 429 (You exceeded your current quota)"),
        (429, {"message": "Limit.", "type": "insufficient_quota"}, "HTTP 429 (Limit.)"),
        (429, {"message": "billing hard limit reached"}, "billing hard limit reached"),
        (429, "Insufficient balance", "HTTP 429 (Insufficient balance)"),
        (403, {"message": "Your credit balance is too low"}, "credit balance is too low"),
        (402, {"message": "Pay first."}, "HTTP 402 (Pay first.)"),
        (401, {"message": "No such key."}, "HTTP 401 (No such key.)"),
        (500, {"message": "insufficient_quota"}, "HTTP 500 (insufficient_quota)"),
        (200, QUOTA, "HTTP 200 (You exceeded your current quota)"),
    ],
)
def test_a_quota_that_is_used_up_ends_the_run_at_once(
    status: int, error: object, said: str
) -> None:
    asked: list[Asked] = []

    def behave(one: Asked) -> Answer:
        asked.append(one)
        return Answer(json.dumps({"error": error}).encode(), status=status)

    with pytest.raises(JudgeError) as caught:
        ask(behave)
    assert said in str(caught.value)
    assert len(asked) == 1


@pytest.mark.parametrize(
    "message", ["rate limit", "You exceeded your current quota. Please retry in 3s."]
)
def test_a_limit_that_passes_is_waited_for(message: str) -> None:
    reply, asked = ask(lambda one: saying(GOOD) if one.number else failing(429, message))
    assert (reply.text, len(asked)) == (GOOD, 2)


def test_an_endless_reply_is_not_read_to_its_end() -> None:
    body = saying("x" * (endpoints.LONGEST_REPLY + 1))
    with pytest.raises(JudgeError, match="a reply has more than 4 MB"):
        ask(lambda asked: body)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("?api-version=2024-10-21", "/v1/chat/completions?api-version=2024-10-21"),
        ("/?a=1&b=", "/v1/chat/completions?a=1&b="),
    ],
)
def test_the_query_of_the_base_url_is_kept(query: str, path: str) -> None:
    _, (asked,) = ask(lambda one: saying(GOOD), query)
    assert asked.path == path


def test_a_key_in_the_query_is_in_no_message() -> None:
    with pytest.raises(JudgeError) as caught:
        ask(lambda one: failing(401), "?key=secret")
    assert "secret" not in str(caught.value)


BAD_URLS = ["http://[::1", "http://[::1/v1", "http://", "http://[", "//x/v1", "http://x:99999/v1"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_malformed_url_is_one_line(url: str) -> None:
    assert Console(environment={"http_proxy": "p:1"}).proxy_for(url) is None
    assert endpoints.host_of(url) == ""
    with pytest.raises(RecipeError, match="is none; write http://localhost:8000/v1"):
        JudgeSettings(model="m", url=url)


@pytest.mark.parametrize(
    ("without", "host", "direct"),
    [
        ("", "judge.lab", False),
        ("judge.lab", "judge.lab", True),
        ("lab", "judge.lab", True),
        (".lab", "judge.lab", True),
        ("*.lab", "judge.lab", True),
        ("other, judge.lab ", "judge.lab", True),
        ("judge.lab:8000", "judge.lab:8000", True),
        ("judge.lab:9", "judge.lab:8000", False),
        ("JUDGE.LAB", "judge.lab", True),
        ("ab", "judge.lab", False),
        ("*", "judge.lab", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_is_honoured(name: str, without: str, host: str, *, direct: bool) -> None:
    console = Console(environment={"http_proxy": "proxy:3128", name: without})
    expected = None if direct else "http://proxy:3128"
    assert console.proxy_for(f"http://{host}/v1") == expected
