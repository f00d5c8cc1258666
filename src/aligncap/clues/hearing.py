"""Clues that a speech tokenizer's own heads hear: its vectors and the clue words share a space.

Each head's weight vector stands for a clue word, and its probability says how near the speech is to
it: the retrieval of clue words in a joint speech-text space (decision 5).
"""

import math
from collections.abc import Mapping

from aligncap.clues.evidence import measured_clues
from aligncap.clues.vocabulary import clue_of
from aligncap.values import Clue, Facts

SURE = 0.95
"""Probability from which on a gender is told."""
_LEAST_DOUBT = 0.01
"""No single witness is surer than this."""

Readout = Mapping[str, Mapping[str, float]]
"""What the heads read: {"emotion": {"sad": 0.9, …}, "gender": {"female": 0.99, …}}."""


def heard_gender(readout: Readout, facts: Facts) -> str | None:
    """The gender that heads and measured voice together are sure of, or None.

    They are taken as independent witnesses: their log-odds add up. Where one of them is missing,
    the other has to be sure alone.
    """
    heads = readout.get("gender", {}).get("female")
    fact = facts.by_name.get("female_probability")
    witnesses = [heads, fact.value if fact else None]
    odds = sum(_log_odds(chance) for chance in witnesses if chance is not None)
    if abs(odds) < _log_odds(SURE):
        return None
    return "female" if odds > 0 else "male"


def heard_clues(readout: Readout, facts: Facts) -> tuple[Clue, ...]:
    """The likeliest emotion and a gender that can be told, then what the signal supports.

    The order is that of a caption's gold clues.
    """
    told = []
    emotions = readout.get("emotion", {})
    likeliest = max(emotions, key=emotions.__getitem__, default=None)
    if likeliest is not None:
        told.append(clue_of("emotion", likeliest))
    gender = heard_gender(readout, facts)
    if gender is not None:
        told.append(clue_of("gender", gender))
    shown = (clue for clue in measured_clues(facts) if clue.trait != "gender")
    return (*told, *shown)


def _log_odds(chance: float) -> float:
    chance = min(max(chance, _LEAST_DOUBT), 1 - _LEAST_DOUBT)
    return math.log(chance / (1 - chance))
