"""AES_c and AES_s as metrics, P_score, their prompts, and the strict reading of replies."""

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligncap.errors import DataError, JudgeError, MissingModelError, UnknownNameError
from aligncap.metrics.aes import (
    BUILT_IN,
    PLACEHOLDERS,
    CandidateScore,
    CandidateSet,
    load_template,
    read_aes,
    read_object,
    score_candidate_sets,
    score_candidates,
)
from aligncap.metrics.judge import JudgeFailure, MalformedReplyError
from aligncap.metrics.scores import MetricOptions, ScoredClip, open_metric
from aligncap.values import LANGUAGES
from support.models import FakeChatModel, judge_of, numbered_clip, rating

INSTRUCTION = "Say how the person sounds."
GOOD = '{"reason": "both are low", "score": 7}'


def test_the_value_is_the_mean_rating_of_the_clips_that_could_be_rated(tmp_path: Path) -> None:
    replies = {"voice 0": rating(2), "voice 1": "no"}
    model = FakeChatModel(lambda p: next((replies[v] for v in replies if v in p), rating(9)))
    # An empty caption has the lowest rating and is not asked about.
    clips = [*(numbered_clip(number) for number in range(4)), numbered_clip(4, " ")]
    with judge_of(model, tmp_path) as judge:
        statistics = open_metric("aes-c", MetricOptions(judge=judge)).measure(clips)
        assert [failure.id for failure in judge.report.failures] == ["clip1"]
    np.testing.assert_array_equal(statistics.clip_values, [2.0, np.nan, 9.0, 9.0, 1.0])
    assert (statistics.value, statistics.scale) == (pytest.approx((2 + 9 + 9 + 1) / 4), 1.0)
    assert not any('" "' in prompt for prompt in model.prompts)


def test_a_judge_that_rates_no_clip_or_is_not_named_is_an_error(tmp_path: Path) -> None:
    with judge_of(FakeChatModel(lambda prompt: "I am a parrot"), tmp_path) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))
        with pytest.raises(JudgeError, match=r"fake could rate none of 2 clips .*no whole JSON"):
            metric.measure([numbered_clip(0), numbered_clip(1)])
    with pytest.raises(MissingModelError, match="give --judge-url and --judge-model for a server"):
        open_metric("aes-c", MetricOptions())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["aes-c", "aes-s"])
def test_the_prompt_shows_prediction_and_every_reference(tmp_path, name, language) -> None:
    model = FakeChatModel(lambda prompt: rating(7))
    one = ScoredClip("a", '声音"低沉"', ("他很平静", "a calm man"))
    with judge_of(model, tmp_path) as judge:
        open_metric(name, MetricOptions(judge=judge, language=language)).measure([one])
    (prompt,) = model.prompts
    assert json.dumps(one.hypothesis, ensure_ascii=False) in prompt
    assert json.dumps(list(one.references), ensure_ascii=False) in prompt
    assert "$" not in prompt
    assert ("请" in prompt) == (language == "zh")


def test_the_signature_names_judge_prompt_settings_and_scale(tmp_path: Path) -> None:
    variants = set()
    for kind in ("one", "o|t her"):
        with judge_of(FakeChatModel(str, name=kind), tmp_path) as judge:
            variants |= {
                open_metric(name, MetricOptions(judge=judge, language=language)).variant
                for name in ("aes-c", "aes-s")
                for language in LANGUAGES
            }
    assert len(variants) == 8
    pattern = r"aes-c\|judge:o_t_her\|prompt:en-\w{8}\|settings:\w{8}\|scale:1-10"
    assert re.fullmatch(pattern, min(variants))


def test_prompts_of_ones_own_are_used_and_signed(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "aes-c.en.txt").write_text("Costs $$1. $references / $prediction", "utf-8")
    model = FakeChatModel(lambda prompt: rating(7))
    variants = []
    for how in ({"prompts": prompts}, {}):
        with judge_of(model, tmp_path, **how) as judge:
            opened = [open_metric(name, MetricOptions(judge=judge)) for name in ("aes-c", "aes-s")]
            variants.append([metric.variant for metric in opened])
            if how:
                opened[0].measure([numbered_clip(0)])
    assert model.prompts == ['Costs $1. ["voice 0 is low and slow"] / "voice 0 is low"']
    assert [own == built_in for own, built_in in zip(*variants, strict=True)] == [False, True]


@pytest.mark.parametrize(
    ("file", "text", "error", "line"),
    [
        ("aes-c.en.txt", "$prediction", DataError, r"must have the places \$prediction, \$ref"),
        ("aes-c.en.txt", "$prediction $references $x", DataError, "and has"),
        ("aes-c.en.txt", "1 $ for $prediction $references", DataError, "write '\\$\\$'"),
        ("aes_c.en.txt", "$prediction $references", UnknownNameError, "did you mean 'aes-c.en"),
    ],
)
def test_a_prompt_that_cannot_be_meant_is_refused(tmp_path, file, text, error, line) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(error, match=line) as caught:
        load_template("aes-c", "en", tmp_path)
    assert file in str(caught.value)
    with pytest.raises(DataError, match="is no folder of prompts"):
        load_template("aes-c", "en", tmp_path / "none")


def test_every_prompt_is_there_in_every_language() -> None:
    names = {f"{kind}.{language}.txt" for kind in PLACEHOLDERS for language in LANGUAGES}
    assert {path.name for path in BUILT_IN.glob("*")} == names
    assert all(load_template(kind, one).text for kind in PLACEHOLDERS for one in LANGUAGES)


def shown(prompt: str) -> dict[str, str]:
    """The candidates of an English prompt, by the name they are shown under."""
    found = re.search(r"^Captions: (.*)$", prompt, re.MULTILINE)
    assert found
    return json.loads(found[1])


def rate(caption: str, **more: object) -> dict[str, object]:
    """Ratings that tell captions apart: richness is the length of the text."""
    row = {"richness": len(caption), "consistency": 8, "fluency": 9, "adherence": 10}
    return {**row, "contradicted": [], "unsupported": [], **more}


def by_length(prompt: str) -> str:
    return json.dumps({name: rate(caption) for name, caption in shown(prompt).items()})


def test_p_score_is_the_mean_less_a_penalty_for_each_contradicted_clue() -> None:
    score = CandidateScore(
        caption="a", richness=4, consistency=8, fluency=9, adherence=10,
        contradicted=("low", "slow"), unsupported=("warm",), penalty=1.5,
    )  # fmt: skip
    assert score.value == 7.75 - 3.0


def candidates(name: str, *captions: str) -> CandidateSet:
    known = {"instruction": INSTRUCTION, "references": (f"of {name}",)}
    return CandidateSet(id=name, candidates=captions, **known)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(["low", "high", "slow", "calm", "low"]))
def test_the_same_candidates_are_the_same_prompt(tmp_path: Path, captions: list[str]) -> None:
    model = FakeChatModel(by_length)
    how = {"instruction": INSTRUCTION, "references": ["he is calm"]}
    with judge_of(model, tmp_path) as judge:
        score_candidates(judge, ("calm", "low", "slow", "high"), **how)
        del model.prompts[:]
        scores = score_candidates(judge, captions, **how)
    assert model.prompts == []
    assert [(score.caption, score.richness) for score in scores] == [(c, len(c)) for c in captions]


def test_the_place_of_a_candidate_says_nothing_of_where_it_came_from(tmp_path: Path) -> None:
    model = FakeChatModel(by_length)
    captions = ("first", "second", "third", "4th")
    with judge_of(model, tmp_path) as judge:
        score_candidate_sets(judge, [candidates(f"clip{n}", *captions) for n in range(80)])
    leading = [shown(prompt)["C1"] for prompt in model.prompts]
    # 80 samples of 4: 20 each, give or take four standard deviations of 3.9.
    assert all(5 <= leading.count(caption) <= 35 for caption in captions)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda table: {"C1": table["C1"]}, "lacks 'C2'"),
        (lambda table: {**table, "C3": table["C1"]}, "has 'C3'"),
        (lambda table: {**table, "C2": 7}, "'C2' must be an object"),
        (lambda table: {**table, "C2": rate("abc", richness=10.5)}, "must be 0 to 10"),
        (lambda table: {**table, "C2": rate("abc", style=1)}, "C2 has 'style'"),
        (lambda table: {**table, "C2": rate("abc", contradicted="low")}, "list of texts"),
        (lambda table: {**table, "C2": rate("abc", unsupported=[""])}, "list of texts"),
        (lambda table: {**table, "C2": {"richness": 1}}, "C2 lacks 'consistency'"),
    ],
)
def test_a_reply_that_leaves_a_doubt_is_refused(tmp_path: Path, spoil, complaint: str) -> None:
    model = FakeChatModel(lambda prompt: json.dumps(spoil(json.loads(by_length(prompt)))))
    with judge_of(model, tmp_path) as judge:
        with pytest.raises(DataError, match=complaint):
            score_candidates(judge, ["low", "high"], instruction=INSTRUCTION)
        assert len(model.prompts) == 2


def test_one_set_that_fails_leaves_the_others_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    model = FakeChatModel(lambda prompt: "?" if "bad" in prompt else by_length(prompt))
    sets = [candidates(word, word, "low") for word in ("good", "bad")]
    with judge_of(model, tmp_path) as judge:
        good, bad = score_candidate_sets(judge, sets)
    assert [score.value for score in good] == [(4 + 27) / 4, (3 + 27) / 4]
    assert isinstance(bad, JudgeFailure)
    assert bad.id == "bad"
    with judge_of(model := FakeChatModel(lambda prompt: '{"C1": {}}'), tmp_path / "zh") as judge:
        score_candidate_sets(judge, sets[:1], language="zh")
    assert "遵循指令" in model.prompts[0]
    with pytest.raises(DataError, match="clip1: has no candidate to rate"):
        candidates("clip1")


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here is my rating:\n\n{GOOD}\n\nI hope that helps.",
        f"<think>Perhaps {{6}}, or {{7}}?</think>\n{GOOD}",
        '{"score": 7.0, "reason": "braces {in} a text"}',
    ],
)
def test_an_object_is_found_where_there_is_only_one(reply: str) -> None:
    assert read_aes(reply) == 7.0


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ("", "no whole JSON object"),
        ("[7]", "no whole JSON object"),
        ('{"reason": "cut in the mid', "no whole JSON object"),
        (f"{GOOD} {GOOD}", "not one JSON object"),
        (f"In the form {{score}}: {GOOD}", "not one JSON object"),
        (f"}} {GOOD}", "not one JSON object"),
        (f'{{"note": {GOOD}', "not one JSON object"),
        ('{"reason": "x", "score": 7, "score": 9}', "twice"),
        ('{"reason": "x", "score": NaN}', "NaN is no number"),
        ('{"reason": "x", "score": 1e999}', "infinite"),
        ('{"reason": "x", "score": 11}', "must be 1 to 10"),
        ('{"reason": "x", "score": 0.99}', "must be 1 to 10"),
        (f'{{"reason": "x", "score": {"9" * 900}}}', "very many digits"),
        (f'{{"reason": "x", "score": {"9" * 9000}}}', "not one JSON object"),
        ('{"reason": "x", "score": "7"}', "must be a number, not '7'"),
        ('{"reason": "x", "score": true}', "must be a number, not True"),
        ('{"reason": "x", "score": [7]}', "must be a number"),
        ('{"reason": " ", "score": 7}', "'reason' must be text"),
        ('{"reason": 3, "score": 7}', "'reason' must be text"),
        ("{}", "lacks 'reason', 'score'"),
        ('{"reason": "x", "score": 7, "scale": 10}', "has 'scale', which nobody asked for"),
        ('{"a":' * 100_000 + "}" * 100_000, "RecursionError"),
    ],
)
def test_the_complaint_names_what_is_wrong_with_a_reply(reply: str, complaint: str) -> None:
    with pytest.raises(MalformedReplyError, match=complaint):
        read_aes(reply)


@settings(max_examples=60)
@given(st.text() | st.text(alphabet='{}[]":,0 ab\\<think>\ud800'))
def test_no_reply_is_a_crash(reply: str) -> None:
    with suppress(MalformedReplyError):
        assert 1 <= read_aes(reply) <= 10


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none(), min_size=1),
    st.text(alphabet=st.characters(exclude_characters="{}<>")),
)
def test_prose_without_braces_changes_nothing(table: dict[str, object], prose: str) -> None:
    assert read_object(f"{prose}{json.dumps(table)}{prose}") == table
