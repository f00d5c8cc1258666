"""Captions by clip from a JSON file whose owner chose its shape."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from aligncap.errors import DataError

_NAMES = ("id", "name", "utt", "fid", "key", "file", "filename", "audio", "wav", "path")
_CAPTIONS = ("captions", "caption", "description", "descriptions", "text")

_SHAPES = '{"clip": ["caption", …]}, {"clip": "caption"} or [{"id": "clip", "caption": "…"}, …]'


def read_captions(file: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each clip, by the stem of its name ("0001_000001").

    The file holds a dict of lists, a dict of strings, a dict of records or a list of records; a
    clip may come more than once. It is held whole. Raises DataError, which names the file, the
    entry and what is accepted, for anything else.
    """
    try:
        told = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); fetch it anew") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(f"{file}: not JSON in UTF-8 ({error}); fetch it anew") from error
    found: dict[str, dict[str, None]] = {}
    for place, name, value in _entries(told, file):
        captions = found.setdefault(stem_of(name), {})
        captions.update(dict.fromkeys(_texts(value, place)))
    return {stem: tuple(captions) for stem, captions in found.items()}


def stem_of(name: str) -> str:
    """The name of a clip without folders and suffix ("ESD/0001/Sad/0001_001051.wav")."""
    return PurePosixPath(name.replace("\\", "/")).stem


def _entries(told: Any, file: Path) -> Iterator[tuple[str, str, Any]]:
    """Place, clip and captions of each entry."""
    if isinstance(told, dict):
        for name, value in told.items():
            place = f"{file}: {name!r}"
            yield place, name, _field(value, _CAPTIONS, place) if _is_record(value) else value
    elif isinstance(told, list):
        for number, record in enumerate(told):
            place = f"{file}: entry {number}"
            if not _is_record(record):
                raise DataError(f"{place} is no record; write {_SHAPES}")
            name = _field(record, _NAMES, place)
            if not isinstance(name, str):
                raise DataError(f"{place} names its clip {name!r}; write text in quotes")
            yield place, name, _field(record, _CAPTIONS, place)
    else:
        raise DataError(f"{file}: holds a {type(told).__name__}; write {_SHAPES}")


def _is_record(value: Any) -> bool:
    return isinstance(value, dict)


def _field(record: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if record.get(name):
            return record[name]
    raise DataError(f"{place} has none of {', '.join(names)}; write {_SHAPES}")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{place} has no captions ({value!r:.40}); write {_SHAPES}")
    return tuple(stripped for text in texts if (stripped := text.strip()))
