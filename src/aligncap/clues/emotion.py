"""The emotion of a caption, and what is heard of one: its certainty, a second one, its words.

A caption may not sound surer than the record beside it: an emotion of probability .3 is "perhaps
sad", and of two that are about as likely both are named.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from aligncap.clues.grammar import find_clues
from aligncap.clues.vocabulary import clue_of, meanings
from aligncap.errors import DataError
from aligncap.values import EMOTIONS, Clue

Readout = Mapping[str, Mapping[str, float]]
"""What the heads read: {"emotion": {"sad": 0.9, …}, "gender": {"female": 0.99, …}}."""

CERTAINTIES = ("sure", "likely", "unsure")
"""How certain an emotion is, by its probability."""

SURE_FROM, LIKELY_FROM = 0.60, 0.40
"""Probability from which on an emotion is stated outright, and from which on as likely."""

MIXED_WITHIN, MIXED_FROM = 0.12, 0.25
"""An emotion is heard beside the likeliest one where it is at most so much less probable, and at
least so probable itself."""


@dataclass(frozen=True, slots=True)
class HeardEmotion:
    """What the probabilities of the emotions amount to."""

    first: str
    """The likeliest: the record's emotion, and the one that a caption names (first)."""
    second: str | None = None
    """Another that is heard almost as well; None where one stands out."""
    certainty: str = "sure"
    """One of CERTAINTIES."""

    def __post_init__(self) -> None:
        if not {self.first, self.second or self.first} <= set(EMOTIONS):
            raise DataError(f"emotion {self.first!r}, {self.second!r}: see values.EMOTIONS")
        if self.certainty not in CERTAINTIES:
            raise DataError(f"certainty {self.certainty!r}: must be one of {CERTAINTIES}")


def heard_emotion(probabilities: Mapping[str, float]) -> HeardEmotion:
    """The likeliest emotion, how certain it is, and a second where two are about as likely."""
    if not probabilities:
        raise DataError("no emotion has a probability; give at least one")
    first, *others = sorted(probabilities, key=lambda name: -probabilities[name])
    chance = probabilities[first]
    second = others[0] if others and probabilities[others[0]] >= MIXED_FROM else None
    if second is not None and chance - probabilities[second] > MIXED_WITHIN + 1e-9:
        second = None
    return HeardEmotion(first, second, certainty_of(chance))


def certainty_of(probability: float) -> str:
    """How certain something of this probability is: one of CERTAINTIES."""
    if probability >= SURE_FROM:
        return "sure"
    return "likely" if probability >= LIKELY_FROM else "unsure"


_HEARD_AS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "sure": "{}",
            "likely": "probably {}",
            "unsure": "perhaps {}",
            "mixed": "{} or {}",
            "strong": "very {}",
            "weak": "slightly {}",
        },
        "zh": {
            "sure": "{}",
            "likely": "多半{}",
            "unsure": "可能{}",
            "mixed": "{}或{}",
            "strong": "非常{}",
            "weak": "有点{}",
        },
    }
)
"""How P_act words a certainty, two emotions of which one is meant, and an intensity."""


STRONG_FROM = 0.6
"""The level of arousal from which on a readout's emotion is called strong."""


def audible_intensity(readout: Readout) -> str | None:
    """ "strong" where the readout heard much arousal; None where it cannot tell or heard less."""
    level = readout.get("arousal", {}).get("level")
    return "strong" if level is not None and level >= STRONG_FROM else None


def heard_clue(heard: HeardEmotion, language: str = "en", intensity: str | None = None) -> Clue:
    """The clue of a heard emotion for P_act, its certainty in its word: "probably sad".

    `intensity`, "strong" or "weak", is said of an emotion that is sure: "very sad".
    """
    clue = clue_of("emotion", heard.first, language=language)
    words = [clue.word]
    if heard.second is not None:
        words.append(clue_of("emotion", heard.second, language=language).word)
    patterns = _HEARD_AS[language]
    hedge = "mixed" if heard.second else heard.certainty
    if intensity in ("weak", "strong") and hedge == "sure":
        hedge = intensity
    pattern = patterns[hedge]
    return replace(clue, word=pattern.format(*words))


def heard_in_prompt(text: str, language: str) -> tuple[HeardEmotion | None, str | None]:
    """The emotion that a P_act names, as `heard_clue` words it, and its intensity."""
    named = [clue for clue in find_clues(text, language) if clue.trait == "emotion"]
    if not named:
        return None, None
    first, second = named[0], next((clue.meaning for clue in named if clue.alternative), None)
    patterns = _HEARD_AS[language]
    said = [name for name in ("likely", "unsure") if patterns[name].format("").strip() in text]
    certainty = "unsure" if second else said[0] if said else "sure"
    intensity = "strong" if first.degree > 1 else "weak" if first.degree < 1 else None
    return HeardEmotion(first.meaning, second, certainty), intensity


_HEDGES = {
    "en": re.compile(
        r"\b(probabl[ey]|probability|likel(?:y|ihood)|presumably|apparently|seemingly|seems?"
        r"|appears?|perhaps|possibly|maybe|conceivably|may|might|could|must|either|if anything"
        r"|hard to (?:be sure|tell|say)|sounds like|guess|impression|as far as|as though|chances"
        r"|would take|or|half|part|both|between|mix|mixture|hints?|suggests?)\b"
    ),
    "zh": re.compile(
        "可能|也许|或许|大概|多半|似乎|好像|像是|又像|估计|说不定|说不准|说不清|未必|不好说|没准|难说"
        "|应该|想必|看样子|恐怕|大约|介于|之间|还是|或|一半|既像|猜|疑似|仿佛|不太确定|难以断定|分不清|夹杂"
    ),
}
"""Words by which a caption admits that it is not sure."""


def is_hedged(text: str, language: str) -> bool:
    """Whether a caption puts what it hears with reserve, or names two emotions it may be."""
    return _HEDGES[language].search(text.lower()) is not None


EMOTION_WEIGHT = 2.0
"""An emotion counts twice as much as a tone, a pace or a volume: it names the state itself."""


def emotions_of(text_or_clues: str | Iterable[Clue]) -> tuple[str, ...]:
    """Every emotion category that is named and not denied, the dominant first.

    Dominant is the strongest by degree, then the first; "neutral" comes last, since "calm" beside
    an emotion says how it is borne. Of emotions that are weighed against each other ("between calm
    and sad") the first is dominant.
    """
    strength: dict[str, float] = {}
    second: set[str] = set()
    for clue in _clues(text_or_clues):
        if clue.trait == "emotion" and not clue.negated:
            if clue.alternative and clue.meaning not in strength:
                second.add(clue.meaning)
            strength[clue.meaning] = max(strength.get(clue.meaning, 0.0), clue.degree)

    def rank(name: str) -> tuple[bool, bool, float]:
        return name in second, name == "neutral", -strength[name]

    return tuple(sorted(strength, key=rank))


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
