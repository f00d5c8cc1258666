"""A language model as judge: AES_c and AES_s of captions, P_score of candidates.

    with open_judge(JudgeSettings(url="http://localhost:8000/v1", model="some-model")) as judge:
        metric = open_metric("aes-c", MetricOptions(judge=judge))

The model is behind any OpenAI-compatible server or on this machine. Every reply is kept, so that
nothing is asked twice: a run that was killed goes on, and scoring again costs nothing.
"""

from aligncap.scoring.judge.asking import Judge, Question
from aligncap.scoring.judge.candidates import (
    CandidateScore,
    CandidateSet,
    score_candidate_sets,
    score_candidates,
)
from aligncap.scoring.judge.chat import ChatModel, Reply
from aligncap.scoring.judge.opening import open_judge
from aligncap.scoring.judge.report import Failure, JudgeReport
from aligncap.scoring.judge.settings import JudgeSettings

__all__ = [
    "CandidateScore",
    "CandidateSet",
    "ChatModel",
    "Failure",
    "Judge",
    "JudgeReport",
    "JudgeSettings",
    "Question",
    "Reply",
    "open_judge",
    "score_candidate_sets",
    "score_candidates",
]
