"""Hashes that say whether two sets of tokens came from the same tokenizer."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 1 << 20


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in blocks; OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint_of_arrays(
    settings: Mapping[str, object], arrays: Iterable[tuple[str, NDArray[np.generic]]]
) -> str:
    """SHA-256 over settings and named arrays, in the order given.

    It depends on names, types, shapes and values only, so one set of weights has one fingerprint
    in whatever file format it is kept.
    """
    digest = hashlib.sha256(_canonical(settings))
    for name, array in arrays:
        digest.update(_canonical([name, str(array.dtype), list(array.shape)]))
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_of_files(settings: Mapping[str, object], files: Iterable[Path]) -> str:
    """SHA-256 over settings and the contents of files, in the order given; names do not count."""
    return hashlib.sha256(
        _canonical([dict(settings), [hash_of_file(file) for file in files]])
    ).hexdigest()


def _canonical(value: object) -> bytes:
    if isinstance(value, Mapping):
        value = dict(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
