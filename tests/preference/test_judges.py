"""Judges: opened by name, asked for what is missing, people's choices and a language model's."""

import json
import re
from pathlib import Path

import pytest

from aligncap.errors import DataError, JudgeError, RecipeError, UnknownNameError
from aligncap.preference.judges import (
    HumanJudge,
    JudgeOptions,
    LlmJudge,
    combined,
    judge_all,
    open_judge,
)
from aligncap.preference.store import (
    Annotation,
    Clip,
    ClipCandidates,
    Judgement,
    PreferenceStore,
    Provenance,
)
from support.models import FakeChatModel, judge_of
from support.preferences import PROVENANCE, FakeJudge, candidate, fill, finding


def test_judges_are_opened_by_name() -> None:
    assert open_judge("evidence", JudgeOptions()).signature.startswith("evidence|weights:")
    with pytest.raises(UnknownNameError, match="did you mean 'evidence'"):
        open_judge("evidense", JudgeOptions())
    with pytest.raises(DataError, match="nobody has judged a pair yet"):
        open_judge("human", JudgeOptions(annotations=(Annotation("i", "a", "x", "y", "skip"),)))
    with pytest.raises(RecipeError, match="give --judge-model"):
        open_judge("llm", JudgeOptions())


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_only_what_is_missing_is_judged(store: PreferenceStore, batch_size: int) -> None:
    judge = FakeJudge(batch_size=batch_size)
    fill(store, 5)
    assert sum(judge_all(store, judge)) == 15
    assert list(judge_all(store, judge)) == [0] * 5
    store.add_findings([(finding("One more.", utterance="c03"), PROVENANCE)])
    assert list(judge_all(store, judge)) == [0, 0, 0, 1, 0]
    assert store.count_judgements(judge.signature) == 16


def test_judges_combine_to_the_weighted_mean() -> None:
    first = {
        key: Judgement(key, "a|1", score, reason="why") for key, score in {"x": 1, "y": 0}.items()
    }
    second = {"x": Judgement("x", "b|1", -1.0)}
    found = combined({"a": first, "b": second}, {"a": 3.0, "b": 1.0})
    assert found.keys() == {"x"}  # what one of them has not judged has no score
    assert found["x"].score == (3 * 1 - 1) / 4
    assert found["x"].parts == {"a": 1.0, "b": -1.0}
    assert found["x"].judge == "3*a|1+1*b|1"
    with pytest.raises(RecipeError, match="weights above 0"):
        combined({"a": first}, {"a": 0.0})


def test_people_score_by_wins_less_losses() -> None:
    a, b, c, d = (candidate(text) for text in ("a", "b", "c", "d"))
    choices = (
        Annotation("1", "anna", a.key, b.key, "first"),
        Annotation("2", "bo", b.key, a.key, "second"),
        Annotation("3", "bo", a.key, c.key, "second"),
        Annotation("4", "anna", c.key, b.key, "tie"),
        Annotation("5", "anna", c.key, d.key, "skip"),
    )
    judge = HumanJudge(choices)
    (found,) = judge.judge([(Clip("u1", "u1.wav"), [a, b, c, d])])
    by_key = {one.candidate: one.score for one in found}
    assert by_key == {a.key: (2 - 1) / 3, b.key: -2 / 3, c.key: 1 / 2}
    assert found[0].reason == "preferred 2 times in 3, 0 ties"
    assert judge.signature.startswith("human|people:2|choices:5|")
    assert judge.signature != HumanJudge(choices[:4]).signature
    assert judge.signature == HumanJudge(choices[::-1]).signature


def by_length(prompt: str) -> str:
    """Rates a caption by its length; "wrong" in it is a contradicted clue."""
    shown = re.search(r"^Captions: (.*)$", prompt, re.MULTILINE)
    assert shown
    rows = {
        name: {
            "richness": min(10, len(caption)),
            "consistency": 10,
            "fluency": 10,
            "adherence": 10,
            "contradicted": ["wrong"] if "wrong" in caption else [],
            "unsupported": [],
        }
        for name, caption in json.loads(shown[1]).items()
    }
    return json.dumps(rows)


def test_a_language_model_judges_all_candidates_of_a_clip_together(
    store: PreferenceStore, tmp_path: Path
) -> None:
    told = Clip("u1", "u1.wav", references={"en": ("He sounds very sad.",)})
    untold = Clip("u2", "u2.wav")
    for clip in (told, untold):
        texts = [candidate(text, clip.utterance) for text in ("ab", "abcd wrong")]
        gold = candidate("A gold caption.", clip.utterance, method="gold")
        corpus = Provenance(model="corpus", fingerprint="", method="gold")
        found = ClipCandidates(clip, "en", tuple(texts)), ClipCandidates(clip, "en", (gold,))
        store.add_findings([(found[0], PROVENANCE), (found[1], corpus)])
    model = FakeChatModel(by_length)
    judge = LlmJudge(judge_of(model, tmp_path))
    assert sum(judge_all(store, judge)) == 6
    assert len(model.prompts) == 2
    # What people say is the reference, or else what was written from the labels.
    assert sum("He sounds very sad." in prompt for prompt in model.prompts) == 1
    assert sum('References: ["A gold caption."]' in prompt for prompt in model.prompts) <= 1
    scores = store.judgements("u1", "en", judge.signature)
    short, wrong = (scores[candidate(text).key] for text in ("ab", "abcd wrong"))
    assert short.score == pytest.approx((2 + 30) / 4 / 10)
    assert wrong.score == pytest.approx((10 + 30) / 4 / 10 - 0.1)
    assert wrong.reason == "contradicted: wrong"
    assert judge.signature.startswith("llm|judge:fake|settings:")
    assert sum(judge_all(store, judge)) == 0
    judge.close()


def test_a_language_model_that_says_nothing_usable_is_an_error(
    store: PreferenceStore, tmp_path: Path
) -> None:
    fill(store, 2)
    judge = LlmJudge(judge_of(FakeChatModel(lambda prompt: "I would rather not."), tmp_path))
    with pytest.raises(JudgeError, match="judge fake could rate none of 2 clips"):
        list(judge_all(store, judge))
    judge.close()
