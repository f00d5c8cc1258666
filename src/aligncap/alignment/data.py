"""Training rows: what warm-up and distillation learn from, as JSON lines read as a stream.

The first line says whose codes the rows hold:

    {"training_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…",
     "frame_rate_hz": 12.5, "codebooks": 1, "codebook_size": 512, "options": {}}}

and each further line is one view of a clip (augmented views of a clip are rows of their own):

    {"id": "clip#2", "corpus": "ravdess", "split": "train", "weight": 1.0,
     "speech": [17, 4, …],                            one list a codebook where there are several;
                                                      left out of a row with captions only
     "captions": {"en": ["…", "…"], "zh": ["…"]},
     "act": {"en": "Feeling sad, low, and slow"},     P_act of its captions (Eq. 1): the teacher's
     "measured": {"en": "Feeling low and slow"},      P_act that the signal supports: the student's
     "heard": {"en": "Feeling sad, low, and slow"},   the same with what the tokenizer's heads hear
     "transcript": "…"}

Only id, corpus and captions are required.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.row_files import Table, read_head, read_rest, write_lines
from aligncap.errors import DataError, UnknownNameError
from aligncap.values import LANGUAGES, SpeechTokenizer

FORMAT = 1
SPLITS = ("train", "validation")
ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "speech", "captions"),
        *("act", "measured", "heard", "transcript"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSource:
    """The speech tokenizer that gave the rows' codes."""

    name: str
    fingerprint: str
    frame_rate_hz: float
    codebooks: int
    codebook_size: int
    options: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.codebooks < 1 or self.codebook_size < 1 or not self.frame_rate_hz > 0:
            raise DataError(f"tokenizer {self.name!r}: codebooks, sizes and rate must be positive")

    @classmethod
    def of(
        cls,
        tokenizer: SpeechTokenizer,
        *,
        codebooks: int = 1,
        options: Mapping[str, int] = MappingProxyType({}),
    ) -> "SpeechSource":
        """An open tokenizer as files name it, with what it was opened with."""
        return cls(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            frame_rate_hz=tokenizer.frame_rate_hz,
            codebooks=codebooks,
            codebook_size=tokenizer.codebook_size,
            options=dict(options),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One view of a clip with its captions, or captions alone where `speech` is None."""

    id: str
    corpus: str
    captions: Mapping[str, tuple[str, ...]]
    """By language, at least one."""
    speech: NDArray[np.int64] | None = None
    """Codes [codebooks, frames]."""
    split: str = "train"
    weight: float = 1.0
    """How often it is drawn, relative to other rows."""
    act: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the captions (Eq. 1)."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal (decision 5)."""
    heard: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal and the tokenizer's heads (decision 5)."""
    transcript: str = ""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UnknownNameError(f"split ({self.id})", self.split, SPLITS)
        for name in ("captions", "act", "measured", "heard"):
            for language in getattr(self, name):
                if language not in LANGUAGES:
                    raise UnknownNameError(f"language of {name} ({self.id})", language, LANGUAGES)
        if not self.captions or not all(
            texts and all(text.strip() for text in texts) for texts in self.captions.values()
        ):
            raise DataError(f"{self.id}: captions are by language, at least one, none empty")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise DataError(f"{self.id}: weight is {self.weight}, must be 0 or more")
        codes = self.speech
        if codes is not None and (codes.ndim != 2 or codes.size == 0 or codes.min() < 0):
            raise DataError(f"{self.id}: speech is codes of 0 or more, [codebooks, frames]")

    def student_act(self, mode: str, language: str) -> str:
        """The student's P_act for one of the act modes; "" where the row has none of the kind."""
        acts = {"measured": self.measured, "heard": self.heard}.get(mode, {})
        return acts.get(language, "")


def read_source(path: Path) -> SpeechSource:
    """The speech tokenizer named in a file of training rows."""
    return read_head(path, lambda table: source_of(table, "training_rows"))


def one_source(sources: Mapping[Path, SpeechSource]) -> SpeechSource:
    """The speech tokenizer that all files name; DataError where they name different ones."""
    first, source = next(iter(sources.items()))
    for path, other in sources.items():
        if other != source:
            raise DataError(
                f"{path}: holds codes of {other.name} ({other.fingerprint[:12]}), {first} of "
                f"{source.name} ({source.fingerprint[:12]}); make both with one tokenizer"
            )
    return source


def read_rows(path: Path) -> Iterator[TrainingRow]:
    """The rows of a file, one at a time; DataError names file and line."""
    return read_rest(path, row_of)


def write_rows(path: Path, source: SpeechSource, rows: Iterable[TrainingRow]) -> int:
    """Write a file of training rows, whole or not at all; returns how many."""
    return write_lines(path, head_of("training_rows", source), map(table_of, rows))


def head_of(kind: str, source: SpeechSource) -> Table:
    """The first line of a file of rows: what kind they are, and whose codes they hold."""
    return {kind: FORMAT, "tokenizer": asdict(source)}


def source_of(table: Table, kind: str) -> SpeechSource:
    """The speech tokenizer that the first line of a file of rows names."""
    if table[kind] != FORMAT:
        raise DataError(f"format {table[kind]} is not {FORMAT}; make the rows again")
    return SpeechSource(**table["tokenizer"])


def table_of(row: TrainingRow) -> dict[str, object]:
    """A training row as one line of its file."""
    values: dict[str, object] = {
        "id": row.id,
        "corpus": row.corpus,
        "split": row.split,
        "weight": row.weight,
        "captions": {language: list(texts) for language, texts in row.captions.items()},
        "act": dict(row.act),
        "measured": dict(row.measured),
        "heard": dict(row.heard),
        "transcript": row.transcript,
    }
    if row.speech is not None:
        codes = row.speech.tolist()
        values["speech"] = codes[0] if len(codes) == 1 else codes
    return values


def row_of(table: Table) -> TrainingRow:
    """A line of a file of training rows; an unknown key is an error."""
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a training row", key, ROW_KEYS)
    speech = table.get("speech")
    codes = None if speech is None else np.array(speech)
    if codes is not None and codes.dtype.kind != "i":
        raise DataError(f"{table['id']}: speech must be whole numbers, as many in each codebook")
    return TrainingRow(
        id=str(table["id"]),
        corpus=str(table["corpus"]),
        captions={language: tuple(texts) for language, texts in table["captions"].items()},
        speech=None if codes is None else np.atleast_2d(codes.astype(np.int64)),
        split=table.get("split", "train"),
        weight=float(table.get("weight", 1.0)),
        act=dict(table.get("act", {})),
        measured=dict(table.get("measured", {})),
        heard=dict(table.get("heard", {})),
        transcript=str(table.get("transcript", "")),
    )
