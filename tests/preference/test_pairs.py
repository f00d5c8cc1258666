"""Pairs: worked by hand, laws of the best against each of the rest, and files of pairs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import (
    FORMATS,
    PairOptions,
    best_against_rest,
    gold_against_best,
    import_pairs,
    pair_all,
    read_pairs,
    write_pairs,
)
from aligncap.preference.store import (
    Candidate,
    Judgement,
    PreferencePair,
    PreferenceStore,
    normal_form,
)
from support.preferences import PROVENANCE, FakeJudge, candidate, fill, finding

Texts = list[tuple[str, str, float]]


def scores(**by_text: float) -> dict[str, Judgement]:
    keys = {text: candidate(text).key for text in by_text}
    return {keys[text]: Judgement(keys[text], "fake", score) for text, score in by_text.items()}


def texts(pairs: Any) -> Texts:
    return [(one.chosen.text, one.rejected.text, one.margin) for one in pairs]


def latest(store: PreferenceStore) -> list[PreferencePair]:
    return list(store.pairs.all(store.pairs.latest()))


GROUP = [
    candidate("ok", log_probability=-2.0),
    candidate("good", log_probability=-1.0),
    candidate("free", log_probability=None, method="imported"),
    candidate("bad"),
    candidate("gold", method="gold"),
]


@pytest.mark.parametrize(
    ("rule", "judged", "margin", "expected"),
    [
        (best_against_rest, {"good": 1, "ok": 0.75, "bad": -1}, 0.5, [("good", "bad", 2.0)]),
        (best_against_rest, {"good": 1, "ok": 0.75}, 0.25, [("good", "ok", 0.25)]),
        # A tie teaches nothing, and the likelier is the best.
        (best_against_rest, {"ok": 1, "good": 1, "free": 1, "bad": 0.5}, 0, [("good", "bad", 0.5)]),
        # The caption of the corpus takes part only where it is asked to.
        (best_against_rest, {"good": 0.5, "bad": 0, "gold": 1}, 0, [("good", "bad", 0.5)]),
        (gold_against_best, {"good": 0.5, "bad": 0, "gold": 1}, 0, [("gold", "good", 0.5)]),
        (gold_against_best, {"good": 1, "gold": 0.5}, 0, []),
        (gold_against_best, {"good": 1, "bad": 0.5}, 0, []),
    ],
)
def test_pairs_by_hand(rule: Any, judged: dict[str, float], margin: float, expected: Texts) -> None:
    assert texts(rule(GROUP, scores(**judged), least_margin=margin)) == expected
    assert not texts(gold_against_best(GROUP[:4], scores(**judged), least_margin=0))


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
    with pytest.raises(DataError, match="no judgement of 'evidence'"):
        list(pair_all(store, PairOptions()))
    list(judge_all(store, FakeJudge()))
    options = PairOptions(least_margin=0)
    assert list(pair_all(store, options)) == [2, 2, 2]
    before = latest(store)
    assert list(pair_all(store, options)) == [2, 2, 2]
    assert latest(store) == before
    best = "The very best."
    store.add_findings([(finding(best, utterance="c01"), PROVENANCE)])
    list(judge_all(store, FakeJudge(scores={best: 9.0})))
    assert list(pair_all(store, options)) == [2, 3, 2]
    assert {one.chosen.text for one in latest(store) if one.utterance == "c01"} == {best}


def test_judges_are_combined_by_their_weights(store: PreferenceStore) -> None:
    store.add_findings([(finding("a", "b"), PROVENANCE)])
    list(judge_all(store, FakeJudge("evidence", {"a": 1.0, "b": 0.0})))
    list(judge_all(store, FakeJudge("llm", {"a": 0.0, "b": 1.0})))
    list(pair_all(store, PairOptions(judges={"evidence": 1.0, "llm": 3.0})))
    # (1*0 + 3*1)/4 for b, (1*1 + 3*0)/4 for a.
    assert texts(latest(store)) == [("b", "a", 0.5)]
    list(pair_all(store, PairOptions(judges={"evidence": 1.0, "llm": 1.0}, least_margin=0)))
    assert not latest(store)


def test_only_what_one_source_found(store: PreferenceStore) -> None:
    other = replace(PROVENANCE, model="improved")
    store.add_findings([(finding("a", "b"), PROVENANCE), (finding("b", "c"), other)])
    list(judge_all(store, FakeJudge(scores={"a": 1.0, "b": 0.5, "c": 0.0})))
    list(pair_all(store, PairOptions(), source=other))
    assert texts(latest(store)) == [("b", "c", 0.5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_margin": -1}, "margin is -1"),
        (
            {"judges": {"evidence": 0.0}},
            r"judges(\.\w+)? is .*must be (a section of at least 1|above 0)",
        ),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PairOptions(**options)


PAIR = PreferencePair(candidate("He is calm."), candidate("He is angry."), 0.25)


candidates = st.builds(
    Candidate,
    utterance=st.just("a/ü 1"),
    language=st.just("zh"),
    text=st.text(st.characters(codec="utf-8"), min_size=1).filter(normal_form),
    token_ids=st.lists(st.integers(0, 1 << 17)).map(tuple),
    log_probability=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    method=st.sampled_from(["beam", "sample", "gold"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    chosen=candidates,
    rejected=candidates,
    margin=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    name=st.sampled_from(sorted(FORMATS)),
)
def test_the_round_trip_is_exact(tmp_path, chosen, rejected, margin, name) -> None:
    assume(chosen.key != rejected.key)
    written = [(PreferencePair(chosen, rejected, margin), "ü.wav"), (PAIR, "u1.wav")]
    write_pairs(tmp_path / "p.jsonl", written, format=name)
    assert list(read_pairs(tmp_path / "p.jsonl")) == written


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_store_that_imports_exports_the_same_file(store, tmp_path, name) -> None:
    def export(opened: PreferenceStore, path: Path) -> str:
        files = {clip.utterance: clip.file for clip in opened.clips()}
        write_pairs(path, ((one, files[one.utterance]) for one in latest(opened)), format=name)
        return path.read_text("utf-8")

    fill(store, 3)
    list(judge_all(store, FakeJudge()))
    list(pair_all(store, PairOptions(least_margin=0)))
    first = export(store, tmp_path / "a.jsonl")
    with PreferenceStore(tmp_path / "other.sqlite") as other:
        for _ in range(2):  # once more changes nothing
            assert import_pairs(other, tmp_path / "a.jsonl") == 6
        assert export(other, tmp_path / "b.jsonl") == first


def test_pairs_that_differ_in_a_full_stop_only_are_one(store, tmp_path: Path) -> None:
    lines = [
        {"id": "u1", "chosen": f"He is calm{end}", "rejected": "He is angry."} for end in (".", "")
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert import_pairs(store, path) == 1
    assert [one.chosen.text for one in latest(store)] == ["He is calm."]


def test_rows_made_elsewhere_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    messages = [{"role": "assistant", "content": "He is calm."}]
    lines = [
        {"prompt": "…", "chosen": "He is calm.", "rejected": "He is angry."},
        {"prompt": "…", "chosen": messages, "rejected": "He is angry.", "id": "u7"},
        {
            "conversations": [],
            "chosen": {"from": "gpt", "value": "他很平静。"},
            "rejected": {"from": "gpt", "value": "他很愤怒。"},
            "audios": ["clips/u8.wav"],
        },
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines), "utf-8")
    found = list(read_pairs(path))
    assert [(pair.utterance, pair.language, file) for pair, file in found] == [
        ("p:1", "en", ""),
        ("u7", "en", ""),
        ("clips/u8.wav", "zh", "clips/u8.wav"),
    ]
    assert {(pair.margin, pair.chosen.method) for pair, _ in found} == {(1.0, "imported")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds a list; write one JSON object a line"),
        ('{"chosen": "a"}', "is no pair: lacks 'rejected'"),
        ('{"chosen": 1, "rejected": "a"}', "is no pair: 'chosen' is no text"),
        ('{"chosen": "So.", "rejected": "so"}', "chosen and rejected are the same caption"),
        ('{"chosen": "", "rejected": "a"}', "is no pair: 'chosen' is empty"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"chosen": "a", "rejected": "b"}}\n{line}\n', "utf-8")
    with pytest.raises(DataError, match=rf"p\.jsonl:2: .*{message}"):
        list(read_pairs(path))


def test_a_file_that_cannot_be_read_and_a_format_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the pairs"):
        list(read_pairs(tmp_path / "none.jsonl"))
    with pytest.raises(UnknownNameError, match="did you mean 'trl'"):
        write_pairs(tmp_path / "p.jsonl", [], format="tlr")
    assert not list(tmp_path.iterdir())
