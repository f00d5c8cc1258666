"""Which of a model's wordings is told: what the model, the tokenizer's heads and the signal say.

A beam search ranks by the language model alone. Beside it stand two witnesses that cost nothing:
the heads, which heard the emotion without a detour over words, and the measured facts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aligncap.captioner.listening import Utterance
from aligncap.captioner.runtime import Hypothesis
from aligncap.clues import emotion_of, find_clues, judge
from aligncap.values import Verdict

HEADS_WEIGHT = 0.1
"""What the log-probability of the emotion named counts beside the mean one of the tokens."""
CONTRADICTED_COST = 0.1
"""Of each claim that the signal contradicts, in nats a token."""
LEAST = 0.01
"""Probability of an emotion that the heads all but exclude, and of naming none."""


@dataclass(frozen=True, slots=True)
class Wording:
    """One caption the model gives, and what it thinks of it."""

    text: str
    hypothesis: Hypothesis


def most_credible_first(
    wordings: Sequence[Wording], utterance: Utterance, *, language: str
) -> list[Wording]:
    """The wordings by mean log-probability, what the heads think of the emotion they name, and
    the claims that the signal contradicts; equally credible ones stay in their order."""
    emotions = utterance.tokens.readout.get("emotion", {})

    def credibility(wording: Wording) -> float:
        clues = find_clues(wording.text, language)
        verdicts = [evidence.verdict for evidence in judge(clues, utterance.facts)]
        return (
            wording.hypothesis.mean_log_probability
            + HEADS_WEIGHT * log_chance(emotions, emotion_of(clues))
            - CONTRADICTED_COST * verdicts.count(Verdict.CONTRADICTED)
        )

    return sorted(wordings, key=credibility, reverse=True)


def log_chance(emotions: Mapping[str, float], named: str | None) -> float:
    """The log-probability that the heads give an emotion; 0 where there are no heads."""
    if not emotions:
        return 0.0
    return math.log(max(emotions.get(named or "", 0.0), LEAST))
