"""Clues that a speech tokenizer's own heads hear: its vectors and the clue words share a space.

Each head's weight vector stands for a clue word, and its probability says how near the speech is to
it: the retrieval of clue words in a joint speech-text space (decision 5).
"""

from collections.abc import Mapping

from aligncap.clues.evidence import levels, measured_clues
from aligncap.clues.vocabulary import clue_of
from aligncap.values import Clue, Facts

SURE = 0.95
"""Probability from which on a head's gender is told."""
LIKELY = 0.35
"""Probability from which on a head's likeliest emotion is told; of eight, chance is 0.125."""

Readout = Mapping[str, Mapping[str, float]]
"""What the heads read: {"emotion": {"sad": 0.9, …}, "gender": {"female": 0.99, …}}."""


def heard_gender(readout: Readout) -> str | None:
    """The gender that the heads are sure of, or None."""
    sure = [name for name, chance in readout.get("gender", {}).items() if chance >= SURE]
    return sure[0] if sure else None


def heard_clues(readout: Readout, facts: Facts) -> tuple[Clue, ...]:
    """The emotion and the gender that the heads hear, then the clues that the signal supports.

    A measured gender goes before a heard one; the order is that of a caption's gold clues.
    """
    told = []
    emotions = readout.get("emotion", {})
    likeliest = max(emotions, key=emotions.__getitem__, default=None)
    if likeliest is not None and emotions[likeliest] >= LIKELY:
        told.append(clue_of("emotion", likeliest))
    gender = levels(facts).gender or heard_gender(readout)
    if gender is not None:
        told.append(clue_of("gender", gender))
    shown = (clue for clue in measured_clues(facts) if clue.trait != "gender")
    return (*told, *shown)
