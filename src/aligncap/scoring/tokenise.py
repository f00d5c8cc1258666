"""From a caption to the tokens that are compared, by name.

coco-en   English as the COCO evaluation cuts it (`english`)
zh-char   every character a token: Chinese characters, punctuation, and the letters and digits of
          foreign words and numbers alike; only white space is dropped
zh-word   the words of jieba, punctuation among them; white space is dropped
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.scoring.english import CocoEnglish

DEFAULTS: Mapping[str, str] = {"en": "coco-en", "zh": "zh-char"}
"""Language → its tokenisation where none is named."""


class Tokeniser(Protocol):
    """Cuts captions into tokens; any Unicode text has some, or none."""

    @property
    def name(self) -> str:
        """As it stands in a signature."""

    def __call__(self, text: str) -> list[str]:
        """The tokens of one caption."""


class ChineseCharacters:
    """Every character is a token."""

    name = "zh-char"

    def __call__(self, text: str) -> list[str]:
        """The characters of one caption that are not white space."""
        return [character for character in text if not character.isspace()]


class ChineseWords:
    """The words of jieba."""

    name = "zh-word"

    def __init__(self) -> None:
        if find_spec("jieba") is None:
            raise MissingModelError("zh-word needs jieba: pip install 'aligncap[zh]'")
        jieba: Any = import_module("jieba")
        jieba.setLogLevel("ERROR")  # it reports the loading of its dictionary
        self._cut: Callable[[str], list[str]] = jieba.lcut

    def __call__(self, text: str) -> list[str]:
        """The words of one caption that are not white space."""
        return [word for word in self._cut(text) if not word.isspace()]


TOKENISERS: Mapping[str, Callable[[], Tokeniser]] = {
    "coco-en": CocoEnglish,
    "zh-char": ChineseCharacters,
    "zh-word": ChineseWords,
}


def open_tokeniser(name: str | None, language: str) -> Tokeniser:
    """The tokeniser of that name, or the language's own; MissingModelError without its library."""
    name = name or DEFAULTS[language]
    if name not in TOKENISERS:
        raise UnknownNameError("tokenisation", name, TOKENISERS)
    return TOKENISERS[name]()
