"""Syllables counted by hand."""

import pytest

from aligncap.data.syllables import count_syllables


@pytest.mark.parametrize(
    ("text", "language", "syllables"),
    [
        ("Kids are talking by the door", "en", 7),
        ("Dogs are sitting by the door.", "en", 7),
        ("Say the word bean.", "en", 4),
        ("a little table, a whole hole", "en", 8),
        ("Der Lappen liegt auf dem Eisschrank.", "de", 8),
        ("Lubię czytać przed snem.", "pl", 6),
        ("Dzień dobry, ciocia siedzi", "pl", 7),
        ("kapıyı aç", "tr", 4),
        ("一年又一年，好！", "zh", 6),
        ("room 12", "en", None),
        ("...", "de", None),
        ("bacho", "hi", None),
        ("anything", None, None),
    ],
)
def test_syllables(text: str, language: str | None, syllables: int | None) -> None:
    assert count_syllables(text, language) == syllables
