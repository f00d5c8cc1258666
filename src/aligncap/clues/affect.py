"""From clues back to labels: the emotion a caption names, and its place in the circumplex."""

from collections.abc import Iterable

from aligncap.clues.finding import find_clues
from aligncap.clues.vocabulary import meanings
from aligncap.values import Clue

EMOTION_WEIGHT = 2.0
"""An emotion counts twice as much as a tone, a pace or a volume: it names the state itself."""


def emotions_of(text_or_clues: str | Iterable[Clue]) -> tuple[str, ...]:
    """Every emotion category that is named and not denied, the dominant first.

    Dominant is the strongest by degree, then the first; "neutral" comes last, since "calm" beside
    an emotion says how it is borne.
    """
    strength: dict[str, float] = {}
    for clue in _clues(text_or_clues):
        if clue.trait == "emotion" and not clue.negated:
            strength[clue.meaning] = max(strength.get(clue.meaning, 0.0), clue.degree)
    order = sorted(strength, key=lambda name: (name == "neutral", -strength[name]))
    return tuple(order)


def emotion_of(text_or_clues: str | Iterable[Clue]) -> str | None:
    """The dominant emotion category (one of values.EMOTIONS), or None where none is named."""
    found = emotions_of(text_or_clues)
    return found[0] if found else None


def arousal_valence(clues: str | Iterable[Clue]) -> tuple[float | None, float | None]:
    """Arousal and valence, each in [-1, 1], or None where no clue bears on it.

    The mean of the prototypes in `data/meanings.toml`, weighted by degree; a denied clue does not
    count.
    """
    held = [clue for clue in _clues(clues) if not clue.negated]
    return _mean(held, "arousal"), _mean(held, "valence")


def _mean(clues: Iterable[Clue], axis: str) -> float | None:
    total = weights = 0.0
    for clue in clues:
        found = meanings().get((clue.trait, clue.meaning))
        place = getattr(found, axis) if found else None
        if place is not None:
            weight = clue.degree * (EMOTION_WEIGHT if clue.trait == "emotion" else 1.0)
            total += weight * place
            weights += weight
    return max(-1.0, min(1.0, total / weights)) if weights else None


def _clues(text_or_clues: str | Iterable[Clue]) -> Iterable[Clue]:
    return find_clues(text_or_clues) if isinstance(text_or_clues, str) else text_or_clues
