"""Corpora: manifests, splits that never change, and captions written from labels and facts."""

from aligncap.corpora.manifest import Utterance, read_manifest, write_manifest
from aligncap.corpora.splits import is_validation, split_by_hash, validation_split

__all__ = [
    "Utterance",
    "is_validation",
    "read_manifest",
    "split_by_hash",
    "validation_split",
    "write_manifest",
]
