"""Chinese captions: how the parts are joined, and what a good sentence must not do."""

import re
from random import Random

from aligncap.corpora.paraphrase.chinese_emotions import EMOTION_WORDS
from aligncap.corpora.paraphrase.chinese_frames import FRAMES, WORDS
from aligncap.corpora.paraphrase.chinese_people import PEOPLE
from aligncap.corpora.paraphrase.chinese_words import phrases
from aligncap.corpora.paraphrase.grammar import Grammar, styles_of
from aligncap.corpora.paraphrase.meaning import STATED

FEWEST_CHARACTERS, MOST_CHARACTERS = 10, 45

_STYLES = (
    ("clause", 0.5, {"clause": 4}),
    ("split", 0.34, {"voice": 2, "manner": 1, "clause": 2}),
    ("list", 0.16, {"mark": 3}),
)
_ONCE = "很较偏挺颇"
"""Degrees that wear thin: `较` may come twice, each of the others once."""


def grammar() -> Grammar:
    """The Chinese grammar."""
    return Grammar(
        phrases=phrases(),
        styles=styles_of(_STYLES, FRAMES),
        join={
            "voice": lambda words, rng: rng.choice(("、", "而", "又")).join(words),
            "manner": lambda words, _rng: "、".join(words),
            "clauses": lambda words, _rng: "，".join(words),
            "marks": _join_marks,
        },
        role_of={"voice": "voice", "manner": "manner", "clauses": "clause", "marks": "mark"},
        emotions=EMOTION_WORDS,
        people=PEOPLE,
        words=WORDS,
        emphasised={"adj": "{very}WORD", "noun": "{much}WORD"},
        plain={"adj": "{some}WORD"},
        inflected=lambda _slot, _gender: None,
        finish=lambda text: f"{text}。",
        reads_well=_reads_well,
        gender_stated=0.97,
        aspect_stated=STATED,
        normal_stated=0.6,
        most_levels=4,
    )


def _join_marks(words: list[str], rng: Random) -> str:
    *most, last = words
    return (
        f"{'、'.join(most)}{rng.choice(('与', '以及', '和' if last[0] != '平' else '与'))}{last}"
        if most
        else last
    )


def _reads_well(text: str) -> bool:
    """Long enough, not too long, and no word said twice."""
    characters = re.sub(r"[，。、；：]", "", text)
    if not FEWEST_CHARACTERS <= len(characters) <= MOST_CHARACTERS:
        return False
    if any(text.count(mark) > (2 if mark == "较" else 1) for mark in _ONCE):
        return False
    pairs = re.findall(r"(?=([\u4e00-\u9fff]{2}))", text)
    return len(set(pairs)) == len(pairs)
