"""aligncap evaluate: files in, a report out, and one line for what is wrong with them."""

import json
from pathlib import Path

import pytest

from aligncap.cli.console import Console
from aligncap.cli.evaluate import judge_settings
from aligncap.metrics.scores import NOTHING_COUNTED
from support.corpora import lines
from support.server import Asked, saying, serving

SPOKEN = {"a": "A sad woman speaks slowly.", "b": "An angry man shouts."}
WRITTEN = {"a": ["A sad woman speaks slowly."], "b": ["A happy man.", "He is glad."]}
QUICK = ("--metrics", "clue-f1,hallucination,repeated", "--draws", "20")


def jsonl(path: Path, rows: list[dict]) -> Path:
    return lines(path, *map(json.dumps, rows))


def typed(hypotheses: Path, references: Path) -> tuple[str | Path, ...]:
    return ("--hypotheses", hypotheses, "--references", references)


@pytest.fixture
def hypotheses(tmp_path: Path) -> Path:
    rows = [{"id": name, "caption": text} for name, text in SPOKEN.items()]
    return jsonl(tmp_path / "h.jsonl", rows)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    rows = [{"id": name, "captions": texts} for name, texts in WRITTEN.items()]
    return jsonl(tmp_path / "r.jsonl", rows)


@pytest.fixture
def files(hypotheses: Path, references: Path) -> tuple[str | Path, ...]:
    return typed(hypotheses, references)


def test_a_table_with_a_heading_and_signatures(aligncap, files, hypotheses, references) -> None:
    ran = aligncap("evaluate", *files, *QUICK)
    assert (ran.code, ran.err) == (0, "")
    heading, _, columns, *rows, signature = ran.out.splitlines()
    about = "2 clips, 1 to 2 references each, English"
    assert heading == f"{hypotheses} against {references}: {about}"
    assert columns.split() == ["metric", "score", "95", "%", "interval"]
    # female, sad, slow are right; of male, angry, loud male is right, of male, happy one recalled.
    assert rows[0].split()[:2] == ["clue-f1", "72.73"]
    assert rows[1].split()[:2] == ["hallucination", "33.33"]
    assert rows[2].split()[0] == "emotion"
    assert signature.startswith("repeated:of-set|refs:1-2|n:2|v")


def test_json_maps_metric_to_value_interval_and_signature(aligncap, files, tmp_path) -> None:
    output = tmp_path / "scores.json"
    ran = aligncap("evaluate", *files, *QUICK, "--output", output)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    found = json.loads(output.read_text("utf-8"))
    assert list(found)[:3] == ["clue-f1", "hallucination", "hallucination/emotion"]
    assert found["clue-f1"]["value"] == pytest.approx(800 / 11)
    assert set(found["clue-f1"]) == {"value", "low", "high", "signature"}
    assert found["hallucination/pitch"]["notes"] == [NOTHING_COUNTED]
    assert found["repeated"]["low"] is found["hallucination/pitch"]["value"] is None


def test_chinese_is_found_out_and_may_be_set(aligncap, tmp_path) -> None:
    hypotheses = jsonl(tmp_path / "h.jsonl", [{"id": "a", "caption": "一位女性悲伤地说话。"}])
    references = jsonl(tmp_path / "r.jsonl", [{"id": "a", "captions": ["一位女性悲伤地说话。"]}])
    files = (*typed(hypotheses, references), "--metrics", "bleu4,clue-f1")
    found = json.loads(aligncap("evaluate", *files, "--format", "json").out)
    assert "tok:zh-char" in found["bleu4"]["signature"]
    assert found["clue-f1"]["value"] == 100
    ran = aligncap("evaluate", *files, "--language", "zh", "--tokenisation", "zh-word")
    assert "tok:zh-word" in ran.out
    ran = aligncap("evaluate", *files, "--language", "en")
    ran.refused("scored in English, and none of the 1 references is in it")


def test_a_baseline_in_markdown(aligncap, files, hypotheses, tmp_path) -> None:
    rival = jsonl(tmp_path / "h2.jsonl", [{"id": name, "caption": ""} for name in SPOKEN])
    output = tmp_path / "scores.md"
    ran = aligncap("evaluate", *files, *QUICK, "--baseline", rival, "--output", output)
    assert ran.code == 0
    heading, _, columns, _, first, *_ = output.read_text("utf-8").splitlines()
    assert f"(baseline {rival})" in heading
    assert columns.count("|") == 8
    assert first.startswith("| clue-f1 | 72.73 | ")
    assert " | 0.00 | +72.73 | " in first


def test_what_caption_wrote_is_scored_and_judged_by_its_recordings(
    aligncap, example_clips, tmp_path
):
    written = tmp_path / "captions.jsonl"
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    assert aligncap("caption", *example_clips[:2], broken, "--output", written).code == 1
    sounds = [*example_clips[:2], broken]
    rows = [{"file": str(file), "captions": ["Somebody speaks loudly."]} for file in sounds]
    references = jsonl(tmp_path / "r.jsonl", rows)
    files = typed(written, references)
    ran = aligncap("evaluate", *files, "--metrics", "clue-precision", "--format", "json")
    assert json.loads(ran.out)["clue-precision"]["value"] == 100
    said = "1 of 3 clips have an error instead of a caption and count as nothing said"
    assert ran.err == f"aligncap: {written}: {said}\n"
    ran = aligncap("evaluate", *files, "--metrics", "hallucination-signal")
    assert ran.code == 0
    assert "1 of 3 clips left out, clip 'broken': " in ran.out
    jsonl(references, rows[:2])
    written.write_text("".join(written.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    page = tmp_path / "page.html"
    ran = aligncap("evaluate", *files, "--metrics", "hallucination-signal", "-o", page)
    assert (ran.code, ran.err) == (0, "")
    assert page.read_text("utf-8").count("<audio controls") == 2


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (['{"id": "a", "caption": "Sad."}'], "r.jsonl:2: clip 'b' has no hypothesis in "),
        (['{"id": "c", "caption": "Sad."}'], "h.jsonl:1: clip 'c' has no reference in "),
        (['{"caption": "Sad."}'], "h.jsonl:1: has no 'id'; name the clip"),
        (['{"id": "a", "caption": NaN}'], "h.jsonl:1: holds NaN, which is not JSON"),
        ([], "h.jsonl:1: the hypotheses are empty"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(aligncap, files, hypotheses, written, message) -> None:
    lines(hypotheses, *written)
    aligncap("evaluate", *files).refused(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "blue4"], "no metric called 'blue4'; did you mean 'bleu4'?"),
        (["--metrics", " , "], "--metrics names none; write bleu4,clue-f1 or leave it out"),
        (["--metrics", "similarity"], "similarity needs a sentence encoder: give its folder by"),
        (["--metrics", "aes-c"], "give --judge-url and --judge-model"),
        (["--judge-url", "http://localhost:1/v1"], "give --judge-model too"),
        (["--paper25"], "2 clips: the paper's score is of 25 drawn from more"),
        (["--output", "/dev/null/x"], "/dev/null/x: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_line(aligncap, files, options, message) -> None:
    aligncap("evaluate", *files, *options).refused(message)


def test_the_output_may_not_be_an_input(aligncap, files, hypotheses) -> None:
    before = hypotheses.read_bytes()
    ran = aligncap("evaluate", *files, *QUICK, "--output", hypotheses)
    ran.refused(f"{hypotheses}: is what this command reads; choose another output")
    assert hypotheses.read_bytes() == before


def rated(asked: Asked):
    score = 9 if "slowly" in asked.prompt else "nine"
    return saying(json.dumps({"reason": "alike", "score": score}))


def test_a_judge_rates_and_gives_account(aligncap, files, tmp_path) -> None:
    cache = ("--judge-cache", tmp_path / "replies.sqlite")
    with serving(rated) as server:
        judge = ("--judge-url", server.url, "--judge-model", "small", *cache)
        ran = aligncap("evaluate", *files, "--metrics", "aes-c", *judge, "--format", "json")
    assert json.loads(ran.out)["aes-c"]["value"] == 9
    *failures, account = ran.err.splitlines()
    assert ran.code == 1  # b was not rated
    assert [line.split(":")[1] for line in failures] == [" b"]
    assert account.startswith("aligncap: judge small: 2 questions, ")


HOSTED = "https://api.openai.com/v1"
LOCAL = "http://localhost:8000/v1"


def settings_for(url: str | None, environment: dict[str, str]):
    found = judge_settings(Console(environment=environment), "small", url, None, None)
    assert found
    return found


def test_options_arrive_and_no_model_is_no_judge(tmp_path: Path) -> None:
    console = Console(environment={})
    assert judge_settings(console, None, None, Path("x"), None) is None
    found = judge_settings(console, "small", None, tmp_path / "c", tmp_path)
    assert (found.model, found.url) == ("small", None)
    assert (found.cache, found.prompts) == (tmp_path / "c", tmp_path)


@pytest.mark.parametrize(
    ("url", "environment", "key"),
    [
        (LOCAL, {}, None),
        (LOCAL, {"OPENAI_API_KEY": "theirs"}, None),
        ("https://api.openai.com.other.invalid/v1", {"OPENAI_API_KEY": "theirs"}, None),
        (HOSTED, {"OPENAI_API_KEY": "theirs\n"}, "theirs"),
        (HOSTED, {"OPENAI_API_KEY": "theirs", "ALIGNCAP_JUDGE_KEY": "ours"}, "ours"),
        (LOCAL, {"ALIGNCAP_JUDGE_KEY": "ours"}, "ours"),
        (None, {"ALIGNCAP_JUDGE_KEY": ""}, None),
    ],
)
def test_a_key_goes_where_it_belongs(url, environment, key) -> None:
    assert settings_for(url, environment).key == key


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        (HOSTED, {"https_proxy": "http://p:1"}, "http://p:1"),
        (HOSTED, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (HOSTED, {"https_proxy": "p:1"}, "http://p:1"),
        (HOSTED, {"http_proxy": "http://p:1"}, None),
        (LOCAL, {"http_proxy": "http://p:1"}, None),
        (None, {"http_proxy": "http://p:1"}, None),
    ],
)
def test_a_proxy_is_not_in_the_way_of_a_server_of_ones_own(url, environment, proxy) -> None:
    assert settings_for(url, environment).proxy == proxy
