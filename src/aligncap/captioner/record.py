"""The record of a caption: its evidence, and what was heard and measured of the voice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.captioner.preparing import PreparedSpeech
from aligncap.captioner.runtimes import Hypothesis
from aligncap.clues import arousal_valence, audible_gender, emotion_of, find_clues, judge, levels
from aligncap.values import EMOTIONS, Caption


@dataclass(frozen=True, slots=True)
class CaptionHypothesis:
    """One caption that the model gives, with its ids and probability."""

    text: str
    hypothesis: Hypothesis


def emotion_distribution(
    hypotheses: Sequence[CaptionHypothesis], emotions: Mapping[str, float], *, language: str
) -> dict[str, float]:
    """Probability of each emotion: the readout's where `emotions` has one, else the share that the
    hypotheses naming it have of all that name one; uniform where none does."""
    shares = {name: emotions.get(name, 0.0) for name in EMOTIONS}
    if not emotions:
        totals = np.array([one.hypothesis.log_probability for one in hypotheses])
        # Only ratios count, and the exponential of a long caption's would be 0.
        for one, weight in zip(hypotheses, np.exp(totals - totals.max()), strict=True):
            named = emotion_of(find_clues(one.text, language))
            if named in shares:
                shares[named] += float(weight)
    total = sum(shares.values())
    if total <= 0.0:
        return dict.fromkeys(EMOTIONS, 1.0 / len(EMOTIONS))
    return {name: share / total for name, share in shares.items()}


def build_caption(
    ranked: Sequence[CaptionHypothesis],
    speech: PreparedSpeech,
    *,
    language: str,
    candidates: int,
    evidence: bool,
    model: str,
) -> Caption:
    """The record of the first of the ranked hypotheses.

    `ranked` are all that the model gave; the record holds `candidates` of them. Without
    `evidence` the clues are not judged.
    """
    best, readout, measured = ranked[0], speech.tokens.readout, levels(speech.facts)
    clues = find_clues(best.text, language)
    emotion = emotion_distribution(ranked, readout.get("emotion", {}), language=language)
    arousal, valence = arousal_valence(clues)
    return Caption(
        text=best.text,
        language=language,
        duration_s=speech.duration_s,
        evidence=judge(clues, speech.facts) if evidence else (),
        emotion=emotion,
        arousal=arousal,
        valence=valence,
        gender=audible_gender(readout, speech.facts),
        pitch=measured.pitch,
        loudness=measured.loudness,
        pace=measured.pace,
        confidence=emotion.get(emotion_of(clues) or "", 0.0),
        log_probability=best.hypothesis.mean_log_probability,
        model=model,
        candidates=tuple(dict.fromkeys(one.text for one in ranked))[1:candidates],
        part_s=speech.part_s,
    )
