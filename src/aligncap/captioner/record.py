"""The record of a caption: its evidence, and what was heard and measured of the voice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aligncap.captioner.preparing import PreparedSpeech
from aligncap.captioner.runtimes import Hypothesis
from aligncap.clues import (
    arousal_valence,
    emotion_of,
    find_clues,
    heard_emotion,
    judge,
    levels,
    shown_gender,
)
from aligncap.clues.emotion import Readout, certainty_of
from aligncap.clues.vocabulary import meanings
from aligncap.values import EMOTIONS, Caption, Clue


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


UNFAMILIAR_FROM = 0.99
"""The share of familiar recordings that are nearer to the training data, from which on one is
flagged."""

_IN_CHINESE = MappingProxyType(
    {
        "coughing": "咳嗽",
        "crying": "哭",
        "laughing": "笑",
        "moaning": "呻吟",
        "panting": "喘气",
        "screaming": "尖叫",
        "sighing": "叹气",
        "sneezing": "打喷嚏",
        "throat-clearing": "清嗓子",
        "yawning": "打哈欠",
    }
)


def wordless_text(vocalization: str, language: str) -> str:
    """The caption of a sound without words: "No words: someone is coughing."."""
    if language == "zh":
        return f"没有说话：有人在{_IN_CHINESE[vocalization]}。"
    doing = "clearing their throat" if vocalization == "throat-clearing" else vocalization
    return f"No words: someone is {doing}."


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
    `evidence` the clues are not judged. Where nobody says words there are no hypotheses, and the
    record is of the vocalization.
    """
    if speech.vocalization is not None:
        return _wordless_caption(speech, speech.vocalization, language=language, model=model)
    best, readout, measured = ranked[0], speech.tokens.readout, levels(speech.facts)
    clues = find_clues(best.text, language)
    emotion = emotion_distribution(ranked, readout.get("emotion", {}), language=language)
    heard = heard_emotion(emotion)
    arousal, valence = _arousal_valence(clues, emotion, readout)
    return Caption(
        text=best.text,
        language=language,
        duration_s=speech.duration_s,
        evidence=judge(clues, speech.judged_facts) if evidence else (),
        emotion=emotion,
        arousal=arousal,
        valence=valence,
        gender=shown_gender(speech.judged_facts),
        pitch=measured.pitch,
        loudness=measured.loudness,
        pace=measured.pace,
        confidence=emotion.get(emotion_of(clues) or heard.first, 0.0),
        log_probability=best.hypothesis.mean_log_probability,
        model=model,
        candidates=tuple(dict.fromkeys(one.text for one in ranked))[1:candidates],
        part_s=speech.part_s,
        certainty=heard.certainty,
        second_emotion=heard.second,
        unfamiliar=_is_unfamiliar(readout),
        baseline=speech.baseline,
        facts=speech.facts,
    )


def _arousal_valence(
    clues: Sequence[Clue], emotion: Mapping[str, float], readout: Readout
) -> tuple[float | None, float | None]:
    """The arousal that is read from the voice, and the valence expected under the probabilities of
    its emotions, each at its place in the circumplex (`meanings.toml`); where no arousal is read,
    what the caption's words amount to."""
    level = readout.get("arousal", {}).get("level")
    if level is None:
        return arousal_valence(clues)
    pleasant = {name: meanings()["emotion", name].valence or 0.0 for name in emotion}
    valence = sum(pleasant[name] * share for name, share in emotion.items())
    return min(1.0, max(-1.0, level)), valence


def _is_unfamiliar(readout: Readout) -> bool | None:
    score = readout.get("novelty", {}).get("score")
    return None if score is None else score >= UNFAMILIAR_FROM


def _wordless_caption(
    speech: PreparedSpeech, vocalization: str, *, language: str, model: str
) -> Caption:
    """The record of a sound without words: nothing is said of an emotion or of how one speaks."""
    readout = speech.tokens.readout
    probability = readout["vocalization"][vocalization]
    return Caption(
        text=wordless_text(vocalization, language),
        language=language,
        duration_s=speech.duration_s,
        evidence=(),
        emotion={},
        arousal=None,
        valence=None,
        gender=None,
        pitch=None,
        loudness=None,
        pace=None,
        confidence=probability,
        log_probability=0.0,
        model=model,
        part_s=speech.part_s,
        certainty=certainty_of(probability),
        vocalization=vocalization,
        unfamiliar=_is_unfamiliar(readout),
        baseline=speech.baseline,
        facts=speech.facts,
    )
