"""AES_c and AES_s: how near a caption comes to its references, rated 1 to 10 by a judge (Fig. 6).

AES_c is of the clues (tone, pitch, rhythm, volume, pace), AES_s of the emotional state that they
amount to. The value is the mean rating, on the scale 1-10 as in the paper and not times 100.
"""

from collections.abc import Sequence

import numpy as np

from aligncap.errors import JudgeError, MissingModelError
from aligncap.scoring.judge.asking import Judge, Question
from aligncap.scoring.judge.reading import check_keys, read_object, read_rating, read_text
from aligncap.scoring.judge.replies import settings_hash
from aligncap.scoring.judge.report import Failure
from aligncap.scoring.judge.templates import PromptTemplate, load_template
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.values import Floats, ScoredClip, Statistics

LOWEST, HIGHEST = 1.0, 10.0


class JudgedOverlap:
    """The mean rating of a judge over the clips it could rate.

    A caption that says nothing has the lowest rating, and the judge is not asked. A clip it could
    not rate counts for nothing; `Judge.report` says which and why.
    """

    def __init__(self, name: str, judge: Judge, template: PromptTemplate) -> None:
        self.name = name
        self._judge, self._template = judge, template

    @property
    def variant(self) -> str:
        """The judging model, the prompt's and the settings' hashes, and the scale."""
        model = "_".join(self._judge.model.name.replace("|", "_").split())
        _, _, language = self._template.name.rpartition(".")
        return (
            f"{self.name}|judge:{model}|prompt:{language}-{self._template.hash}"
            f"|settings:{settings_hash(self._judge.model.settings)}|scale:1-10"
        )

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """Of each clip its rating and 1, or twice 0 where the judge could not rate it.

        Raises JudgeError where it could rate none, or cannot be asked.
        """
        questions = [self._question(clip) for clip in clips if clip.hypothesis.strip()]
        answers = self._judge.ask(questions)
        ratings = iter(answers)
        rows = [_row(next(ratings)) if clip.hypothesis.strip() else (LOWEST, 1.0) for clip in clips]
        statistics = Statistics(np.array(rows).reshape(-1, 2), mean_rating, scale=1.0)
        if not statistics.per_clip[:, 1].any():
            reason = self._judge.report.failures[-1].reason
            raise JudgeError(
                f"{self.name}: judge {self._judge.model.name} could rate none of {len(clips)} "
                f"clips ({reason}); try another model or a larger max_tokens"
            )
        return statistics

    def _question(self, clip: ScoredClip) -> Question[float]:
        prompt = self._template.filled(
            references=list(clip.references), prediction=clip.hypothesis.strip()
        )
        return Question(clip.id, prompt, read_overlap)


def mean_rating(sums: Floats) -> Floats:
    """Sums of (rating, rated), shape [..., 2], to mean ratings; NaN where nothing was rated."""
    ratings, rated = sums[..., 0], sums[..., 1]
    nothing = np.full_like(ratings, np.nan)
    return np.asarray(np.divide(ratings, rated, out=nothing, where=rated > 0))


def read_overlap(reply: str) -> float:
    """The rating in a reply of AES_c or AES_s; its reason must be there, and stays in the cache."""
    table = read_object(reply)
    check_keys(table, ("reason", "score"))
    read_text(table, "reason")
    return read_rating(table, "score", low=LOWEST, high=HIGHEST)


def open_metric(name: str, options: MetricOptions) -> JudgedOverlap:
    """AES_c or AES_s by the judge of the options; MissingModelError where they have none."""
    if options.judge is None:
        raise MissingModelError(
            f"{name} is rated by a language model, and none is named: give --judge-url and "
            "--judge-model for a server, or --judge-model alone for a model of this machine"
        )
    template = load_template(name, options.language, options.judge.prompts)
    return JudgedOverlap(name, options.judge, template)


def _row(rating: float | Failure) -> Sequence[float]:
    return (0.0, 0.0) if isinstance(rating, Failure) else (rating, 1.0)
