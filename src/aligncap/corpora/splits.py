"""Who is trained on and who is kept back: splits that never change.

Every rule is a pure function of one utterance, so a subset, a shuffle or a corpus that grows
cannot move anybody from validation into training.
"""

import re
from collections.abc import Iterable, Mapping

from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError
from aligncap.storage import hash_of

VALIDATION_SPEAKERS = frozenset(
    {
        # RAVDESS: two men, two women.
        *("ravdess_05", "ravdess_10", "ravdess_15", "ravdess_20"),
        # EmoDB: a man and a woman, neither of them one of the three who recorded disgust here.
        *("emodb_10", "emodb_14"),
        # nEMO: a woman, so that three men and three women are left.
        "nemo_IC0",
        # ASED: every eighth speaker in the order of their ids.
        *("ased_09", "ased_18", "ased_27", "ased_36", "ased_45", "ased_54", "ased_63"),
    }
)
"""Speakers that no model of ours is trained on."""

SECAP_SHARE = 0.29
"""Share of secap's audiobook sources kept back, which makes a tenth of its clips."""


def validation_split(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, validation) by the project's fixed validation speakers, in the order given."""
    train: list[Utterance] = []
    validation: list[Utterance] = []
    for utterance in utterances:
        (validation if is_validation(utterance) else train).append(utterance)
    return train, validation


def is_validation(utterance: Utterance) -> bool:
    """Whether an utterance is kept back for validation: by its speaker, in secap by its source."""
    if utterance.corpus == "secap":
        source = secap_source(utterance.id)
        # Each of the few studio voices has more than a tenth of the clips: they are trained on.
        return source.startswith("tx_emulate") and _place(source, "validation") < SECAP_SHARE
    return utterance.speaker in VALIDATION_SPEAKERS


def secap_source(utterance_id: str) -> str:
    """The source of a secap clip, which all clips of one voice or one audiobook share.

    `tx_emotion_003…` is a studio voice (three of them, told apart by their spectra),
    `tx_xiao…` a fourth, `tx_emulate_02_006…` an audiobook; chapter and clip numbers follow.
    """
    match = re.match(r"tx_emotion_\d{3}|tx_xiao|tx_emulate_\d\d_\d{3}", utterance_id)
    if match is None:
        raise DataError(f"{utterance_id}: not a secap id (tx_emotion…, tx_xiao… or tx_emulate…)")
    return match.group()


def split_by_hash(key: str, shares: Mapping[str, float], *, salt: str = "") -> str:
    """The name of the part that a key falls into, for shares such as 8:1:1.

    The same key always falls into the same part, whatever else is in the corpus. Use an
    utterance id for a random split and a speaker for a speaker-disjoint one; another salt gives
    another split. Raises DataError if the shares are not positive.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or total <= 0:
        raise DataError(f"shares {dict(shares)}: must be 0 or more, and one of them above 0")
    place, edge = _place(key, salt) * total, 0.0
    for name, share in shares.items():
        edge += share
        if place < edge:
            return name
    # Rounding left a sliver above the last edge.
    return max(shares, key=lambda name: shares[name])


def _place(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on nothing but key and salt."""
    return int(hash_of(f"{salt}\0{key}")[:12], 16) / 2**48
