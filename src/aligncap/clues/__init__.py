"""Words for what is heard in a voice: the vocabulary of emotional clues, the grammar parser that
finds them in a caption, the acoustic prompt, the way from a caption back to a label, and the
evidence for each clue in the measured facts.
"""

from aligncap.clues.affect import arousal_valence, emotion_of, emotions_of
from aligncap.clues.evidence import Levels, judge, levels, measured_clues
from aligncap.clues.finding import acoustic_prompt, detect_language, find_clues
from aligncap.clues.hearing import heard_clues, heard_gender
from aligncap.clues.vocabulary import clue_of, opposites

__all__ = [
    "Levels",
    "acoustic_prompt",
    "arousal_valence",
    "clue_of",
    "detect_language",
    "emotion_of",
    "emotions_of",
    "find_clues",
    "heard_clues",
    "heard_gender",
    "judge",
    "levels",
    "measured_clues",
    "opposites",
]
