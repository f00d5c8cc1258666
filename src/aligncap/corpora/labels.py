"""Which labels of the corpora are relied on."""

from dataclasses import replace

from aligncap.clues import emotion_of
from aligncap.corpora.manifest import Utterance

DOUBTFUL_GENDER_FROM = "50"
"""ASED's speakers from this number on: nine of eleven "men" have a median pitch of 228–343 Hz."""


def trusted_gender(utterance: Utterance) -> str | None:
    """The gender that a corpus gives, but None where its labels contradict its voices."""
    number = (utterance.speaker or "").removeprefix("ased_")
    doubtful = utterance.corpus == "ased" and number >= DOUBTFUL_GENDER_FROM
    return None if doubtful else utterance.gender


def labelled(utterance: Utterance) -> Utterance:
    """The utterance with the labels that are relied on: a trusted gender, and the emotion that a
    human caption names where no label does."""
    emotion = utterance.emotion
    if emotion is None and utterance.captions:
        emotion = emotion_of(utterance.captions[0])
    return replace(utterance, gender=trusted_gender(utterance), emotion=emotion)
