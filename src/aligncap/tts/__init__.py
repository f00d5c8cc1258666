"""Corpora for expressive text-to-speech: numbers, texts and captions as columns of their rows."""

from aligncap.tts.annotator import (
    AnnotateSettings,
    Annotator,
    annotate,
    complete,
    speaker_statistics,
)

__all__ = ["AnnotateSettings", "Annotator", "annotate", "complete", "speaker_statistics"]
