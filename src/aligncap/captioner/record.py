"""From what the model says and the signal shows to one `Caption`."""

from collections.abc import Mapping, Sequence

import numpy as np

from aligncap.captioner.choosing import Wording, most_credible_first
from aligncap.captioner.listening import Utterance
from aligncap.clues import (
    arousal_valence,
    emotion_of,
    find_clues,
    heard_gender,
    judge,
    levels,
)
from aligncap.values import EMOTIONS, Caption, Evidence


def build_caption(
    wordings: Sequence[Wording],
    utterance: Utterance,
    *,
    language: str,
    candidates: int,
    evidence: bool,
    model: str,
) -> Caption:
    """The most credible wording with everything known beside it.

    `wordings` are all the model gave; of them `candidates` are told. Without
    `evidence` the clues are not judged.
    """
    wordings = most_credible_first(wordings, utterance, language=language)
    best = wordings[0]
    clues = find_clues(best.text, language)
    judged: tuple[Evidence, ...] = judge(clues, utterance.facts) if evidence else ()
    emotion = _from_heads(utterance.tokens.readout) or emotion_of_wordings(wordings, language)
    arousal, valence = arousal_valence(clues)
    shown = levels(utterance.facts)
    return Caption(
        text=best.text,
        language=language,
        duration_s=utterance.duration_s,
        evidence=judged,
        emotion=emotion,
        arousal=arousal,
        valence=valence,
        gender=heard_gender(utterance.tokens.readout, utterance.facts),
        pitch=shown.pitch,
        loudness=shown.loudness,
        pace=shown.pace,
        confidence=emotion.get(emotion_of(clues) or "", 0.0),
        log_probability=best.hypothesis.mean_log_probability,
        model=model,
        candidates=_others(wordings, candidates),
        part_s=utterance.part_s,
    )


def emotion_of_wordings(wordings: Sequence[Wording], language: str) -> dict[str, float]:
    """Probability of each emotion: the share that the wordings naming it have of all that name one.

    Even over all emotions where no wording names any.
    """
    named = [emotion_of(find_clues(wording.text, language)) for wording in wordings]
    weights = np.exp(_below_zero([wording.hypothesis.log_probability for wording in wordings]))
    shares = dict.fromkeys(EMOTIONS, 0.0)
    for emotion, weight in zip(named, weights, strict=True):
        if emotion in shares:
            shares[emotion] += float(weight)
    return _normalised(shares)


def _from_heads(heads: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    read = heads.get("emotion", {})
    return _normalised({name: read.get(name, 0.0) for name in EMOTIONS}) if read else {}


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    if total <= 0.0:
        return dict.fromkeys(shares, 1.0 / len(shares))
    return {name: share / total for name, share in shares.items()}


def _below_zero(log_probabilities: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    # Only ratios count, and the exponential of a long caption's would be 0.
    values = np.array(log_probabilities, dtype=np.float64)
    shifted: np.ndarray[tuple[int], np.dtype[np.float64]] = values - values.max()
    return shifted


def _others(wordings: Sequence[Wording], candidates: int) -> tuple[str, ...]:
    texts = list(dict.fromkeys(wording.text for wording in wordings))
    return tuple(texts[1:candidates])
