"""The human judge: what people chose on the annotation page, as scores.

A candidate's score is (wins - losses) / comparisons, a tie being neither, over all people and all
of its pairs: 1 where it always won. A candidate that nobody compared has no judgement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap.errors import DataError
from aligncap.preference.annotations import Annotation
from aligncap.preference.values import Asked, Candidate, Judgement, digest

if TYPE_CHECKING:
    from aligncap.preference.judges import JudgeOptions


@dataclass(frozen=True, slots=True)
class HumanJudge:
    """Judges by annotations."""

    annotations: tuple[Annotation, ...]
    name: str = "human"
    at_once: int = 1

    @property
    def signature(self) -> str:
        """How many people and choices, and a hash of the choices."""
        choices = sorted(
            (*one.pair, one.annotator, one.choice, one.first) for one in self.annotations
        )
        people = len({one.annotator for one in self.annotations})
        return f"human|people:{people}|choices:{len(choices)}|{digest(choices)}"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`."""
        return [self._judge(candidates) for _, candidates in asked]

    def close(self) -> None:
        """As `Judge`: it holds nothing open."""

    def _judge(self, candidates: Sequence[Candidate]) -> list[Judgement]:
        tallies = {one.key: [0, 0, 0] for one in candidates}
        for annotation in self.annotations:
            if annotation.value is None:
                continue
            for key, value in zip(
                annotation.pair, (annotation.value, -annotation.value), strict=True
            ):
                if key in tallies:
                    tallies[key][1 - value] += 1
        return [self._judgement(key, *tally) for key, tally in tallies.items() if any(tally)]

    def _judgement(self, key: str, won: int, tied: int, lost: int) -> Judgement:
        compared = won + tied + lost
        return Judgement(
            candidate=key,
            judge=self.signature,
            score=(won - lost) / compared,
            parts=MappingProxyType({"won": float(won), "tied": float(tied), "lost": float(lost)}),
            reason=f"preferred {won} times in {compared}, {tied} ties",
        )


def open_judge(options: "JudgeOptions") -> HumanJudge:
    """The human judge; DataError where nobody has chosen anything."""
    if not any(one.value is not None for one in options.annotations):
        raise DataError("nobody has judged a pair yet; run: aligncap prefer annotate")
    return HumanJudge(tuple(options.annotations))
