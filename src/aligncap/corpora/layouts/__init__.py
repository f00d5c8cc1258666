"""Corpora as their owners ship them: a small file each, opened by name."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from aligncap.corpora.findings import Fault
from aligncap.corpora.manifest import Utterance
from aligncap.errors import UnknownNameError

ALL = "all"
"""The part of a corpus that is counted as one."""


class Corpus(Protocol):
    """A corpus whose files are laid out in a known way."""

    @property
    def name(self) -> str:
        """The name it is opened by."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many clips each of its parts has; empty where nobody can know."""

    @property
    def rates_hz(self) -> frozenset[int]:
        """The sampling rates it is shipped at; empty where they differ."""

    @property
    def fetch(self) -> str:
        """What to fetch from where, to put after "fetch"."""

    def part_of(self, utterance: Utterance) -> str:
        """The part that an utterance is counted in."""

    def find(self, source: Path) -> Iterator[Utterance | Fault]:
        """What is in a folder, one clip at a time; the sound files are not opened.

        A label that cannot be read is a fault, and its clip is given out without it. Raises
        DataError where the folder holds nothing of this corpus to begin with.
        """


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
