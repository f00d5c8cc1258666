"""Emotional clues (§3.1, Eq. 1): the vocabulary, the grammar parser that finds clues in a caption,
the acoustic prompt, a caption's emotion, and the evidence for each clue in the measured facts.
"""

from aligncap.clues.evidence import (
    HeardEmotion,
    Levels,
    audible_clues,
    audible_gender,
    heard_clue,
    heard_emotion,
    heard_facts,
    judge,
    levels,
    measured_clues,
    shown_gender,
    signal_clues,
)
from aligncap.clues.grammar import (
    acoustic_prompt,
    arousal_valence,
    detect_language,
    emotion_of,
    emotions_of,
    find_clues,
)
from aligncap.clues.vocabulary import clue_of, opposites

__all__ = [
    "HeardEmotion",
    "Levels",
    "acoustic_prompt",
    "arousal_valence",
    "audible_clues",
    "audible_gender",
    "clue_of",
    "detect_language",
    "emotion_of",
    "emotions_of",
    "find_clues",
    "heard_clue",
    "heard_emotion",
    "heard_facts",
    "judge",
    "levels",
    "measured_clues",
    "opposites",
    "shown_gender",
    "signal_clues",
]
