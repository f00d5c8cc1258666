"""Views of a clip: as another voice, room or microphone might have given it, and its facts too."""

import math
from dataclasses import dataclass, replace

import numpy as np

from aligncap.corpora.manifest import Utterance, labelled
from aligncap.speech.augmentation import Augmentation, Varied, vary
from aligncap.speech.features import Features
from aligncap.training import seed_of
from aligncap.values import Fact, Facts

_DB_A_NAT = 10 / math.log(10)
_PER_SECOND = (
    "pitch_slope_st_per_s",
    "pitch_jumps_per_s",
    "loudness_slope_db_per_s",
    "pace_syllables_per_s",
    "pauses_per_s",
)


@dataclass(frozen=True, slots=True)
class View:
    """One view of a clip, ready to be written."""

    utterance: Utterance
    number: int
    features: Features
    facts: Facts


def view_of(
    utterance: Utterance,
    features: Features,
    facts: Facts,
    *,
    number: int,
    augmentation: Augmentation,
    seed: int,
) -> View:
    """View `number` of a clip; view 0 is the clip as it is."""
    utterance = labelled(utterance)
    if number == 0:
        return View(utterance, number, features, facts)
    drawn = np.random.default_rng(seed_of(seed, number, *utterance.id.encode()))
    varied = vary(features, augmentation, drawn)
    if not varied.same_gender:
        utterance = replace(utterance, gender=None)
    return View(utterance, number, varied.features, moved_facts(facts, varied))


def moved_facts(facts: Facts, varied: Varied) -> Facts:
    """What would have been measured in the varied clip, by what was done to it."""
    octaves = math.log2(varied.voice_ratio)
    moves = {
        "pitch_median_hz": lambda value: value * varied.voice_ratio,
        "pitch_offset_st": lambda value: value + 12 * octaves,
        "loudness_db": lambda value: value + varied.level_nats * _DB_A_NAT,
    }
    moves |= {name: lambda value: value * varied.pace_ratio for name in _PER_SECOND}
    moved = {
        fact.name: replace(fact, value=moves[fact.name](fact.value))
        if fact.name in moves and fact.value is not None
        else fact
        for fact in facts
    }
    gender = moved.get("female_probability")
    if gender is not None and not varied.same_gender:
        moved["female_probability"] = Fact(gender.name, None, gender.unit, 0.0, "the voice moved")
    return replace(
        facts,
        duration_s=facts.duration_s / varied.pace_ratio,
        speech_s=facts.speech_s / varied.pace_ratio,
        by_name=moved,
    )
