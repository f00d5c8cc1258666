"""What the signal says of captions: verdicts counted, and the reward that follows from them."""

from collections import Counter
from collections.abc import Sequence

from aligncap.clues import emotion_of, find_clues, judge, measured_clues
from aligncap.preference.rewards import RewardOf, RewardSettings
from aligncap.preference.rows import PreferenceRow
from aligncap.values import Facts, Verdict


def verdicts(text: str, *, language: str, facts: Facts) -> Counter[Verdict]:
    """How many clues of a caption the facts support, contradict, and cannot tell of."""
    return Counter(one.verdict for one in judge(find_clues(text, language), facts))


def evidence_reward(row: PreferenceRow, texts: Sequence[str]) -> list[float]:
    """How well each caption agrees with what is known of the clip.

    1 for naming the labelled emotion and -1 for naming another; the share of the measured clues
    that it says, less one for each clue that the signal contradicts. Saying nothing earns nothing.
    """
    return [_score(row, text) for text in texts]


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward "evidence"."""
    del settings
    return evidence_reward


def _score(row: PreferenceRow, text: str) -> float:
    score = 0.0
    named = emotion_of(find_clues(text, row.language))
    if named is not None and row.emotion is not None:
        score += 1.0 if named == row.emotion else -1.0
    if row.facts is not None:
        found = verdicts(text, language=row.language, facts=row.facts)
        could = max(1, len(measured_clues(row.facts)))
        score += min(1.0, found[Verdict.SUPPORTED] / could) - found[Verdict.CONTRADICTED]
    return score
