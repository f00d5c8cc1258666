"""What is known of a clip, held against captions: verdicts counted, and the reward of PPO."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from aligncap.clues import find_clues, judge
from aligncap.preference.evidence_judge import EvidenceJudge
from aligncap.preference.rewards import RewardOf, RewardSettings
from aligncap.preference.rows import PreferenceRow
from aligncap.preference.values import Candidate, Clip, normal_form
from aligncap.values import Facts, Verdict

SAYS_NOTHING = -1.0
"""The reward of an empty rollout: worse than a sentence that claims nothing, which has 0."""


def verdicts(text: str, *, language: str, facts: Facts) -> Counter[Verdict]:
    """How many clues of a caption the facts support, contradict, and cannot tell of."""
    return Counter(one.verdict for one in judge(find_clues(text, language), facts))


@dataclass(frozen=True, slots=True)
class EvidenceReward:
    """The score of the evidence judge, as a reward (decision 11)."""

    judge: EvidenceJudge = field(default_factory=EvidenceJudge)

    def __call__(self, row: PreferenceRow, texts: Sequence[str]) -> list[float]:
        """As `RewardOf`."""
        said = [text for text in texts if normal_form(text)]
        name, language = row.clip.id, row.language
        asked = (clip_of_row(row), [Candidate(name, language, text) for text in said])
        (found,) = self.judge.judge([asked])
        scores = {text: one.score for text, one in zip(said, found, strict=True)}
        return [scores.get(text, SAYS_NOTHING) for text in texts]


def clip_of_row(row: PreferenceRow) -> Clip:
    """What a preference row knows of its clip, as judges read it."""
    return Clip(
        utterance=row.clip.id,
        file="",
        facts=row.facts,
        emotion=row.emotion,
        gender=row.gender,
        references=row.references,
    )


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward "evidence"."""
    return EvidenceReward(EvidenceJudge(settings.evidence))
