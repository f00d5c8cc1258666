"""What preferences speak in: what counts as the same caption, and what is refused at birth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.store import (
    Annotation,
    Candidate,
    Judgement,
    PreferencePair,
    Provenance,
    normal_form,
)
from support.preferences import candidate, finding


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
