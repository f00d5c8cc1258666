"""The llm judge: P_score (Fig. 5) by a language model, which sees all candidates of a clip at once.

It reads, it does not listen: beside the instruction it is shown what people say of the clip or,
where nobody has captioned it, the caption written from the corpus' labels. The score is P_score
over its best, 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap import __version__
from aligncap.captioner.prompts import INSTRUCTIONS
from aligncap.errors import JudgeError, RecipeError
from aligncap.preference.values import Asked, Candidate, Clip, Judgement
from aligncap.scoring.judge import CandidateScore, CandidateSet, Failure, score_candidate_sets
from aligncap.scoring.judge import Judge as Asker
from aligncap.scoring.judge import open_judge as open_asker
from aligncap.scoring.judge.candidates import BEST, CONTRADICTION_PENALTY, RATINGS
from aligncap.scoring.judge.replies import settings_hash
from aligncap.scoring.judge.templates import load_template
from aligncap.values import LANGUAGES

if TYPE_CHECKING:
    from aligncap.preference.judges import JudgeOptions

LOG = getLogger(__name__)

AT_ONCE = 16
"""Clips whose candidates are asked about together, so that several questions are under way."""


@dataclass(frozen=True, slots=True)
class LlmJudge:
    """Judges by asking a language model."""

    asker: Asker
    name: str = "llm"
    at_once: int = AT_ONCE

    @property
    def signature(self) -> str:
        """The model, its settings, the prompts and the penalty."""
        model = "_".join(self.asker.model.name.replace("|", "_").split())
        prompts = ",".join(
            f"{one}-{load_template('p-score', one, self.asker.prompts).hash}" for one in LANGUAGES
        )
        settings = settings_hash(self.asker.model.settings)
        return (
            f"llm|judge:{model}|settings:{settings}|prompts:{prompts}"
            f"|penalty:{CONTRADICTION_PENALTY:g}|v{__version__}"
        )

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`; a clip that the model cannot rate has no judgement and is warned of.

        Raises JudgeError where the model cannot be asked, or can rate none of the clips.
        """
        if not asked:
            return []
        language = asked[0][1][0].language
        sets = [_set_of(*one, language=language) for one in asked]
        found = score_candidate_sets(self.asker, sets, language=language)
        failures = [one for one in found if isinstance(one, Failure)]
        for one in failures:
            LOG.warning("%s: could not be judged: %s", one.id, one.reason)
        if len(failures) == len(sets):
            raise JudgeError(
                f"judge {self.asker.model.name} could rate none of {len(sets)} clips "
                f"({failures[0].reason}); try another model"
            )
        signature = self.signature
        return [
            []
            if isinstance(scores, Failure)
            else [_judgement(*both, signature) for both in zip(candidates, scores, strict=True)]
            for (_, candidates), scores in zip(asked, found, strict=True)
        ]

    def close(self) -> None:
        """Let go of the kept replies."""
        self.asker.close()


def _judgement(candidate: Candidate, score: CandidateScore, signature: str) -> Judgement:
    parts = {rating: getattr(score, rating) / BEST for rating in RATINGS}
    wrong = {"contradicted": score.contradicted, "unsupported": score.unsupported}
    return Judgement(
        candidate=candidate.key,
        judge=signature,
        score=score.value / BEST,
        parts=MappingProxyType(parts | {name: float(len(clues)) for name, clues in wrong.items()}),
        reason="; ".join(f"{name}: {', '.join(clues)}" for name, clues in wrong.items() if clues),
    )


def _set_of(clip: Clip, candidates: Sequence[Candidate], *, language: str) -> CandidateSet:
    gold = tuple(one.text for one in candidates if one.method == "gold")
    return CandidateSet(
        id=clip.utterance,
        instruction=INSTRUCTIONS[language].strip(),
        candidates=tuple(one.text for one in candidates),
        references=clip.references.get(language) or gold,
    )


def open_judge(options: "JudgeOptions") -> LlmJudge:
    """The llm judge; RecipeError where no language model is named."""
    if options.model is None:
        raise RecipeError("the llm judge needs a model; give --judge-model, and --judge-url")
    return LlmJudge(open_asker(options.model))
