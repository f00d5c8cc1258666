"""Any folder of sound files, with what its owner wrote beside each.

`clip.txt` holds captions of `clip.wav`, one a line; `clip.json` an object with keys of a manifest
(speaker, gender, emotion, text, language, captions …).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import Corpus
from aligncap.corpora.layouts.reading import read_lines, sound_files
from aligncap.corpora.manifest import Utterance, utterance_of_row
from aligncap.errors import DataError

FETCH = "it from where it came"


def find(source: Path) -> Iterator[Utterance | Fault]:
    """Every recording below a folder; its id is its place in the folder without the suffix."""
    name = source.resolve().name
    for file in sound_files(source):
        place = file.relative_to(source).with_suffix("")
        clip = Utterance(id=place.as_posix(), path=file, corpus=name)
        try:
            clip = _described(clip)
        except DataError as error:
            yield Fault(Kind.LABEL, str(error))
        yield clip


def _described(clip: Utterance) -> Utterance:
    """A clip with what is written beside it."""
    told = clip.path.with_suffix(".json")
    if told.is_file():
        try:
            row = json.loads(told.read_text("utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{told}: not JSON in UTF-8 ({error}); mend it") from error
        if not isinstance(row, dict):
            raise DataError(f"{told}: holds a {type(row).__name__}; write one JSON object")
        own = {"id": clip.id, "corpus": clip.corpus, **row, "file": clip.path.name}
        clip = utterance_of_row(own, folder=clip.path.parent, place=str(told))
    written = clip.path.with_suffix(".txt")
    if written.is_file():
        captions = (*clip.captions, *(line for _, line in read_lines(written)))
        clip = replace(clip, captions=tuple(dict.fromkeys(captions)))
    return clip


CORPUS = Corpus(
    name="folder",
    counts=MappingProxyType({}),
    fetch=FETCH,
    find=find,
)
