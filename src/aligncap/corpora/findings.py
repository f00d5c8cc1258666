"""What is wrong with a corpus: one line for each fault, with the thing, the place and the cure."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a fault is about."""

    MISSING = "missing"
    """A file that is named but not there."""
    BROKEN = "broken"
    """A file that cannot be read as sound."""
    CHANGED = "changed"
    """A file that is no longer what the manifest was made of."""
    RATE = "rate"
    DURATION = "duration"
    DUPLICATE = "duplicate"
    """One id, or one sound, twice."""
    LABEL = "label"
    """A label file, or a line of one, that cannot be used."""
    CAPTION = "caption"
    """A clip without the caption it should have."""
    COUNT = "count"
    """More or fewer clips than the corpus has."""
    LEAK = "leak"
    """Something on both sides of a split that must not be."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that the user can put right."""

    kind: Kind
    message: str
    """One line: the thing, the place, the cure."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
