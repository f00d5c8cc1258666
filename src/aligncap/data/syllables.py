"""How many syllables a transcript has, by the spelling of its language."""

import re

_NUCLEI = {
    "de": re.compile(r"ie|ei|ai|au|eu|äu|aa|ee|oo|[aeiouyäöü]"),
    # A vowel letter is a nucleus, but for an i that only softens the consonant before it.
    "pl": re.compile(r"i(?=[aeouąęó])|[aeiouyąęó]"),
    "tr": re.compile(r"[aeıioöuüâîû]"),
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "en": re.compile(r"[aeiouy]+"),
}
_SOFTENING = re.compile(r"i(?=[aeouąęó])")
_SILENT = re.compile(r"(?<=[^aeiouyl])e$|(?<=[aeiouy])le$")


def count_syllables(text: str, language: str | None) -> int | None:
    """Syllables of a text as it is read aloud; None for a language without a rule, a text without
    a syllable, or one with digits, whose reading the letters do not say."""
    if language not in _NUCLEI or re.search(r"\d", text):
        return None
    lowered = text.lower()
    if language == "en":
        count = sum(_english(word) for word in re.findall(r"[a-z']+", lowered))
    else:
        count = len(_NUCLEI[language].findall(lowered))
        if language == "pl":
            count -= len(_SOFTENING.findall(lowered))
    return count or None


def _english(word: str) -> int:
    """At least one; a final e is silent after a consonant, "-le" after one is not."""
    groups = len(_NUCLEI["en"].findall(word))
    return max(1, groups - bool(_SILENT.search(word))) if groups else 0
