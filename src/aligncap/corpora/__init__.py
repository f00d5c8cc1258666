"""Corpora: manifests, splits that never change, and captions written from labels and facts."""

from aligncap.corpora.captions import gold_clues, meaning_of, write_captions
from aligncap.corpora.manifest import Manifests, Utterance, read_manifest, write_manifest
from aligncap.corpora.splits import is_validation, split_by_hash, validation_split

__all__ = [
    "Manifests",
    "Utterance",
    "gold_clues",
    "is_validation",
    "meaning_of",
    "read_manifest",
    "split_by_hash",
    "validation_split",
    "write_captions",
    "write_manifest",
]
