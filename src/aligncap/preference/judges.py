"""The table of judges, what they may need, and how the judgements of several become one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby, islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap.errors import RecipeError, UnknownNameError
from aligncap.preference.annotations import Annotation
from aligncap.preference.evidence_judge import EvidenceJudge, EvidenceWeights
from aligncap.preference.store import Group, PreferenceStore
from aligncap.preference.values import Candidate, Judge, Judgement

if TYPE_CHECKING:
    from aligncap.scoring.judge import JudgeSettings

JUDGES: Mapping[str, str] = MappingProxyType(
    {"evidence": "evidence_judge", "llm": "llm_judge", "human": "human_judge"}
)
"""Name → module of this part; all but the first have `open_judge(options)` and are imported when
they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """What judges may need; each takes what concerns it."""

    weights: EvidenceWeights = field(default_factory=EvidenceWeights)
    """Of the evidence judge."""
    annotations: tuple[Annotation, ...] = ()
    """What people chose, for the human judge."""
    model: "JudgeSettings | None" = None
    """The language model of the llm judge."""


def open_judge(name: str, options: JudgeOptions) -> Judge:
    """The judge of that name. Raises UnknownNameError, or DataError where it lacks something."""
    if name not in JUDGES:
        raise UnknownNameError("judge", name, JUDGES)
    if name == "evidence":
        return EvidenceJudge(options.weights)
    judge: Judge = import_module(f"aligncap.preference.{JUDGES[name]}").open_judge(options)
    return judge


def judge_all(store: PreferenceStore, judge: Judge) -> Iterator[int]:
    """Let a judge judge every candidate of a store that it has not judged yet.

    Gives, for each clip, the number of its new judgements once they are in the store: those of
    `judge.at_once` clips are one transaction.
    """
    store.begin_judging(judge)
    for _, groups in groupby(store.groups(), key=lambda group: group[1]):
        while batch := list(islice(groups, judge.at_once)):
            asked = [(group[0], _unjudged(store, judge, group)) for group in batch]
            found = iter(judge.judge([one for one in asked if one[1]]))
            each = [next(found) if candidates else [] for _, candidates in asked]
            store.add_judgements([one for judgements in each for one in judgements])
            yield from map(len, each)


def _unjudged(store: PreferenceStore, judge: Judge, group: Group) -> list[Candidate]:
    """The candidates that lack a judgement; the corpus' caption with them, as a yardstick."""
    clip, language, candidates = group
    known = store.judgements(clip.utterance, language, judge.signature)
    if all(one.key in known for one in candidates):
        return []
    return [one for one in candidates if one.key not in known or one.method == "gold"]


def combined(
    judgements: Mapping[str, Mapping[str, Judgement]], weights: Mapping[str, float]
) -> dict[str, Judgement]:
    """The judgements of several judges as one: the weighted mean of their scores.

    `judgements` are by judge and candidate; a candidate that a judge has not judged has none.
    """
    if not weights or not all(weight > 0 for weight in weights.values()):
        raise RecipeError("judges are combined with weights above 0, at least one")
    names = list(weights)
    total = sum(weights.values())
    found = {}
    for key in judgements[names[0]]:
        each = {name: judgements[name][key] for name in names if key in judgements[name]}
        if len(each) == len(names):
            found[key] = Judgement(
                candidate=key,
                judge="+".join(f"{weights[name]:g}*{each[name].judge}" for name in names),
                score=sum(weights[name] * each[name].score for name in names) / total,
                parts=MappingProxyType({name: each[name].score for name in names}),
                reason="; ".join(each[name].reason for name in names if each[name].reason),
            )
    return found
