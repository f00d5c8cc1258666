"""Annotated rows as parquet that `datasets.load_dataset` reads: types of columns, features, shards.

Every shard of a corpus has the same columns of the same types, whatever its own rows hold.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aligncap.errors import AlignCapError
from aligncap.storage import atomic_file, printable
from aligncap.tts.annotator import (
    AUDIO_NAMES,
    BASELINE_CLIPS,
    AnnotateSettings,
    own_columns,
    renamed,
)
from aligncap.tts.bins import NO_BINS, TEXT_COLUMNS
from aligncap.tts.measures import Row
from aligncap.tts.sources import PARTS, Corpus
from aligncap.values import EMOTIONS

Kinds = dict[str, set[str]]
"""Column → which kinds of values its rows have; nothing for a column that is always null."""

WORDS = {
    *("phonemes", *TEXT_COLUMNS, "text_description", "caption", "emotion", "heard_gender"),
    *("pitch_level", "loudness_level", "pace_level", "caption_language", "caption_model"),
    *("gender_source", "gender", "error", "certainty", "second_emotion", "vocalization"),
}
"""Our columns of text."""

NESTED: dict[str, Any] = {
    "emotion_probabilities": dict.fromkeys(EMOTIONS, "float"),
    "evidence": [dict.fromkeys(("word", "trait", "verdict", "evidence"), "str")],
    "part_s": ["float"],
}
"""Our columns of several values, by what they hold."""

PLAIN = {"unfamiliar": "bool", BASELINE_CLIPS: "int"}
"""Our columns of other plain values than numbers with a fraction."""

AUDIO = "audio"
"""The column of recordings where a text names them, or none of Arrow's files has them."""


def note(kinds: Kinds, row: Mapping[str, Any]) -> None:
    """Add the kinds of a row's values."""
    for name, value in row.items():
        found = kinds.setdefault(name, set())
        if value is not None:
            found.add(_kind(value))


def _kind(value: object) -> str:
    return next(
        (kind.__name__ for kind in (bool, int, float, str, bytes) if isinstance(value, kind)),
        "json",
    )


def joined(kinds: Iterable[Kinds]) -> Kinds:
    """The kinds of several shards together."""
    every: Kinds = {}
    for one in kinds:
        for name, found in one.items():
            every.setdefault(name, set()).update(found)
    return every


def audio_column(corpus: Corpus, asked: str | None) -> str:
    """The column that the recordings of a corpus are in; `asked` is what it is called there, if
    unusual."""
    if corpus.schema is None:
        return AUDIO
    names = corpus.schema.names
    column = next((one for one in (AUDIO_NAMES if asked is None else (asked,)) if one in names), "")
    return column if column and not _is_text(corpus.schema.field(column).type) else AUDIO


def fields_of(corpus: Corpus, given: Kinds, audio: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of a corpus' columns, and the features noted of them; `given` are the kinds of its
    rows where it has no schema, `audio` is the column of its recordings."""
    import pyarrow as pa

    features = dict(corpus.features)
    if corpus.schema is None:
        fields = {name: _arrow(_joined_kind(kinds)) for name, kinds in given.items()}
    else:
        fields = {one.name: one.type for one in corpus.schema}
    if corpus.schema is None or audio not in fields or _is_of_file(fields[audio]):
        fields[audio] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        if features.get(audio, {}).get("_type") != "Audio":
            features[audio] = {"_type": "Audio"}
    return fields, features


def _is_text(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_of_file(type_: Any) -> bool:
    """Whether a column of recordings holds places of files, or their bytes, in whatever form."""
    import pyarrow as pa

    if pa.types.is_struct(type_):
        return {one.name for one in type_} <= {"bytes", "path"}
    return _is_text(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def schema_of(
    fields: Mapping[str, Any],
    settings: AnnotateSettings,
    found: Kinds,
    features: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """pyarrow's schema of annotated rows, with the features that Hugging Face's library reads.

    `fields` are the types of the columns there were, `found` the kinds of what was found.
    """
    import pyarrow as pa

    ours = dict.fromkeys((*own_columns(settings), *found))
    kept = {renamed(name, ours): one for name, one in fields.items()}
    noted = {renamed(name, ours): one for name, one in features.items()}
    names = [*ours, *(() if "gender" in fields else ("gender",))]
    types = {name: _own_type(name, found.get(name, set()), settings) for name in names}
    schema = pa.schema({**kept, **types})
    return schema.with_metadata({"huggingface": json.dumps(_info(schema, noted))})


def _own_type(name: str, kinds: set[str], settings: AnnotateSettings) -> Any:
    import pyarrow as pa

    if name in NESTED:
        return _arrow(NESTED[name])
    if name in PLAIN:
        return _arrow(PLAIN[name])
    if name in WORDS and not (name == "speaking_rate" and settings.bins == NO_BINS):
        return pa.string()
    return pa.float64() if name in own_columns(settings) else _arrow(_joined_kind(kinds))


def _joined_kind(found: set[str]) -> str:
    """The one kind that holds all of them."""
    if len(found) == 1:
        return next(iter(found))
    return "float" if found == {"int", "float"} else "str"


def _arrow(kind: Any) -> Any:
    import pyarrow as pa

    if isinstance(kind, dict):
        return pa.struct({name: _arrow(one) for name, one in kind.items()})
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    plain = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "bytes": pa.binary()}
    return plain.get(kind, pa.string())


def _info(schema: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    """What Hugging Face's library notes of a table."""
    every = {one.name: features.get(one.name) or _feature(one.type) for one in schema}
    return {"info": {"features": every}}


def _feature(type_: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_struct(type_):
        return {one.name: _feature(one.type) for one in type_}
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return [_feature(type_.value_type)]
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(type_), str(type_)), "_type": "Value"}


def write_shard(path: Path, schema: Any, rows: Iterator[Row]) -> None:
    """Write rows as a parquet file that is there whole or not at all."""
    import pyarrow.parquet as pq

    with atomic_file(path, "wb") as file, pq.ParquetWriter(file, schema) as writer:
        while part := list(islice(rows, PARTS)):
            writer.write_table(table_of(schema, part))


def table_of(schema: Any, rows: Sequence[Row]) -> Any:
    """Rows as a pyarrow table of a schema; columns that a row lacks are null."""
    import pyarrow as pa

    arrays = [
        pa.array([_fitting(row.get(one.name), one.type) for row in rows], one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _fitting(value: Any, type_: Any) -> Any:
    """A value as the type of its column has it: what is no text is JSON in a column of texts."""
    import pyarrow as pa

    if value is None or isinstance(value, AlignCapError):
        return None
    if _is_text(type_):
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        text = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        return printable(text)
    if pa.types.is_struct(type_) and not isinstance(value, Mapping):
        return embedded(value)
    if isinstance(value, str) and (pa.types.is_integer(type_) or pa.types.is_floating(type_)):
        return None  # a gender that is heard, where the corpus has codes of them
    return value


def embedded(audio: Any) -> Row | None:
    """A recording with its bytes, as Hugging Face's `Audio` has it; None where it is not there."""
    if isinstance(audio, Mapping):
        if audio.get("bytes") is not None or not audio.get("path"):
            return dict(audio)
        audio = audio["path"]
    if isinstance(audio, bytes):
        return {"bytes": audio, "path": None}
    try:
        path = Path(audio)
        return {"bytes": path.read_bytes(), "path": path.name}
    except (OSError, TypeError, ValueError):
        return None
