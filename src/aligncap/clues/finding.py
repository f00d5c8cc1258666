"""From the text of a caption to its clues, and from clues to the acoustic prompt (Eq. 1)."""

import re
from collections.abc import Sequence

from aligncap.clues import chinese, english
from aligncap.clues.chunks import chunks_of
from aligncap.clues.grammar import clues_in, kinds_of, without_repeats
from aligncap.clues.vocabulary import meanings, vocabulary
from aligncap.errors import UnknownNameError
from aligncap.values import LANGUAGES, Clue

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
LATIN_WORD = re.compile(r"[A-Za-z]+")
LEXERS = {"en": english.words_of, "zh": chinese.words_of}


def detect_language(text: str) -> str:
    """ "zh" where Chinese characters are at least as many as Latin words, else "en"."""
    han = len(HAN.findall(text))
    return "zh" if han and han >= len(LATIN_WORD.findall(text)) else "en"


def find_clues(
    text: str, language: str | None = None, *, repeats: bool = False
) -> tuple[Clue, ...]:
    """The emotional clues of a caption in their order (e_1 … e_n of Eq. 1).

    The same word for the same meaning counts once, unless `repeats` are asked for. `language` is
    "en", "zh" or None (detected); any other is an UnknownNameError. Text of any kind is read
    without error; what the vocabulary does not know is no clue.
    """
    chosen = language or detect_language(text)
    if chosen not in LEXERS:
        raise UnknownNameError("caption language", chosen, LANGUAGES)
    words = LEXERS[chosen](text)
    found = clues_in(words, chunks_of(kinds_of(words), chosen), chosen)
    return tuple(found if repeats else without_repeats(found))


def acoustic_prompt(clues: Sequence[Clue], language: str = "en") -> str:
    """The clues as P_act of Eq. 1: "Feeling e1, e2, … and en", "感到e1、e2和en", "" for no clue.

    Negated clues are left out: the template has no place for "not". A pronoun, and a clue found in
    the other language, is written with the usual word for its meaning.
    """
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    words = list(dict.fromkeys(_word(clue, language) for clue in clues if not clue.negated))
    if not words:
        return ""
    *most, last = words
    if language == "zh":
        return f"感到{'、'.join(most)}{'和' if most else ''}{last}"
    if not most:
        return f"Feeling {last}"
    return f"Feeling {', '.join(most)}{',' if len(most) > 1 else ''} and {last}"


def _word(clue: Clue, language: str) -> str:
    known = vocabulary(language).words.get(clue.word)
    if detect_language(clue.word) == language and not (known and known.gender):
        return clue.word
    meaning = meanings().get((clue.trait, clue.meaning))
    if meaning is None:
        return clue.word
    return meaning.zh if language == "zh" else meaning.en
