"""What a caption is to say: an emotion, perhaps a gender, and levels of the voice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from aligncap.errors import DataError
from aligncap.values import EMOTIONS

ASPECTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pitch": ("high", "normal", "low"),
        "loudness": ("loud", "normal", "quiet"),
        "pace": ("fast", "normal", "slow"),
        "pitch_movement": ("rising", "falling"),
        "pitch_range": ("flat", "varied"),
        "loudness_movement": ("swelling", "fading"),
        "loudness_range": ("dynamic", "steady"),
        "pauses": ("halting", "fluent"),
        "clearness": ("clear", "hoarse"),
        "brightness": ("bright", "dull"),
        "steadiness": ("trembling", "steady"),
        "texture": ("breathy", "tense", "soft"),
    }
)
"""Aspects of a voice that a caption can describe, named as in `clues.Levels` → their levels."""

TRAIT_OF: Mapping[str, str] = MappingProxyType(
    {
        "pitch": "pitch",
        "loudness": "volume",
        "pace": "pace",
        "pitch_movement": "intonation",
        "pitch_range": "intonation",
        "loudness_movement": "volume",
        "loudness_range": "volume",
        "pauses": "pace",
        "clearness": "voice quality",
        "brightness": "voice quality",
        "steadiness": "voice quality",
        "texture": "voice quality",
    }
)
"""The clue trait that an aspect belongs to (`values.TRAITS`)."""


CONFLICTS: frozenset[frozenset[tuple[str, str]]] = frozenset(
    frozenset(pair)
    for pair in (
        (("loudness_range", "steady"), ("loudness_movement", "swelling")),
        (("loudness_range", "steady"), ("loudness_movement", "fading")),
        (("pitch_range", "flat"), ("pitch_movement", "rising")),
        (("pitch_range", "flat"), ("pitch_movement", "falling")),
    )
)
"""What may both be measured but would contradict each other in one sentence."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a caption is to say."""

    emotion: str
    """A category of `values.EMOTIONS`."""
    intensity: str | None = None
    """"normal", "strong", or None where the corpus does not say."""
    gender: str | None = None
    levels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Aspect → level; an aspect that is absent is not spoken of."""
    calm: bool = False
    """Neutral in the way of a calm person rather than of a reader."""

    def __post_init__(self) -> None:
        if self.emotion not in EMOTIONS:
            raise DataError(f"emotion {self.emotion!r}: must be one of {', '.join(EMOTIONS)}")
        if self.gender not in (None, "female", "male"):
            raise DataError(f"gender {self.gender!r}: must be female, male or None")
        if self.intensity not in (None, "normal", "strong"):
            raise DataError(f"intensity {self.intensity!r}: must be normal, strong or None")
        for aspect, level in self.levels.items():
            if level not in ASPECTS.get(aspect, ()):
                known = ", ".join(ASPECTS.get(aspect, ASPECTS))
                raise DataError(f"{aspect} {level!r}: must be one of {known}")


STATED: Mapping[str, float] = MappingProxyType(
    {aspect: 0.85 if aspect in ("pitch", "loudness", "pace") else 0.45 for aspect in ASPECTS}
)
"""How often an aspect is spoken of where its level is known: people name three far more often."""
