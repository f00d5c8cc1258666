"""What is found in captions and recordings, each looked at once however many metrics ask."""

from collections.abc import Iterable
from pathlib import Path

from aligncap.acoustics import measure
from aligncap.audio import load
from aligncap.clues import find_clues
from aligncap.errors import DataError
from aligncap.scoring.values import ScoredClip
from aligncap.values import Clue, Facts

Claim = tuple[str, str, bool]
"""What a clue says whatever its word: trait, meaning, and whether it is denied."""


def claim_of(clue: Clue) -> Claim:
    """The claim that a clue makes."""
    return (clue.trait, clue.meaning, clue.negated)


class Findings:
    """The claims of captions and the facts of recordings; handed to metrics by their options."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[Claim, Clue]] = {}
        self._facts: dict[Path, Facts] = {}

    def claims(self, text: str, language: str) -> dict[Claim, Clue]:
        """The claims of a caption in their order, each with the first clue that makes it."""
        key = (language, text)
        if key not in self._claims:
            found: dict[Claim, Clue] = {}
            for clue in find_clues(text, language):
                found.setdefault(claim_of(clue), clue)
            self._claims[key] = found
        return self._claims[key]

    def said(self, texts: Iterable[str], language: str) -> dict[Claim, Clue]:
        """The claims of several captions together."""
        together: dict[Claim, Clue] = {}
        for text in texts:
            together |= self.claims(text, language)
        return together

    def facts(self, clip: ScoredClip) -> Facts:
        """What the clip's recording shows. DataError where the clip names none, AudioError where
        it cannot be read."""
        if clip.file is None:
            raise DataError(
                f'clip {clip.id!r} has no recording to judge by; name it as "file" in the '
                "references, or leave hallucination-signal out"
            )
        if clip.file not in self._facts:
            self._facts[clip.file] = measure(load(clip.file))
        return self._facts[clip.file]
