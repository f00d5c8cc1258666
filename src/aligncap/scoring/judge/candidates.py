"""P_score: several captions of one clip, rated beside each other by a judge (Fig. 5).

The judge sees them under names that say nothing, in an order that depends on their text alone: it
cannot know which came first, and the same candidates are the same prompt, whatever their order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from aligncap.errors import DataError
from aligncap.scoring.judge.asking import Judge, Question
from aligncap.scoring.judge.reading import (
    check_keys,
    read_object,
    read_rating,
    read_table,
    read_texts,
)
from aligncap.scoring.judge.report import Failure
from aligncap.scoring.judge.templates import PromptTemplate, load_template
from aligncap.storage import hash_of

RATINGS = ("richness", "consistency", "fluency", "adherence")
CLUES = ("contradicted", "unsupported")
BEST = 10.0

CONTRADICTION_PENALTY = 1.0
"""Points taken off for each contradicted clue; the paper gives no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The captions of one clip that are to be rated beside each other."""

    id: str
    instruction: str
    """What the captioner was asked to do."""
    candidates: tuple[str, ...]
    references: tuple[str, ...] = ()
    """May be none: then the candidates are judged by themselves."""

    def __post_init__(self) -> None:
        if not self.candidates:
            raise DataError(f"{self.id}: has no candidate to rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScore:
    """What a judge says of one candidate: four ratings from 0 to 10, and clues it holds wrong."""

    caption: str
    richness: float
    consistency: float
    """With the emotion of the references."""
    fluency: float
    """Rationality and fluency."""
    adherence: float
    """To the instruction."""
    contradicted: tuple[str, ...]
    """Clues that the references deny."""
    unsupported: tuple[str, ...]
    """Clues that the references do not have; they cost nothing."""
    penalty: float = CONTRADICTION_PENALTY

    def __post_init__(self) -> None:
        for name in RATINGS:
            if not 0.0 <= getattr(self, name) <= BEST:
                raise DataError(f"{name} is {getattr(self, name)}, must be 0 to {BEST:g}")

    @property
    def value(self) -> float:
        """P_score: the mean of the four ratings less the penalty for each contradicted clue."""
        mean = (self.richness + self.consistency + self.fluency + self.adherence) / 4
        return mean - self.penalty * len(self.contradicted)


def score_candidates(
    judge: Judge,
    candidates: Sequence[str],
    *,
    instruction: str,
    references: Sequence[str] = (),
    language: str = "en",
    penalty: float = CONTRADICTION_PENALTY,
) -> tuple[CandidateScore, ...]:
    """The scores of one clip's candidates, in their order; DataError where there are none."""
    one = CandidateSet(
        id="candidates",
        instruction=instruction,
        candidates=tuple(candidates),
        references=tuple(references),
    )
    (scores,) = score_candidate_sets(judge, [one], language=language, penalty=penalty)
    if isinstance(scores, Failure):
        raise DataError(f"judge {judge.model.name} could not rate them: {scores.reason}")
    return scores


def score_candidate_sets(
    judge: Judge,
    sets: Sequence[CandidateSet],
    *,
    language: str = "en",
    penalty: float = CONTRADICTION_PENALTY,
) -> list[tuple[CandidateScore, ...] | Failure]:
    """The scores of many clips' candidates, asked for together; of each clip, in their order.

    Equal captions of a clip are shown once and share their score.
    """
    template = load_template("p-score", language, judge.prompts)
    found = judge.ask([_question(one, template, penalty) for one in sets])
    return [
        scores
        if isinstance(scores, Failure)
        else tuple(scores[caption] for caption in one.candidates)
        for one, scores in zip(sets, found, strict=True)
    ]


def read_candidates(
    reply: str, named: Mapping[str, str], *, penalty: float
) -> dict[str, CandidateScore]:
    """The score of each caption, from a reply about captions under these names."""
    table = read_object(reply)
    check_keys(table, named)
    scores = {}
    for name, caption in named.items():
        row = read_table(table, name)
        check_keys(row, (*RATINGS, *CLUES), of=name)
        scores[caption] = CandidateScore(
            caption=caption,
            penalty=penalty,
            **{rating: read_rating(row, rating, low=0.0, high=BEST) for rating in RATINGS},
            contradicted=read_texts(row, "contradicted"),
            unsupported=read_texts(row, "unsupported"),
        )
    return scores


def _question(
    one: CandidateSet, template: PromptTemplate, penalty: float
) -> Question[dict[str, CandidateScore]]:
    captions = _shuffled(one)
    named = {f"C{number}": caption for number, caption in enumerate(captions, start=1)}
    prompt = template.filled(
        instruction=one.instruction, references=list(one.references), candidates=named
    )
    return Question(one.id, prompt, partial(read_candidates, named=named, penalty=penalty))


def _shuffled(one: CandidateSet) -> list[str]:
    """The different captions, in an order of the clip's own that no run changes."""
    # Sorted references: whoever lists them otherwise asks about the same clip.
    clip = [one.instruction, sorted(one.references)]

    def place(caption: str) -> str:
        return hash_of(json.dumps([clip, caption]))

    return sorted(set(one.candidates), key=place)
