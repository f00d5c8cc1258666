"""Corpora: manifests, splits that never change, and captions written from labels and facts."""
