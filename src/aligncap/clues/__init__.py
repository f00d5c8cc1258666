"""Emotional clues (§3.1, Eq. 1): the vocabulary, the grammar parser that finds clues in a caption,
the acoustic prompt, a caption's emotion, and the evidence for each clue in the measured facts.
"""

from aligncap.clues.emotion import (
    HeardEmotion,
    arousal_valence,
    audible_intensity,
    emotion_of,
    emotions_of,
    heard_clue,
    heard_emotion,
    heard_in_prompt,
    is_hedged,
)
from aligncap.clues.evidence import (
    Levels,
    audible_clues,
    audible_gender,
    heard_facts,
    judge,
    levels,
    measured_clues,
    retrieved_clues,
    shown_gender,
    signal_clues,
)
from aligncap.clues.grammar import (
    PARSERS,
    acoustic_prompt,
    detect_language,
    find_clues,
    open_parser,
)
from aligncap.clues.vocabulary import clue_of, opposites

__all__ = [
    "PARSERS",
    "HeardEmotion",
    "Levels",
    "acoustic_prompt",
    "arousal_valence",
    "audible_clues",
    "audible_gender",
    "audible_intensity",
    "clue_of",
    "detect_language",
    "emotion_of",
    "emotions_of",
    "find_clues",
    "heard_clue",
    "heard_emotion",
    "heard_facts",
    "heard_in_prompt",
    "is_hedged",
    "judge",
    "levels",
    "measured_clues",
    "open_parser",
    "opposites",
    "retrieved_clues",
    "shown_gender",
    "signal_clues",
]
