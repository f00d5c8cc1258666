"""The judge: nothing asked twice, nothing lost, no clip that stops the others, killed or not; and a
local language model as judge."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.endpoints import NoReplyError
from aligncap.errors import DataError, InterruptedRunError, JudgeError, MissingModelError
from aligncap.metrics.aes import read_aes
from aligncap.metrics.judge import (
    JudgeClient,
    JudgeFailure,
    JudgeSettings,
    Question,
    Reply,
    ReplyCache,
    open_judge_client,
    open_local,
)
from aligncap.metrics.scores import MetricOptions, open_metric
from support.killer import finish, kill, start, wait_until
from support.models import FakeChatModel, ask_many, judge_of, numbered_clip, rating
from support.server import SERVED, Answer, Asked, failing, saying, serving


def questions(count: int) -> list[Question[float]]:
    return [Question(f"clip{n}", f"rate number {n}", read_aes) for n in range(count)]


def number_in(prompt: str) -> int:
    return int(prompt.removeprefix("rate number ").split(maxsplit=1)[0])


def judge_at(url: str, folder: Path, **more: object) -> JudgeClient:
    settings = {"model": "small", "url": url, "cache": folder / "replies.sqlite", **more}
    return open_judge_client(JudgeSettings(**settings))


def test_a_server_that_fails_a_third_of_its_calls_loses_nothing(tmp_path: Path) -> None:
    kinds = [failing(500), failing(429, Retry_After="0"), failing(429)]
    kinds += [saying("yes", cut=9), saying("yes", cut=0), Answer(b"{")]

    def every_third_fails(asked: Asked) -> Answer:
        if asked.number % 3 == 0:
            return kinds[asked.number // 3 % len(kinds)]
        return saying(rating(1 + number_in(asked.prompt) % 10))

    with (
        serving(every_third_fails) as server,
        judge_at(server.url, tmp_path, concurrency=4) as judge,
    ):
        assert judge.ask(questions(60)) == [1.0 + number % 10 for number in range(60)]
    report = judge.report
    failed = sum(asked.number % 3 == 0 for asked in server.asked)
    assert report.retries == failed == len(server.asked) - 60
    assert (report.cached, report.malformed, report.served) == (0, 0, {SERVED: 60})
    assert str(report) == (
        f"judge small: 60 questions, 60 replies asked for, 0 kept from before, {failed} retries,"
        " 1800 + 720 tokens"
    )


def test_asking_again_costs_nothing_and_needs_no_server(tmp_path: Path) -> None:
    with serving(lambda asked: saying(rating(number_in(asked.prompt)))) as server:
        with judge_at(server.url, tmp_path) as judge:
            first = judge.ask(questions(11)[1:])
            assert judge.ask(questions(11)[1:]) == first
        assert len(server.asked) == 10
    # Another address of the same model is the same model.
    with judge_at("http://localhost:9/v1", tmp_path, concurrency=2) as judge:
        assert judge.ask(questions(11)[1:]) == first
        assert (judge.report.asked, judge.report.cached) == (0, 10)


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.5}, {"max_tokens": 9}, {"request": {"seed": 2}}],
)
def test_another_model_or_setting_is_asked_anew(tmp_path: Path, change: dict[str, object]) -> None:
    with serving(lambda asked: saying(rating(5))) as server:
        for more in ({}, change):
            with judge_at(server.url, tmp_path, **more) as judge:
                judge.ask(questions(1))
    assert len(server.asked) == 2


def test_concurrency_is_a_limit_and_is_used(tmp_path: Path) -> None:
    three = Barrier(3, timeout=60)

    def behave(asked: Asked) -> Answer:
        three.wait()
        return saying(rating(5))

    with serving(behave) as server, judge_at(server.url, tmp_path, concurrency=3) as judge:
        judge.ask(questions(12))
    assert server.most_at_once == 3


def test_equal_questions_are_asked_once_and_progress_counts_them_once(tmp_path: Path) -> None:
    model, seen = FakeChatModel(lambda prompt: rating(4)), []
    with judge_of(model, tmp_path, progress=lambda done, of: seen.append((done, of))) as judge:
        assert judge.ask(questions(2) * 5) == [4.0] * 10
    assert (len(model.prompts), seen) == (2, [(1, 2), (2, 2)])


def test_a_malformed_reply_is_asked_for_once_more_with_the_complaint(tmp_path: Path) -> None:
    model = FakeChatModel(lambda prompt: rating(6) if "could not be used" in prompt else rating(60))
    # Both replies are in the cache, so the second judge asks nothing.
    for asked, cached in ((2, 0), (0, 2)):
        with judge_of(model, tmp_path) as judge:
            assert judge.ask(questions(1)) == [6.0]
            report = judge.report
            assert (report.asked, report.cached, report.malformed) == (asked, cached, 1)
    first, second = model.prompts
    assert second.startswith(first)
    assert "'score' is 60, must be 1 to 10" in second


def test_a_clip_with_two_malformed_replies_fails_and_the_others_do_not(tmp_path: Path) -> None:
    model = FakeChatModel(lambda p: "I would rather not" if number_in(p) == 1 else rating(6))
    with judge_of(model, tmp_path, concurrency=2) as judge:
        replies = judge.ask(questions(3))
    reason = "two replies could not be used, the last: it holds no whole JSON object"
    assert replies == [6.0, JudgeFailure("clip1", reason), 6.0]
    assert judge.report.failures == (replies[1],)
    assert len(model.prompts) == 4
    assert str(judge.report).endswith("2 malformed, 1 clip not rated")


def test_a_reply_that_was_cut_says_so(tmp_path: Path) -> None:
    table = {"choices": [{"message": {"content": '{"score": 7'}, "finish_reason": "length"}]}
    cut = Answer(json.dumps(table).encode())
    with serving(lambda asked: cut) as server, judge_at(server.url, tmp_path) as judge:
        (failure,) = judge.ask(questions(1))
    assert failure.reason.endswith("(cut at the longest length allowed)")


def test_a_clip_without_a_reply_fails_and_is_asked_next_time(tmp_path: Path) -> None:
    healthy: list[bool] = []

    def behave(asked: Asked) -> Answer:
        sick = number_in(asked.prompt) == 1 and not healthy
        return failing(500) if sick else saying(rating(6))

    with serving(behave) as server:
        with judge_at(server.url, tmp_path, attempts=3) as judge:
            first, failure, *others = judge.ask(questions(4))
        assert failure.reason.startswith("no reply in 3 attempts")
        assert ([first, *others], judge.report.retries) == ([6.0] * 3, 2)
        healthy.append(True)
        before = len(server.asked)
        with judge_at(server.url, tmp_path) as judge:
            assert judge.ask(questions(4)) == [6.0] * 4
        assert len(server.asked) == before + 1


@pytest.mark.parametrize(
    ("healthy", "status", "line", "most"),
    [(5, 503, r"3 questions in a row got no reply .*HTTP 503", 5 + 2 * 5), (0, 401, "401", 20)],
)
def test_a_server_that_dies_or_refuses_the_key_ends_the_run(tmp_path, healthy, status, line, most):
    def behave(asked: Asked) -> Answer:
        return saying(rating(6)) if asked.number < healthy else failing(status)

    with (
        serving(behave) as server,
        judge_at(server.url, tmp_path, concurrency=1, attempts=2) as judge,
        pytest.raises(JudgeError, match=line),
    ):
        judge.ask(questions(50))
    assert len(server.asked) <= most
    with judge_at(server.url, tmp_path) as judge:
        assert judge.ask(questions(healthy)) == [6.0] * healthy


def test_ctrl_c_says_how_far_it_came_and_the_judge_can_go_on(tmp_path: Path) -> None:
    model, interrupts = FakeChatModel(lambda prompt: rating(6)), [KeyboardInterrupt]

    def progress(done: int, of: int) -> None:
        if done == 3 and interrupts:
            raise interrupts.pop()

    with judge_of(model, tmp_path, progress=progress) as judge:
        with pytest.raises(InterruptedRunError, match="stopped after 3 of 20 questions"):
            judge.ask(questions(20))
        assert judge.ask(questions(20)) == [6.0] * 20
    assert sorted(model.prompts) == sorted(question.prompt for question in questions(20))


def test_texts_that_no_encoding_holds_are_no_crash(tmp_path: Path) -> None:
    model = FakeChatModel(lambda prompt: '{"reason": "half \\udc80", "score": 5} \ud800')
    with judge_of(model, tmp_path) as judge:
        assert judge.ask([Question("clip", "rate \udc80", read_aes)]) == [5.0]
    assert model.prompts == ["rate ?"]


def test_the_reply_of_the_process_that_was_first_stands(tmp_path: Path) -> None:
    def overtaken(prompt: str) -> str:
        other.put(prompt, Reply(text=rating(3)))
        return rating(9)

    model = FakeChatModel(overtaken)
    other = ReplyCache(tmp_path / "replies.sqlite", model=model.name, settings=model.settings)
    with judge_of(model, tmp_path) as judge, closing(other):
        assert judge.ask(questions(1)) == judge.ask(questions(1)) == [3.0]
    assert len(model.prompts) == 1


def test_the_raw_reply_is_in_the_cache_under_prompt_model_and_settings(tmp_path: Path) -> None:
    text = f"Well: {rating(7)} 好"
    with serving(lambda asked: saying(text)) as server, judge_at(server.url, tmp_path) as judge:
        judge.ask(questions(1))
    columns = "key, model, settings, prompt, reply, served"
    with closing(sqlite3.connect(tmp_path / "replies.sqlite")) as connection:
        (row,) = connection.execute(f"SELECT {columns} FROM replies")
    settings = '{"max_tokens": 1024, "temperature": 0.0}'
    # As caches of earlier versions have it: SHA-256 of canonical JSON.
    key = hashlib.sha256(f'["rate number 0", "small", {settings}]'.encode()).hexdigest()
    assert row == (key, "small", settings, "rate number 0", text, SERVED)


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("not a database, but longer than the header of one: " + "x" * 200)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE tokens (content TEXT)")
    for path, line in (
        (text, "no judge cache"),
        (other, "another program's database"),
        (text / "cache.sqlite", "see that the disk has room"),
    ):
        with pytest.raises(DataError, match=line) as caught:
            ReplyCache(path, model="m", settings={})
        assert str(path) in str(caught.value)
    assert text.read_text().startswith("not a database")


ASK = """
import sys
from pathlib import Path
from support.models import ask_many

ask_many(sys.argv[1], Path(sys.argv[2]))
"""


def kept(cache: Path) -> int:
    with closing(sqlite3.connect(cache)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])


@pytest.mark.slow
def test_killed_in_the_middle_it_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    cache = tmp_path / "replies.sqlite"

    def behave(asked: Asked) -> Answer:
        return saying(rating(1 + int(asked.prompt.split()[1]) % 10), after_s=0.02)

    with serving(behave) as server:
        for stop_at in (15, 35):
            process = start("-c", ASK, server.url, cache)
            wait_until(lambda least=stop_at: len(server.asked) >= least, process)
            kill(process)
        wait_until(lambda: server._under_way == 0)
        asked, there = len(server.asked), kept(cache)
        # A kill costs at most what was under way.
        assert 0 < asked - 6 <= there < 60
        for _ in range(2):
            assert ask_many(server.url, cache) == [1.0 + n % 10 for n in range(60)]
            assert len(server.asked) - asked == 60 - there
        assert len(set(server.prompts)) == 60


@pytest.mark.slow
def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "replies.sqlite"
    with serving(lambda asked: saying(rating(5))) as server:
        for process in [start("-c", ASK, server.url, cache) for _ in range(2)]:
            finish(process)
        assert kept(cache) == 60
        assert 60 <= len(server.asked) <= 2 * 60


TEMPLATE = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %} ->"


def write_model(folder: Path, *, template: str | None = None, seed: int = 0) -> str:
    """A tiny random LLaMA with its tokenizer."""
    tokenizer = train_text_tokenizer(["She sounds calm.", "他说话很快。"] * 4, 300)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 4096}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def test_a_model_that_cannot_write_json_fails_clip_by_clip(tmp_path: Path) -> None:
    settings = JudgeSettings(
        model=write_model(tmp_path / "tiny"), max_tokens=8, cache=tmp_path / "replies.sqlite"
    )
    for asked, cached in ((4, 0), (0, 4)):
        with open_judge_client(settings) as judge:
            metric = open_metric("aes-c", MetricOptions(judge=judge))
            with pytest.raises(JudgeError, match=r"tiny@.* could rate none of 2 clips"):
                metric.measure([numbered_clip(0), numbered_clip(1)])
            report = judge.report
            assert metric.variant.startswith("aes-c|judge:tiny@")
            assert [failure.id for failure in report.failures] == ["clip0", "clip1"]
            assert (report.asked, report.cached, report.malformed) == (asked, cached, 4)
            # The whole prompt got there: bytes are tokens, and few of them are merged.
            assert report.prompt_tokens > asked * 900 - 1


def test_replies_are_greedy_and_follow_the_prompt(tmp_path: Path) -> None:
    model = open_local(write_model(tmp_path / "tiny"), max_tokens=6)
    reply = model.ask("She sounds calm.")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tiny")
    causal_lm = LlamaForCausalLM.from_pretrained(tmp_path / "tiny").eval()
    ids = tokenizer("She sounds calm.\n", return_tensors="pt").input_ids
    assert reply.prompt_tokens == ids.shape[1]
    for _ in range(reply.completion_tokens):
        with torch.no_grad():
            best = causal_lm(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, best[None, None]], dim=1)
    expected = tokenizer.decode(ids[0, reply.prompt_tokens :], skip_special_tokens=True)
    assert reply.text == expected
    assert reply.finish == ("length" if reply.completion_tokens == 6 else "stop")
    with pytest.raises(NoReplyError, match="has room for 4096"):
        model.ask("calm " * 4096)


def test_the_chat_template_is_used_once(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", template=TEMPLATE)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    reply = open_local(folder, max_tokens=2).ask("calm?")
    assert reply.prompt_tokens == len(tokenizer.tokenize("<s>user: calm? ->"))


def test_other_weights_are_another_judge_and_none_is_an_error(tmp_path: Path) -> None:
    folders = {tmp_path / place / "tiny": seed for place, seed in (("a", 0), ("b", 0), ("c", 1))}
    one, same, other = (
        open_local(write_model(folder, seed=seed), max_tokens=2).name
        for folder, seed in folders.items()
    )
    assert one == same != other
    with pytest.raises(MissingModelError, match=r"needs config\.json"):
        open_judge_client(JudgeSettings(model=str(tmp_path), cache=tmp_path / "replies.sqlite"))
