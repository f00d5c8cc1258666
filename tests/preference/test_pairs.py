"""Pairs: worked by hand, and laws of the best against each of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import DataError, RecipeError
from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import PairOptions, best_against_rest, gold_against_best, pair_all
from aligncap.preference.store import Judgement, PreferencePair, PreferenceStore
from support.preferences import PROVENANCE, FakeJudge, candidate, fill, finding


def scores(**by_text: float) -> dict[str, Judgement]:
    keys = {text: candidate(text).key for text in by_text}
    return {keys[text]: Judgement(keys[text], "fake", score) for text, score in by_text.items()}


def texts(pairs: list[PreferencePair]) -> list[tuple[str, str, float]]:
    return [(one.chosen.text, one.rejected.text, one.margin) for one in pairs]


def test_the_best_is_set_against_each_of_the_rest() -> None:
    group = [candidate(text) for text in ("ok", "good", "bad", "unjudged")]
    pairs = best_against_rest(group, scores(good=1.0, ok=0.75, bad=-1.0), least_margin=0.5)
    assert texts(list(pairs)) == [("good", "bad", 2.0)]
    pairs = best_against_rest(group, scores(good=1.0, ok=0.75, bad=-1.0), least_margin=0.25)
    assert texts(list(pairs)) == [("good", "bad", 2.0), ("good", "ok", 0.25)]


def test_a_tie_teaches_nothing_and_the_likelier_is_the_best() -> None:
    group = [
        candidate("one", log_probability=-2.0),
        candidate("two", log_probability=-1.0),
        candidate("three", log_probability=None, method="imported"),
        candidate("four"),
    ]
    pairs = best_against_rest(group, scores(one=1.0, two=1.0, three=1.0, four=0.5), least_margin=0)
    assert texts(list(pairs)) == [("two", "four", 0.5)]


def test_the_caption_of_the_corpus_takes_part_only_where_it_is_asked_to() -> None:
    group = [candidate("good"), candidate("bad"), candidate("gold", method="gold")]
    found = scores(good=0.5, bad=0.0, gold=1.0)
    assert texts(list(best_against_rest(group, found, least_margin=0))) == [("good", "bad", 0.5)]
    assert texts(list(gold_against_best(group, found, least_margin=0))) == [("gold", "good", 0.5)]
    assert not list(gold_against_best(group, scores(good=1.0, gold=0.5), least_margin=0))
    assert not list(gold_against_best(group[:2], found, least_margin=0))


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(-8, 8), max_size=8),
    st.integers(0, 4),
)
def test_laws(by_text: dict[str, int], least: int) -> None:
    group = [candidate(text) for text in by_text]
    found = scores(**{text: score / 4 for text, score in by_text.items()})
    pairs = list(best_against_rest(group, found, least_margin=least / 4))
    best = max(by_text.values(), default=0)
    assert all(by_text[one.chosen.text] == best for one in pairs)
    far = [score for score in by_text.values() if best - score >= max(least, 1)]
    assert sorted(one.margin for one in pairs) == sorted((best - score) / 4 for score in far)
    assert len({one.rejected.key for one in pairs}) == len(pairs)


def test_pairing_again_changes_nothing_and_more_candidates_more(store: PreferenceStore) -> None:
    fill(store, 3)
    judge = FakeJudge()
    with pytest.raises(DataError, match="no judgement of 'evidence'"):
        list(pair_all(store, PairOptions()))
    list(judge_all(store, judge))
    options = PairOptions(least_margin=0)
    assert list(pair_all(store, options)) == [2, 2, 2]
    builder = store.pairs.latest()
    before = list(store.pairs.all(builder))
    assert list(pair_all(store, options)) == [2, 2, 2]
    assert list(store.pairs.all(builder)) == before
    best = "The very best."
    store.add_findings([(finding(best, utterance="c01"), PROVENANCE)])
    list(judge_all(store, FakeJudge(scores={best: 9.0})))
    assert list(pair_all(store, options)) == [2, 3, 2]
    of_clip = [one for one in store.pairs.all(builder) if one.utterance == "c01"]
    assert {one.chosen.text for one in of_clip} == {best}


def test_judges_are_combined_by_their_weights(store: PreferenceStore) -> None:
    store.add_findings([(finding("a", "b"), PROVENANCE)])
    list(judge_all(store, FakeJudge("evidence", {"a": 1.0, "b": 0.0})))
    list(judge_all(store, FakeJudge("llm", {"a": 0.0, "b": 1.0})))
    by_three = PairOptions(judges={"evidence": 1.0, "llm": 3.0})
    list(pair_all(store, by_three))
    # (1*0 + 3*1)/4 for b, (1*1 + 3*0)/4 for a.
    assert texts(list(store.pairs.all(store.pairs.latest()))) == [("b", "a", 0.5)]
    list(pair_all(store, PairOptions(judges={"evidence": 1.0, "llm": 1.0}, least_margin=0)))
    assert not list(store.pairs.all(store.pairs.latest()))


def test_only_what_one_source_found(store: PreferenceStore) -> None:
    from dataclasses import replace

    other = replace(PROVENANCE, model="improved")
    store.add_findings([(finding("a", "b"), PROVENANCE)])
    store.add_findings([(finding("b", "c"), other)])
    list(judge_all(store, FakeJudge(scores={"a": 1.0, "b": 0.5, "c": 0.0})))
    list(pair_all(store, PairOptions(), source=other))
    assert texts(list(store.pairs.all(store.pairs.latest()))) == [("b", "c", 0.5)]


def test_options_are_checked() -> None:
    with pytest.raises(RecipeError, match="margin is -1"):
        PairOptions(least_margin=-1)
    with pytest.raises(
        RecipeError, match=r"judges(\.\w+)? is .*must be (a section of at least 1|above 0)"
    ):
        PairOptions(judges={"evidence": 0.0})
