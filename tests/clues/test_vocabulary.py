"""The tables: their size, their meanings, and that each word is found as what it is listed for."""

import pytest

from aligncap.clues import clue_of, find_clues, opposites
from aligncap.clues.vocabulary import meanings, vocabulary
from aligncap.errors import UnknownNameError
from aligncap.values import EMOTIONS, LANGUAGES, TRAITS


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_meaning_has_words_and_listed_words_are_found_as_what_they_mean(language: str):
    words = list(vocabulary(language).words.values())
    assert len([w for w in words if w.senses]) > 1000
    assert {s.trait for w in words for s in w.senses} == set(TRAITS)
    used = {(s.trait, s.meaning) for w in words for s in (*w.senses, *w.readings.values())}
    assert used == set(meanings())
    for word in words:
        if word.senses and word.kind in "AC":
            found = {(c.trait, c.meaning) for c in find_clues(word.text, language)}
            assert {(s.trait, s.meaning) for s in word.senses} <= found, word.text


def test_meanings_have_usual_words_and_mutual_opposites() -> None:
    assert {m for t, m in meanings() if t == "emotion"} == set(EMOTIONS)
    for trait, meaning in meanings():
        assert all(meaning in opposites(trait, other) for other in opposites(trait, meaning))
        for language in LANGUAGES:
            clue = clue_of(trait, meaning, language=language)
            found = {(c.trait, c.meaning) for c in find_clues(clue.word, language)}
            assert (trait, meaning) in found, clue.word
    with pytest.raises(UnknownNameError, match="did you mean 'rising'"):
        clue_of("intonation", "raising")
