"""Meanings to test the paraphrase grammar with, as hypothesis draws them and at random."""

from random import Random

from hypothesis import strategies as st

from aligncap.data.grammar import ASPECTS, Meaning
from aligncap.values import EMOTIONS

INTENSITIES = (None, "normal", "strong")
GENDERS = (None, "female", "male")


def random_meaning(rng: Random) -> Meaning:
    """As a corpus would give them: mostly pitch, loudness and pace, now and then the others."""
    levels = {
        aspect: rng.choice(levels)
        for aspect, levels in ASPECTS.items()
        if rng.random() < (0.8 if aspect in ("pitch", "loudness", "pace") else 0.3)
    }
    emotion = rng.choice(EMOTIONS)
    calm = emotion == "neutral" and rng.random() < 0.5
    return Meaning(emotion, rng.choice(INTENSITIES), rng.choice(GENDERS), levels, calm)


def meanings() -> st.SearchStrategy[Meaning]:
    """Every meaning there is."""
    levels = st.fixed_dictionaries(
        {}, optional={aspect: st.sampled_from(known) for aspect, known in ASPECTS.items()}
    )
    return st.builds(
        Meaning,
        emotion=st.sampled_from(EMOTIONS),
        intensity=st.sampled_from(INTENSITIES),
        gender=st.sampled_from(GENDERS),
        levels=levels,
        calm=st.booleans(),
    )
