"""The tables: their size, their meanings, and that each word is found as what it is listed for."""

import pytest

from aligncap.clues import clue_of, find_clues, opposites
from aligncap.clues.vocabulary import meanings, vocabulary
from aligncap.errors import UnknownNameError
from aligncap.values import EMOTIONS, LANGUAGES, TRAITS


@pytest.mark.parametrize("language", LANGUAGES)
def test_several_hundred_words_over_every_trait(language: str) -> None:
    words = [w for w in vocabulary(language).words.values() if w.senses]
    assert len(words) > 1000
    assert {s.trait for w in words for s in w.senses} == set(TRAITS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_meaning_has_words_and_every_word_a_meaning(language: str) -> None:
    words = vocabulary(language).words.values()
    used = {(s.trait, s.meaning) for w in words for s in (*w.senses, *w.readings.values())}
    assert used == set(meanings())


@pytest.mark.parametrize("language", LANGUAGES)
def test_listed_words_are_found_as_what_they_are_listed_for(language: str) -> None:
    missed = []
    for word in vocabulary(language).words.values():
        if word.senses and word.kind in "AC":
            found = {(c.trait, c.meaning) for c in find_clues(word.text, language)}
            if not {(s.trait, s.meaning) for s in word.senses} <= found:
                missed.append(word.text)
    assert missed == []


def test_emotions_are_the_contracts_categories() -> None:
    assert {m for t, m in meanings() if t == "emotion"} == set(EMOTIONS)


def test_opposites_are_mutual_and_of_the_same_trait() -> None:
    for trait, meaning in meanings():
        for opposite in opposites(trait, meaning):
            assert meaning in opposites(trait, opposite)


def test_the_usual_words_of_a_meaning_are_found_as_it() -> None:
    for trait, meaning in meanings():
        for language in LANGUAGES:
            clue = clue_of(trait, meaning, language=language)
            found = {(c.trait, c.meaning) for c in find_clues(clue.word, language)}
            assert (trait, meaning) in found, clue.word


def test_an_unknown_meaning_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rising'"):
        clue_of("intonation", "raising")
