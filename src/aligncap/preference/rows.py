"""Preference rows: what DPO, the reward model and PPO learn from, as JSON lines read as a stream.

The first line says whose codes the rows hold, as in `alignment.data`:

    {"preference_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…", …}}

and each further line is one clip in one language:

    {"id": "clip7", "corpus": "ravdess", "split": "train", "weight": 1.0, "language": "en",
     "speech": [17, 4, …],                 one list a codebook where there are several
     "measured": "Feeling low and slow",   P_act of the prompt by the signal, and by what the
     "heard": "Feeling sad and low",       tokenizer's heads hear as well; each may be left out
     "candidates": ["…", "…", "…"],
     "pairs": [[0, 1], [0, 2]],            (chosen, rejected), places among the candidates
     "facts": [3.2, 2.9, {"pitch_median_hz": [231.0, "Hz", 0.9, ""], …}],
     "emotion": "sad", "gender": "female",
     "references": {"zh": ["…"]}}          captions that people wrote, by language

Only id, corpus, language, speech and candidates are required: pairs are what DPO and the reward
model learn from, facts, labels and references are what captions are checked against.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligncap.alignment.data import (
    SpeechSource,
    TrainingRow,
    head_of,
    one_source,
    row_of,
    source_of,
    table_of,
)
from aligncap.alignment.measuring import facts_of, table_of_facts
from aligncap.alignment.row_files import Table, read_head, read_rest, write_lines
from aligncap.errors import DataError, UnknownNameError
from aligncap.values import EMOTIONS, Facts

KIND = "preference_rows"

ACTS = ("measured", "heard")
"""Act modes whose P_act a row gives."""

ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "language", "speech"),
        *("measured", "heard"),
        *("candidates", "pairs", "facts", "emotion", "gender", "references"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceRow:
    """A clip in one language: candidates, which of them is preferred to which, what is known."""

    clip: TrainingRow
    """Its captions, in one language, are the candidates."""
    pairs: tuple[tuple[int, int], ...] = ()
    """(chosen, rejected): places among the candidates."""
    facts: Facts | None = None
    """What the signal shows."""
    emotion: str | None = None
    """As labelled, one of `values.EMOTIONS`."""
    gender: str | None = None
    """As labelled."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Captions that people wrote, by language."""

    def __post_init__(self) -> None:
        name = self.clip.id
        if len(self.clip.captions) != 1 or self.clip.speech is None:
            raise DataError(f"{name}: a preference row has speech, and candidates in one language")
        count = len(self.candidates)
        for chosen, rejected in self.pairs:
            if not (0 <= chosen < count and 0 <= rejected < count) or chosen == rejected:
                raise DataError(
                    f"{name}: pair [{chosen}, {rejected}] does not name two of {count} candidates"
                )
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise UnknownNameError(f"emotion ({name})", self.emotion, EMOTIONS)

    @property
    def language(self) -> str:
        """The language of the candidates."""
        return next(iter(self.clip.captions))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The captions that were judged."""
        return self.clip.captions[self.language]


def read_preferences(paths: Sequence[Path]) -> tuple[list[PreferenceRow], SpeechSource]:
    """The rows of several files, which must hold the codes of one speech tokenizer.

    DataError where they do not, or where there is no row.
    """
    source = one_source(
        {path: read_head(path, lambda table: source_of(table, KIND)) for path in paths}
    )
    rows = [row for path in paths for row in read_preference_rows(path)]
    if not any(row.clip.split == "train" for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no row of split 'train' to learn from")
    return rows, source


def read_preference_rows(path: Path) -> Iterator[PreferenceRow]:
    """The rows of a file, one at a time; DataError names file and line."""
    return read_rest(path, _row)


def write_preference_rows(path: Path, source: SpeechSource, rows: Iterable[PreferenceRow]) -> int:
    """Write a file of preference rows, whole or not at all; returns how many."""
    return write_lines(path, head_of(KIND, source), map(_table, rows))


def _row(table: Table) -> PreferenceRow:
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a preference row", key, ROW_KEYS)
    language = table["language"]
    clip = {key: table[key] for key in ("id", "corpus", "speech")}
    clip |= {key: table[key] for key in ("split", "weight") if key in table}
    facts = table.get("facts")
    return PreferenceRow(
        clip=row_of(
            {
                **clip,
                "captions": {language: table["candidates"]},
                **{key: {language: table[key]} for key in ACTS if table.get(key)},
            }
        ),
        pairs=tuple((int(chosen), int(rejected)) for chosen, rejected in table.get("pairs", ())),
        facts=None if facts is None else facts_of(facts),
        emotion=table.get("emotion"),
        gender=table.get("gender"),
        references={
            language: tuple(texts) for language, texts in table.get("references", {}).items()
        },
    )


def _table(row: PreferenceRow) -> Mapping[str, object]:
    clip, language = table_of(row.clip), row.language
    return {
        **{key: clip[key] for key in ("id", "corpus", "split", "weight", "speech")},
        "language": language,
        **{act: row.clip.student_act(act, language) for act in ACTS},
        "candidates": list(row.candidates),
        "pairs": [list(pair) for pair in row.pairs],
        "facts": None if row.facts is None else table_of_facts(row.facts),
        "emotion": row.emotion,
        "gender": row.gender,
        "references": {one: list(texts) for one, texts in row.references.items()},
    }
