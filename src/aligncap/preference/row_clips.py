"""Clips of training rows: their tokens are there already, so nobody listens to them again.

A training row has tokens and P_act, a manifest labels and people's captions, the cache of facts
what was measured: together they are all that candidates, judges and preference rows need.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import Field, NonNegativeInt

from aligncap.alignment.data import SPLITS, SpeechSource, TrainingRow, read_rows, read_source
from aligncap.alignment.measuring import measure_all
from aligncap.captioner.writing import Spoken
from aligncap.corpora import Utterance, read_manifest
from aligncap.errors import DataError
from aligncap.preference.candidates import clip_of
from aligncap.preference.values import Clip
from aligncap.recipes import recipe_section
from aligncap.values import LANGUAGES, SpeechTokens


@recipe_section
class RowClipSettings:
    """Which clips get candidates."""

    rows: Path
    """Training rows; of each clip the row of the clip as it is counts (`…#0`)."""
    manifests: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Of the corpora that the rows are of."""
    facts: Path
    """What was measured when the rows were made; what is not there is measured into it."""
    clips: NonNegativeInt = 1000
    """Training clips, as many of each corpus as there are; 0 = all."""
    validation_clips: NonNegativeInt = 200
    """Clips of validation speakers, the same way: what the implicit reward is validated on."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = LANGUAGES


@dataclass(frozen=True, slots=True)
class RowClip:
    """A clip as training knows it."""

    row: TrainingRow
    utterance: Utterance
    clip: Clip

    def spoken(self, act_mode: str, language: str) -> Spoken:
        """What a captioner reads of it."""
        assert self.row.speech is not None, "rows without speech are left out"
        return SpeechTokens(self.row.speech), self.row.student_act(act_mode, language)


def read_row_clips(settings: RowClipSettings) -> tuple[list[RowClip], SpeechSource]:
    """The clips that are asked for, and whose tokens they have.

    DataError where a row's clip is in none of the manifests.
    """
    kept = [row for row in read_rows(settings.rows) if row.speech is not None and is_as_it_is(row)]
    limits = dict(zip(SPLITS, (settings.clips, settings.validation_clips), strict=True))
    rows = [
        row
        for split, limit in limits.items()
        for row in spread([row for row in kept if row.split == split], limit)
    ]
    source = read_source(settings.rows)
    return join(rows, settings.manifests, settings.facts), source


def join(rows: Sequence[TrainingRow], manifests: Iterable[Path], facts: Path) -> list[RowClip]:
    """Each row with what its manifest says and what was measured."""
    utterances = {one.id: one for path in manifests for one in read_manifest(path)}
    found = []
    for row in rows:
        name = utterance_of(row)
        if name not in utterances:
            raise DataError(f"{name}: is in none of the manifests; name those the rows are of")
        found.append(utterances[name])
    measured = measure_all(facts, [one.path for one in found])
    return [
        RowClip(row, utterance, clip_of(utterance, shown, root=Path()))
        for row, utterance, shown in zip(rows, found, measured, strict=True)
    ]


def spread(rows: Sequence[TrainingRow], limit: int, *, seed: int = 0) -> list[TrainingRow]:
    """At most `limit` rows (0 = all), drawn from each corpus as equally as they last."""
    if not limit:
        return list(rows)
    by_corpus: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        by_corpus[row.corpus].append(row)
    for corpus, own in by_corpus.items():
        Random(f"{seed}/{corpus}").shuffle(own)
    turns = chain.from_iterable(zip_longest(*by_corpus.values()))
    return [row for row in turns if row is not None][:limit]


def utterance_of(row: TrainingRow) -> str:
    """The id in the manifest of a row's clip."""
    name, _, _ = row.id.rpartition("#")
    return name or row.id


def is_as_it_is(row: TrainingRow) -> bool:
    """Whether a row is of the clip itself, not of another view of it."""
    return "#" not in row.id or row.id.endswith("#0")
