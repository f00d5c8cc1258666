"""The store of preferences and its values: what is refused, what comes back, what counts once."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import AlignCapError, DataError
from aligncap.preference.store import (
    Annotation,
    Candidate,
    Clip,
    ClipCandidates,
    Judgement,
    PreferencePair,
    PreferenceStore,
    Provenance,
    normal_form,
    open_store,
)
from support.preferences import FAST_LOUD_WOMAN, PROVENANCE, FakeJudge, candidate, fill, finding


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("A man speaks slowly.", "a man speaks slowly", True),
        ("A man speaks slowly.", "A man  speaks\tslowly.", True),
        ("A man speaks slowly.", " A MAN SPEAKS SLOWLY!… ", True),
        ("A man speaks slowly.", "Ａ ｍａｎ　ｓｐｅａｋｓ　ｓｌｏｗｌｙ．", True),
        ("A man speaks slowly.", "A man speaks slowly 。", True),
        ("A man speaks slowly.", "A man, speaks slowly.", False),
        ("A man speaks slowly.", "Aman speaks slowly.", False),
        ("他 说话很快，声音 低沉。", "他说话很快,声音低沉", True),
    ],
)
def test_case_space_width_and_the_end_make_no_difference(text: str, other: str, same: bool) -> None:
    assert (normal_form(other) == normal_form(text)) is same


@given(st.text())
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normal_form(normal_form(text)) == normal_form(text)


def test_the_key_is_of_the_utterance_language_and_normal_form() -> None:
    assert candidate("So.").key == candidate("so", method="sample", log_probability=-3.0).key
    others = [Candidate("u1", "zh", "So."), candidate("So.", "u2"), candidate("So!n")]
    assert len({one.key for one in [candidate("So."), *others]}) == 4


paired = partial(PreferencePair, candidate("Calm."))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((partial(candidate, text), "u1: a candidate says nothing")
          for text in ("", " \n", " . 。!", "\u3000")),
        (partial(Candidate, "u1", "de", "Ja."), "no caption language called 'de'"),
        (partial(candidate, "So.", method="beams"), "did you mean 'beam'"),
        (partial(Annotation, "id", "anna", "a", "b", "1"), "no choice called '1'"),
        (partial(paired, candidate("calm"), 0.5), "u1: chosen and rejected are the same caption"),
        (partial(paired, candidate("Mad.", "u2"), 0.5), "u1: is paired with a caption of u2"),
        *((partial(paired, candidate("Mad."), margin), "u1: margin is")
          for margin in (0.0, -1.0, float("inf"), float("nan"))),
        (partial(finding, "Calm.", "calm"), "u1: two candidates say the same"),
        (partial(Judgement, "key", "evidence|x", float("nan")), "a score must be a number"),
    ],
)  # fmt: skip
def test_what_a_value_cannot_mean_is_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(AlignCapError, match=message):
        make()


def test_provenance_has_a_key_that_changes_with_all_of_it() -> None:
    base = {"model": "m", "fingerprint": "f", "method": "beam", "options": {"count": 5}}
    changes = [{"model": "n"}, {"fingerprint": "g"}, {"method": "sample"}, {"seed": 1}]
    changes += [{"options": {"count": 4}}, {"version": "2"}]
    assert len({Provenance(**base | change).key for change in [{}, *changes]}) == 7


def test_an_annotation_has_a_value_whoever_is_shown_first() -> None:
    def shown(*texts: str) -> Annotation:
        return Annotation("i", "anna", *texts)

    assert shown("a", "b", "first").pair == shown("b", "a", "second").pair == ("a", "b")
    assert shown("a", "b", "first").value == 1
    values = [shown("b", "a", one).value for one in ("first", "second", "tie", "skip")]
    assert values == [-1, 1, 0, None]


def test_a_clip_comes_back_as_it_was_and_newer_knowledge_takes_nothing_away(store) -> None:
    references = {"en": ("He sounds sad.",), "zh": ("他很伤心。", "悲伤")}
    clip = Clip("u1", "a/u1.flac", FAST_LOUD_WOMAN, "sad", "male", references)
    found = (candidate("Calm.", log_probability=-1.25), candidate("Sad."))
    store.add_findings([(ClipCandidates(clip, "en", found), PROVENANCE)])
    assert list(store.groups()) == [(clip, "en", list(found))]
    assert store.sources() == [replace(PROVENANCE, options={"count": 3})]
    assert store.found(PROVENANCE) == {("u1", "en")}
    assert store.found(replace(PROVENANCE, seed=1)) == set()
    bare = ClipCandidates(Clip("u1", ""), "en", (candidate("Angry."),))
    store.add_findings([(bare, PROVENANCE)])
    assert store.clip("u1") == clip


def test_what_two_models_find_is_one_candidate_each_found_by_its_own(store) -> None:
    gold, other = replace(PROVENANCE, method="gold"), replace(PROVENANCE, model="other")
    store.add_findings([(finding("Calm."), gold), (finding("Calm.", "Sad."), PROVENANCE)])
    store.add_findings([(finding("calm", "Angry."), other)])
    found = store.candidates("u1", "en")
    assert [one.text for one in found] == ["Calm.", "Sad.", "Angry."]
    assert [one.text for one in store.candidates("u1", "en", other)] == ["Calm.", "Angry."]
    assert len(store) == 3
    assert {one.method for one in found} == {"beam"}  # a model's, though the corpus has it


def test_one_id_is_one_file(store: PreferenceStore) -> None:
    store.add_findings([(finding("Calm."), PROVENANCE)])
    other = ClipCandidates(Clip("u1", "elsewhere/u1.wav"), "en", (candidate("Sad."),))
    message = r"its id 'u1' belongs to u1.wav .* keep one store a corpus"
    with pytest.raises(DataError, match=message):
        store.add_findings([(other, PROVENANCE)])
    assert len(store) == 1


def test_a_judgement_is_kept_once_and_stays_as_it_is(store: PreferenceStore) -> None:
    fill(store, 1)
    key = candidate("Caption 0 of c00.", "c00").key
    first = Judgement(key, "evidence|1", 0.5, {"said": 2.0}, "says 'slow' but …")
    store.add_judgements([first, replace(first, score=0.9)])
    store.add_judgements([replace(first, score=0.1)])
    assert store.judgements("c00", "en", "evidence|1") == {key: first}
    assert store.judgements("c00", "en", "evidence|2") == {}
    assert store.count_judgements("evidence|1") == 1


def test_the_latest_judge_is_the_one_that_began_last(store: PreferenceStore) -> None:
    with pytest.raises(DataError, match="no judgement of 'evidence'; run: aligncap prefer judge"):
        store.latest_judge("evidence")
    for name, signature in (("evidence", "new"), ("evidence", "old"), ("evidence", "new")):
        store.begin_judging(name, signature)
    store.begin_judging("llm", FakeJudge("llm").signature)
    assert store.latest_judge("evidence") == "new"
    assert store.judge_names() == ["evidence", "llm"]


def test_an_annotation_counts_once_by_id_and_by_person_and_pair(store: PreferenceStore) -> None:
    one = Annotation("id-1", "anna", "a", "b", "first")
    bo = replace(one, id="id-3", annotator="bo", choice="tie")
    sent = [one, one, replace(one, id="id-2", first="b", second="a"), bo]
    assert [store.annotations.add(each) for each in sent] == [True, False, False, True]
    assert store.annotations.all() == [one, bo]


def test_what_is_undone_stays_undone_though_it_is_sent_again(store: PreferenceStore) -> None:
    annotations, one = store.annotations, Annotation("id-1", "anna", "a", "b", "first")
    annotations.add(one)
    undone = [annotations.undo("id-1", person) for person in ("bo", "anna", "anna")]
    assert undone == [False, True, False]
    assert not annotations.add(one)
    assert annotations.all() == []
    again = replace(one, id="id-2", choice="second")
    assert annotations.add(again)
    assert annotations.all() == [again]


def test_pairs_of_a_clip_are_replaced_together(store: PreferenceStore) -> None:
    fill(store, 2)
    (_, _, (a, b, c)), (_, _, (d, e, _)) = store.groups()
    with pytest.raises(DataError, match="holds no pairs; run: aligncap prefer pairs"):
        store.pairs.latest()
    both = [PreferencePair(a, b, 0.5), PreferencePair(a, c, 0.75)]
    for builder in ("pairs|old", "pairs|new"):
        store.pairs.begin(builder)
        store.pairs.put("c00", "en", builder, both)
    store.pairs.put("c01", "en", "pairs|new", [PreferencePair(e, d, 0.25)])
    store.pairs.put("c00", "en", "pairs|new", [PreferencePair(b, c, 0.125)])
    assert store.pairs.latest() == "pairs|new"
    assert [one.margin for one in store.pairs.all("pairs|new")] == [0.125, 0.25]
    assert list(store.pairs.all("pairs|old")) == both[::-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE meta SET value = '99'", "is a store of version 99, this aligncap reads 1"),
        ("DROP TABLE meta", "s.sqlite"),
    ],
)
def test_a_file_of_another_version_or_kind_is_refused(store, change, message) -> None:
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(change)
    with pytest.raises(DataError, match=message):
        PreferenceStore(store.path)


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such store; make one with: aligncap prefer candidates"):
        open_store(tmp_path / "s.sqlite")
    assert not list(tmp_path.iterdir())
