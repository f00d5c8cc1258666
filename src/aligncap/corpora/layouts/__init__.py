"""Corpora as their owners ship them: a small file each, opened by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from aligncap.corpora.findings import Fault
from aligncap.corpora.manifest import Utterance
from aligncap.errors import UnknownNameError

ALL = "all"
"""The part of a corpus that is counted as one."""


class Find(Protocol):
    """Finds the clips of a corpus."""

    def __call__(self, source: Path, /) -> Iterator[Utterance | Fault]:
        """What is in a folder, one clip at a time; the sound files are not opened.

        A label that cannot be read is a fault, and its clip is given out without it unless the
        clip cannot be told from its name either. Raises
        DataError where the folder holds nothing of this corpus to begin with.
        """


def as_one(_: Utterance) -> str:
    """The part of an utterance where a corpus is counted as one."""
    return ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus whose files are laid out in a known way."""

    name: str
    counts: Mapping[str, int]
    """How many clips each of its parts has; empty where nobody can know."""
    rates_hz: frozenset[int] = frozenset()
    """The sampling rates it is shipped at; empty where they differ."""
    fetch: str
    """What to fetch from where, to put after "fetch"."""
    find: Find
    part_of: Callable[[Utterance], str] = as_one
    """The part that an utterance is counted in."""


CORPORA = {
    "emosec": "aligncap.corpora.layouts.emosec",
    "mer2023": "aligncap.corpora.layouts.mer2023",
    "nnime": "aligncap.corpora.layouts.nnime",
    "secap": "aligncap.corpora.layouts.secap",
    "esd": "aligncap.corpora.layouts.esd",
    "iemocap": "aligncap.corpora.layouts.iemocap",
    "ravdess": "aligncap.corpora.layouts.ravdess",
    "emodb": "aligncap.corpora.layouts.emodb",
    "folder": "aligncap.corpora.layouts.folder",
}


def open_corpus(name: str) -> Corpus:
    """The corpus of that name; UnknownNameError where there is none."""
    if name not in CORPORA:
        raise UnknownNameError("corpus", name, CORPORA)
    corpus: Corpus = import_module(CORPORA[name]).CORPUS
    return corpus
