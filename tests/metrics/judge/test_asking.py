"""The judge: nothing asked twice, nothing lost, no clip that stops the others."""

import json
import sqlite3
from pathlib import Path

import pytest

from aligncap.errors import DataError, InterruptedRunError, JudgeError
from aligncap.metrics.aes import read_overlap
from aligncap.metrics.judge import (
    JudgeFailure,
    JudgeSettings,
    Question,
    Reply,
    ReplyCache,
    reply_key,
)
from aligncap.metrics.judge_clients import open_judge
from metrics.judge.fakes import FakeModel, judge_of, rating
from support.server import SERVED, Answer, Asked, failing, saying, serving


def questions(count: int) -> list[Question[float]]:
    return [Question(f"clip{n}", f"rate number {n}", read_overlap) for n in range(count)]


def number_in(prompt: str) -> int:
    return int(prompt.removeprefix("rate number ").split(maxsplit=1)[0])


def settings_for(url: str, folder: Path, **more: object) -> JudgeSettings:
    cache = folder / "replies.sqlite"
    return JudgeSettings(**{"model": "small", "url": url, "cache": cache, "timeout_s": 5.0, **more})


def test_a_server_that_fails_a_third_of_its_calls_loses_nothing(tmp_path: Path) -> None:
    kinds = [
        failing(500),
        failing(429, Retry_After="0"),
        failing(429),
        saying("yes", cut=9),
        saying("yes", cut=0),
        Answer(b"{"),
    ]

    def every_third_fails(asked: Asked) -> Answer:
        if asked.number % 3 == 0:
            return kinds[asked.number // 3 % len(kinds)]
        return saying(rating(1 + number_in(asked.prompt) % 10))

    with serving(every_third_fails) as server:
        settings = settings_for(server.url, tmp_path, concurrency=4)
        with open_judge(settings) as judge:
            answers = judge.ask(questions(100))
    assert answers == [1.0 + number % 10 for number in range(100)]
    report = judge.report
    failed = sum(asked.number % 3 == 0 for asked in server.asked)
    assert report.retries == failed == len(server.asked) - 100
    assert (report.questions, report.asked, report.kept, report.malformed) == (100, 100, 0, 0)
    assert report.served == {SERVED: 100}
    assert str(report) == (
        f"judge small: 100 questions, 100 replies asked for, 0 kept from before, {failed} retries,"
        " 3000 + 1200 tokens"
    )


def test_asking_again_costs_nothing(tmp_path: Path) -> None:
    with serving(lambda asked: saying(rating(number_in(asked.prompt)))) as server:
        settings = settings_for(server.url, tmp_path)
        with open_judge(settings) as judge:
            first = judge.ask(questions(11)[1:])
            assert judge.ask(questions(11)[1:]) == first
        with open_judge(settings) as judge:
            assert judge.ask(questions(11)[1:]) == first
            assert (judge.report.asked, judge.report.kept) == (0, 10)
    assert len(server.asked) == 10
    # Nobody need be there to score again.
    with open_judge(settings) as judge:
        assert judge.ask(questions(11)[1:]) == first


@pytest.mark.parametrize(
    "change",
    [{"model": "other"}, {"temperature": 0.5}, {"max_tokens": 9}, {"request": {"seed": 2}}],
)
def test_another_model_or_setting_is_asked_anew(tmp_path: Path, change: dict[str, object]) -> None:
    with serving(lambda asked: saying(rating(5))) as server:
        for more in ({}, change):
            with open_judge(settings_for(server.url, tmp_path, **more)) as judge:
                judge.ask(questions(1))
    assert len(server.asked) == 2


def test_another_address_of_the_same_model_is_not(tmp_path: Path) -> None:
    with serving(lambda asked: saying(rating(5))) as one, serving(lambda _: failing(500)) as other:
        for server in (one, other):
            with open_judge(settings_for(server.url, tmp_path, concurrency=2)) as judge:
                assert judge.ask(questions(3)) == [5.0] * 3
    assert other.asked == []


def test_concurrency_is_a_limit_and_is_used(tmp_path: Path) -> None:
    with (
        serving(lambda asked: saying(rating(5), after_s=0.05)) as server,
        open_judge(settings_for(server.url, tmp_path, concurrency=3)) as judge,
    ):
        judge.ask(questions(12))
    assert server.most_at_once == 3


def test_equal_questions_are_asked_once_and_progress_counts_them_once(tmp_path: Path) -> None:
    model, seen = FakeModel(lambda prompt: rating(4)), []
    with judge_of(model, tmp_path, progress=lambda done, of: seen.append((done, of))) as judge:
        assert judge.ask(questions(2) * 5) == [4.0] * 10
    assert len(model.prompts) == 2
    assert seen == [(1, 2), (2, 2)]


def test_a_malformed_reply_is_asked_for_once_more_with_the_complaint(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: rating(6) if "could not be used" in prompt else rating(60))
    with judge_of(model, tmp_path) as judge:
        assert judge.ask(questions(1)) == [6.0]
        assert (judge.report.asked, judge.report.malformed) == (2, 1)
    first, second = model.prompts
    assert second.startswith(first)
    assert "'score' is 60, must be 1 to 10" in second
    # The raw replies are both kept, so the same road is gone for nothing.
    with judge_of(model, tmp_path) as judge:
        assert judge.ask(questions(1)) == [6.0]
        assert (judge.report.asked, judge.report.kept) == (0, 2)


def test_a_clip_with_two_malformed_replies_fails_and_the_others_do_not(tmp_path: Path) -> None:
    model = FakeModel(lambda p: "I would rather not" if number_in(p) == 1 else rating(6))
    with judge_of(model, tmp_path, concurrency=2) as judge:
        first, second, third = judge.ask(questions(3))
    assert (first, third) == (6.0, 6.0)
    assert second == JudgeFailure(
        "clip1", "two replies could not be used, the last: it holds no whole JSON object"
    )
    assert judge.report.failures == (second,)
    assert len(model.prompts) == 4
    assert str(judge.report).endswith("2 malformed, 1 clip not rated")


def test_a_reply_that_was_cut_says_so(tmp_path: Path) -> None:
    table = {"choices": [{"message": {"content": '{"score": 7'}, "finish_reason": "length"}]}
    with (
        serving(lambda asked: Answer(json.dumps(table).encode())) as server,
        open_judge(settings_for(server.url, tmp_path)) as judge,
    ):
        (failure,) = judge.ask(questions(1))
    assert failure.reason.endswith("(cut at the longest length allowed)")


def test_a_clip_without_a_reply_fails_and_is_asked_next_time(tmp_path: Path) -> None:
    healthy: list[bool] = []

    def behave(asked: Asked) -> Answer:
        sick = number_in(asked.prompt) == 1 and not healthy
        return failing(500) if sick else saying(rating(6))

    with serving(behave) as server:
        settings = settings_for(server.url, tmp_path, attempts=3)
        with open_judge(settings) as judge:
            answers = judge.ask(questions(4))
        assert isinstance(answers[1], JudgeFailure)
        assert answers[1].reason.startswith("no reply in 3 attempts")
        assert [answers[0], *answers[2:]] == [6.0] * 3
        assert judge.report.retries == 2
        healthy.append(True)
        before = len(server.asked)
        with open_judge(settings) as judge:
            assert judge.ask(questions(4)) == [6.0] * 4
        assert len(server.asked) == before + 1


def test_a_server_that_dies_ends_the_run_and_keeps_what_came(tmp_path: Path) -> None:
    with serving(lambda a: saying(rating(6)) if a.number < 5 else failing(503)) as server:
        settings = settings_for(server.url, tmp_path, concurrency=1, attempts=2)
        with (
            open_judge(settings) as judge,
            pytest.raises(JudgeError, match=r"3 questions in a row got no reply .*HTTP 503"),
        ):
            judge.ask(questions(50))
    assert len(server.asked) <= 5 + 2 * 5
    with open_judge(settings) as judge:
        assert judge.ask(questions(5)) == [6.0] * 5


def test_a_wrong_key_ends_the_run_and_nobody_waits(tmp_path: Path) -> None:
    with (
        serving(lambda asked: failing(401)) as server,
        open_judge(settings_for(server.url, tmp_path, concurrency=2)) as judge,
        pytest.raises(JudgeError, match="401"),
    ):
        judge.ask(questions(200))
    assert len(server.asked) < 20


def test_ctrl_c_says_how_far_it_came_and_the_judge_can_go_on(tmp_path: Path) -> None:
    model, interrupts = FakeModel(lambda prompt: rating(6)), [KeyboardInterrupt]

    def progress(done: int, of: int) -> None:
        if done == 3 and interrupts:
            raise interrupts.pop()

    with judge_of(model, tmp_path, progress=progress) as judge:
        with pytest.raises(InterruptedRunError, match="stopped after 3 of 20 questions"):
            judge.ask(questions(20))
        assert judge.ask(questions(20)) == [6.0] * 20
    assert sorted(model.prompts) == sorted(question.prompt for question in questions(20))


def test_texts_that_no_encoding_holds_are_no_crash(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: '{"reason": "half \\udc80", "score": 5} \ud800')
    with judge_of(model, tmp_path) as judge:
        assert judge.ask([Question("clip", "rate \udc80", read_overlap)]) == [5.0]
    assert model.prompts == ["rate ?"]


def test_the_reply_of_the_process_that_was_first_stands(tmp_path: Path) -> None:
    def overtaken(prompt: str) -> str:
        other.put(prompt, Reply(text=rating(3)))
        return rating(9)

    model = FakeModel(overtaken)
    other = ReplyCache(tmp_path / "replies.sqlite", model=model.name, settings=model.settings)
    with judge_of(model, tmp_path) as judge:
        assert judge.ask(questions(1)) == judge.ask(questions(1)) == [3.0]
    other.close()
    assert len(model.prompts) == 1


def test_the_raw_reply_lies_in_the_cache(tmp_path: Path) -> None:
    text = f"Well: {rating(7)} 好"
    with (
        serving(lambda asked: saying(text)) as server,
        open_judge(settings_for(server.url, tmp_path)) as judge,
    ):
        judge.ask(questions(1))
    with sqlite3.connect(tmp_path / "replies.sqlite") as connection:
        (row,) = connection.execute("SELECT model, settings, prompt, reply, served FROM replies")
    connection.close()
    assert row == (
        "small", '{"max_tokens": 1024, "temperature": 0.0}', "rate number 0", text, SERVED
    )  # fmt: skip


def test_the_key_of_a_reply_is_its_prompt_model_and_settings() -> None:
    base = reply_key("p", model="m", settings={"a": 1, "b": 2})
    assert base == reply_key("p", model="m", settings={"b": 2, "a": 1})
    others = {
        reply_key("q", model="m", settings={"a": 1, "b": 2}),
        reply_key("p", model="n", settings={"a": 1, "b": 2}),
        reply_key("p", model="m", settings={"a": 1, "b": 3}),
        reply_key("p", model="m", settings={}),
    }
    assert len({base, *others}) == 5


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but longer than the header of one: " + "x" * 200)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE tokens (content TEXT)")
    connection.close()
    for path, line in ((text, "no judge cache"), (other, "another program's database")):
        with pytest.raises(DataError, match=line):
            ReplyCache(path, model="m", settings={})
        with pytest.raises(DataError, match=str(path)):
            ReplyCache(path, model="m", settings={})
    assert text.read_text().startswith("not a database")


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="see that the disk has room"):
        ReplyCache(tmp_path / "file" / "cache.sqlite", model="m", settings={})
