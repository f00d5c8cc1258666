"""P_score: candidates of a clip, anonymous and shuffled."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligncap.errors import DataError
from aligncap.metrics.aes import (
    CandidateScore,
    CandidateSet,
    score_candidate_sets,
    score_candidates,
)
from aligncap.metrics.judge import JudgeFailure
from metrics.judge.fakes import FakeModel, judge_of

INSTRUCTION = "Say how the person sounds."


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


def test_the_value_is_the_mean_less_a_penalty_for_each_contradicted_clue() -> None:
    score = CandidateScore(
        caption="a", richness=4, consistency=8, fluency=9, adherence=10,
        contradicted=("low", "slow"), unsupported=("warm",), penalty=1.5,
    )  # fmt: skip
    assert score.value == 7.75 - 3.0


def test_each_caption_has_its_own_score_in_the_order_given(tmp_path: Path) -> None:
    captions = ("low", "high", "a", "loud voice")
    with judge_of(FakeModel(by_length), tmp_path) as judge:
        scores = score_candidates(judge, captions, instruction=INSTRUCTION)
    assert tuple(score.caption for score in scores) == captions
    assert [score.richness for score in scores] == [3, 4, 1, 10]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(["low", "high", "slow", "calm", "low"]))
def test_the_same_candidates_are_the_same_prompt(tmp_path: Path, captions: list[str]) -> None:
    model = FakeModel(by_length)
    first = ("calm", "low", "slow", "high")
    with judge_of(model, tmp_path) as judge:
        score_candidates(judge, first, instruction=INSTRUCTION, references=["he is calm"])
        del model.prompts[:]
        scores = score_candidates(
            judge, captions, instruction=INSTRUCTION, references=["he is calm"]
        )
    assert model.prompts == []
    assert [score.caption for score in scores] == captions


def test_the_place_of_a_candidate_says_nothing_of_where_it_came_from(tmp_path: Path) -> None:
    model = FakeModel(by_length)
    captions = ("first", "second", "third", "4th")
    sets = [
        CandidateSet(
            id=f"clip{n}", instruction=INSTRUCTION, candidates=captions, references=(f"{n}",)
        )
        for n in range(80)
    ]
    with judge_of(model, tmp_path) as judge:
        score_candidate_sets(judge, sets)
    leading = [shown(prompt)["C1"] for prompt in model.prompts]
    # 80 draws of 4: 20 each, give or take four standard deviations of 3.9.
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
    model = FakeModel(lambda prompt: json.dumps(spoil(json.loads(by_length(prompt)))))
    with judge_of(model, tmp_path) as judge:
        with pytest.raises(DataError, match=complaint):
            score_candidates(judge, ["low", "high"], instruction=INSTRUCTION)
        assert len(model.prompts) == 2


def test_one_clip_that_fails_leaves_the_others(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: "?" if "bad" in prompt else by_length(prompt))
    sets = [
        CandidateSet(id=word, instruction=INSTRUCTION, candidates=(word, "low"))
        for word in ("good", "bad")
    ]
    with judge_of(model, tmp_path) as judge:
        good, bad = score_candidate_sets(judge, sets)
    assert [score.value for score in good] == [(4 + 27) / 4, (3 + 27) / 4]
    assert isinstance(bad, JudgeFailure)
    assert bad.id == "bad"


def test_chinese_is_asked_in_chinese(tmp_path: Path) -> None:
    reply = json.dumps({"C1": rate("低")})
    model = FakeModel(lambda prompt: reply)
    with judge_of(model, tmp_path) as judge:
        score_candidates(
            judge, ["低"], instruction="说说声音", references=["他平静"], language="zh"
        )
    assert '{"C1": "低"}' in model.prompts[0]
    assert "遵循指令" in model.prompts[0]


def test_a_set_without_candidates_is_refused() -> None:
    with pytest.raises(DataError, match="clip1: has no candidate to rate"):
        CandidateSet(id="clip1", instruction=INSTRUCTION, candidates=())
