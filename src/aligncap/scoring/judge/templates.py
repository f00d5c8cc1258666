"""Prompts for the judge: text files with $names, ours or those of a folder one hands in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template

from aligncap.errors import DataError, UnknownNameError
from aligncap.storage import hash_of

BUILT_IN = Path(__file__).with_name("prompts")

PLACEHOLDERS = {
    "aes-c": ("references", "prediction"),
    "aes-s": ("references", "prediction"),
    "p-score": ("instruction", "references", "candidates"),
}
"""What each kind of prompt must mention."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt whose places are filled with JSON, so that no caption can pose as instruction."""

    name: str
    """"aes-c.en": kind and language."""
    text: str

    @property
    def hash(self) -> str:
        """Eight digits that change with any letter of the prompt."""
        return hash_of(self.text)[:8]

    def filled(self, **values: object) -> str:
        """The prompt with JSON in its places."""
        texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        return Template(self.text).substitute(texts)


def load_template(kind: str, language: str, folder: Path | None = None) -> PromptTemplate:
    """The prompt of a kind in a language: the file of `folder` if it has one, or else ours.

    Raises DataError where the file lacks a place or has one that nothing fills, UnknownNameError
    where the folder holds a file that would never be read.
    """
    name = f"{kind}.{language}"
    path = BUILT_IN / f"{name}.txt"
    if folder is not None:
        _check_folder(folder)
        if (folder / path.name).is_file():
            path = folder / path.name
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write the prompt as UTF-8") from error
    _check_places(text, PLACEHOLDERS[kind], path)
    return PromptTemplate(name, text)


def _check_folder(folder: Path) -> None:
    known = {path.name for path in BUILT_IN.glob("*.txt")}
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder of prompts; name one with {_listed(known)}")
    for path in sorted(folder.glob("*.txt")):
        if path.name not in known:
            raise UnknownNameError(f"prompt of the judge (in {folder})", path.name, known)


def _check_places(text: str, places: tuple[str, ...], path: Path) -> None:
    template = Template(text)
    if not template.is_valid():
        raise DataError(f"{path}: has a '$' that begins no name; write '$$' for the sign itself")
    found = set(template.get_identifiers())
    if found != set(places):
        wanted = _listed(f"${place}" for place in places)
        raise DataError(
            f"{path}: must have the places {wanted}, and has {_listed(found) or 'none'}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
