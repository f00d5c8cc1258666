"""Which labels of the corpora are relied on."""

from aligncap.corpora.manifest import Utterance

DOUBTFUL_GENDER_FROM = "50"
"""ASED's speakers from this number on: nine of eleven "men" have a median pitch of 228–343 Hz."""


def trusted_gender(utterance: Utterance) -> str | None:
    """The gender that a corpus gives, but None where its labels contradict its voices."""
    number = (utterance.speaker or "").removeprefix("ased_")
    doubtful = utterance.corpus == "ased" and number >= DOUBTFUL_GENDER_FROM
    return None if doubtful else utterance.gender
