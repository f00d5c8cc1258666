"""What a run reads, and whether it is on this machine: the beginning of every dry run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MANIFEST_CURE = "make it with aligncap corpus (docs/corpora.md)"


@dataclass(frozen=True, slots=True)
class Needed:
    """Something that a run reads, and whether it is on this machine."""

    what: str
    name: str
    cure: str = ""
    """What to do about it; empty where it is there."""

    @property
    def present(self) -> bool:
        """Whether it is there."""
        return not self.cure


def needed_path(what: str, path: Path, *, cure: str) -> Needed:
    """A file or folder that a run reads."""
    return Needed(what, str(path), "" if path.exists() else cure)


def table_of(needed: Iterable[Needed]) -> list[Mapping[str, object]]:
    """What is needed as plain values: what, name, present, and the cure or None."""
    return [
        {"what": n.what, "name": n.name, "present": n.present, "cure": n.cure or None}
        for n in needed
    ]
