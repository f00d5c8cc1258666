"""The store of preferences and its values: what is refused, what comes back, what counts once."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import DataError, UnknownNameError
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
    "other",
    [
        "a man speaks slowly",
        "A man  speaks\tslowly.",
        " A MAN SPEAKS SLOWLY!… ",
        "Ａ ｍａｎ　ｓｐｅａｋｓ　ｓｌｏｗｌｙ．",
        "A man speaks slowly 。",
    ],
)
def test_case_space_width_and_the_end_make_no_difference(other: str) -> None:
    assert normal_form(other) == normal_form("A man speaks slowly.")


def test_what_is_said_does() -> None:
    texts = ["A man speaks slowly.", "A man, speaks slowly.", "A man speaks slow.", "Aman speaks."]
    assert len({normal_form(text) for text in texts}) == 4


def test_chinese_has_no_spaces() -> None:
    assert normal_form("他 说话很快，声音 低沉。") == normal_form("他说话很快,声音低沉")


@given(st.text())
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normal_form(normal_form(text)) == normal_form(text)


def test_the_key_is_of_the_utterance_language_and_normal_form() -> None:
    assert candidate("So.").key == candidate("so", method="sample", log_probability=-3.0).key
    assert candidate("So.").key != candidate("So.", "u2").key
    assert Candidate("u1", "en", "So.").key != Candidate("u1", "zh", "So.").key


@pytest.mark.parametrize("text", ["", " \n", " . 。!", "\u3000"])
def test_a_candidate_says_something(text: str) -> None:
    with pytest.raises(DataError, match="u1: a candidate says nothing"):
        candidate(text)


def test_unknown_languages_methods_and_choices_are_named() -> None:
    with pytest.raises(UnknownNameError, match="no caption language called 'de'"):
        Candidate("u1", "de", "Ja.")
    with pytest.raises(UnknownNameError, match="did you mean 'beam'"):
        candidate("So.", method="beams")
    with pytest.raises(UnknownNameError, match="no choice called '1'"):
        Annotation("id", "anna", "a", "b", "1")


def test_a_pair_is_of_two_captions_of_one_utterance() -> None:
    good, bad = candidate("Calm."), candidate("Angry.")
    assert PreferencePair(good, bad, 0.5).utterance == "u1"
    with pytest.raises(DataError, match="u1: chosen and rejected are the same caption"):
        PreferencePair(good, candidate("calm"), 0.5)
    with pytest.raises(DataError, match="u1: is paired with a caption of u2"):
        PreferencePair(good, candidate("Angry.", "u2"), 0.5)
    for margin in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(DataError, match="u1: margin is"):
            PreferencePair(good, bad, margin)


def test_a_finding_holds_no_caption_twice() -> None:
    with pytest.raises(DataError, match="u1: two candidates say the same"):
        finding("Calm.", "calm")


def test_a_judgement_is_a_number() -> None:
    with pytest.raises(DataError, match="a score must be a number"):
        Judgement("key", "evidence|x", float("nan"))


def test_provenance_has_a_key_that_changes_with_all_of_it() -> None:
    base = {"model": "m", "fingerprint": "f", "method": "beam", "options": {"count": 5}}
    changes = [{"model": "n"}, {"fingerprint": "g"}, {"method": "sample"}, {"seed": 1}]
    changes += [{"options": {"count": 4}}, {"version": "2"}]
    keys = {Provenance(**{**base, **change}).key for change in [{}, *changes]}  # type: ignore[arg-type]
    assert len(keys) == 7


def test_an_annotation_has_a_value_whoever_is_shown_first() -> None:
    first, second = (
        Annotation("i", "anna", "a", "b", "first"),
        Annotation("j", "bo", "b", "a", "second"),
    )
    assert first.pair == second.pair == ("a", "b")
    assert first.value == second.value == 1
    assert Annotation("k", "bo", "b", "a", "first").value == -1
    assert Annotation("k", "bo", "b", "a", "tie").value == 0
    assert Annotation("k", "bo", "b", "a", "skip").value is None


def test_a_clip_comes_back_as_it_was(store: PreferenceStore) -> None:
    references = {"en": ("He sounds sad.",), "zh": ("他很伤心。", "悲伤")}
    clip = Clip("u1", "a/u1.flac", FAST_LOUD_WOMAN, "sad", "male", references)
    found = ClipCandidates(
        clip, "en", (candidate("Calm.", log_probability=-1.25), candidate("Sad."))
    )
    store.add_findings([(found, PROVENANCE)])
    assert list(store.groups()) == [(clip, "en", list(found.candidates))]
    assert store.sources() == [replace(PROVENANCE, options={"count": 3})]
    assert store.found(PROVENANCE) == {("u1", "en")}
    assert store.found(replace(PROVENANCE, seed=1)) == set()


def test_what_two_models_find_is_one_candidate_each_found_by_its_own(
    store: PreferenceStore,
) -> None:
    other = replace(PROVENANCE, model="other")
    store.add_findings([(finding("Calm.", "Sad."), PROVENANCE)])
    store.add_findings([(finding("calm", "Angry."), other)])
    texts = [one.text for one in store.candidates("u1", "en")]
    assert texts == ["Calm.", "Sad.", "Angry."]
    assert [one.text for one in store.candidates("u1", "en", other)] == ["Calm.", "Angry."]
    assert len(store) == 3


def test_a_caption_of_the_corpus_that_a_model_gave_is_the_models(store: PreferenceStore) -> None:
    gold = Provenance(model="corpus", fingerprint="", method="gold")
    store.add_findings([(finding("Calm."), gold)])
    store.add_findings([(finding("Calm."), PROVENANCE)])
    assert [one.method for one in store.candidates("u1", "en")] == ["beam"]


def test_what_is_newly_known_of_a_clip_takes_nothing_away(store: PreferenceStore) -> None:
    known = Clip("u1", "u1.wav", FAST_LOUD_WOMAN, "sad", "male", {"en": ("He is sad.",)})
    store.add_findings([(ClipCandidates(known, "en", (candidate("Calm."),)), PROVENANCE)])
    store.add_findings([(ClipCandidates(Clip("u1", ""), "en", (candidate("Sad."),)), PROVENANCE)])
    assert store.clip("u1") == known


def test_one_id_is_one_file(store: PreferenceStore) -> None:
    store.add_findings([(finding("Calm."), PROVENANCE)])
    other = ClipCandidates(Clip("u1", "elsewhere/u1.wav"), "en", (candidate("Sad."),))
    with pytest.raises(
        DataError, match=r"its id 'u1' belongs to u1.wav .* keep one store a corpus"
    ):
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

    class Old(FakeJudge):
        signature = "evidence|old"

    for judge in (FakeJudge(), Old(), FakeJudge(), FakeJudge("llm")):
        store.begin_judging(judge.name, judge.signature)
    assert store.latest_judge("evidence") == "evidence|fake"
    assert store.judge_names() == ["evidence", "llm"]


def test_an_annotation_counts_once_by_id_and_by_person_and_pair(store: PreferenceStore) -> None:
    annotations = store.annotations
    one = Annotation("id-1", "anna", "a", "b", "first")
    assert annotations.add(one)
    assert not annotations.add(one)
    assert not annotations.add(replace(one, id="id-2", first="b", second="a"))
    assert annotations.add(replace(one, id="id-3", annotator="bo", choice="tie"))
    assert annotations.all() == [one, replace(one, id="id-3", annotator="bo", choice="tie")]


def test_what_is_undone_stays_undone_though_it_is_sent_again(store: PreferenceStore) -> None:
    annotations = store.annotations
    one = Annotation("id-1", "anna", "a", "b", "first")
    annotations.add(one)
    assert not annotations.undo("id-1", "bo")
    assert annotations.undo("id-1", "anna")
    assert not annotations.undo("id-1", "anna")
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
    for builder in ("pairs|old", "pairs|new"):
        store.pairs.begin(builder)
        store.pairs.put(
            "c00", "en", builder, [PreferencePair(a, b, 0.5), PreferencePair(a, c, 0.75)]
        )
    store.pairs.put("c01", "en", "pairs|new", [PreferencePair(e, d, 0.25)])
    store.pairs.put("c00", "en", "pairs|new", [PreferencePair(b, c, 0.125)])
    assert store.pairs.latest() == "pairs|new"
    assert [one.margin for one in store.pairs.all("pairs|new")] == [0.125, 0.25]
    assert list(store.pairs.all("pairs|old")) == [
        PreferencePair(a, c, 0.75),
        PreferencePair(a, b, 0.5),
    ]


def test_a_store_of_another_version_is_refused(store: PreferenceStore) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute("UPDATE meta SET value = '99'")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="is a store of version 99, this aligncap reads 1"):
        PreferenceStore(store.path)


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=r"other.sqlite"):
        PreferenceStore(path)


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such store; make one with: aligncap prefer candidates"):
        open_store(tmp_path / "s.sqlite")
    assert not list(tmp_path.iterdir())
