"""The judges (decision 11): opened by name, combined by weight, and how far they agree.

"evidence" checks what a caption claims against what is known of the clip. Known is what the corpus
labels (emotion, gender), what the signal clearly shows and, where people have captioned the clip,
what they say (`clues.evidence`). With the weights of `EvidenceWeights`,

    score = (said - contradicted C - invented I - untold U - wrong_emotion W - repeated R) / known

    known    what there is to say: 1 for each claim, `emotion` for one of an emotion, `middle` for
             one in the middle of its scale ("normal"); at least 1. A labelled gender is among it
             where the signal shows it too: what cannot be heard need not be said
    said     the same over those of them that the caption says
    C I U W  claims that are contradicted, unsupported by the references, unverifiable, and of
             another emotion
    R        how often a claim of how the voice sounds is made that the caption has made before

A caption that says all and nothing wrong has 1, one that claims nothing has 0: saying less is no
way to a better score, and saying it twice neither. A rightly denied claim ("not loud") costs
nothing and says nothing.

"llm" is P_score (Fig. 5) by a language model, which sees
all candidates of a clip at once: it does not listen, but is shown what people say of the clip or,
where nobody has captioned it, the caption written from the corpus' labels; the score is P_score
over its best, 10. "human" is what people chose on the annotation page: (wins - losses) /
comparisons over all people and pairs of a candidate, a tie being neither.

Agreement is Kendall's tau-b between judges, Krippendorff's alpha among people, and a judge's
accuracy against people's choices; NaN where nothing can be said, such as of constant scores.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import groupby, islice
from logging import getLogger
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from aligncap import __version__
from aligncap.captioner.prompts import INSTRUCTIONS
from aligncap.clues import evidence, find_clues
from aligncap.errors import DataError, JudgeError, MissingModelError, RecipeError, UnknownNameError
from aligncap.metrics import aes
from aligncap.metrics.judge import JudgeClient, JudgeFailure, open_judge_client, settings_hash
from aligncap.metrics.scores import signature_text
from aligncap.preference.store import (
    Annotation,
    Candidate,
    Clip,
    Group,
    Judgement,
    PreferenceStore,
    digest,
)
from aligncap.recipes import recipe_section
from aligncap.values import LANGUAGES

if TYPE_CHECKING:
    from aligncap.metrics.judge import JudgeSettings


Asked = tuple[Clip, Sequence[Candidate]]
"""A clip and candidates of it in one language that are to be judged together."""


class Judge(Protocol):
    """Scores captions of a clip."""

    @property
    def name(self) -> str:
        """ "evidence", "llm" or "human"."""

    @property
    def signature(self) -> str:
        """Everything its scores depend on besides the clip: weights, vocabulary, model, version."""

    @property
    def batch_size(self) -> int:
        """Clips of one call of `judge`, whose judgements are stored together."""

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """Judgements of the candidates of each clip, all of one language; some may be left out."""

    def close(self) -> None:
        """Close what it has open."""


Weight = Annotated[float, Field(ge=0, lt=inf)]


@recipe_section
class EvidenceWeights:
    """What claims are worth and what they cost, in units of one clear fact that is said."""

    contradicted: Weight = 1.5
    """More than a fact is worth, so that a guess does not pay."""
    invented: Weight = 0.5
    """A claim that no reference makes, where people have captioned the clip."""
    untold: Weight = 0.1
    """A claim that can be checked against nothing."""
    emotion: Weight = 2.0
    """The right emotion; it names the state itself."""
    wrong_emotion: Weight = 2.0
    middle: Weight = 0.25
    """A fact in the middle of its scale ("normal"): true of most clips, so it says little."""
    repeated: Weight = 0.25
    """"A low voice with a low pitch" says one thing."""

    def worth(self, trait: str, meaning: str) -> float:
        """What it is worth to say this, where it is so."""
        if trait == "emotion":
            return self.emotion
        return self.middle if meaning == "normal" else 1.0


WEIGHT_OF = MappingProxyType(
    {
        evidence.ClaimStatus.CONTRADICTED: "contradicted",
        evidence.ClaimStatus.UNSUPPORTED: "invented",
        evidence.ClaimStatus.UNVERIFIABLE: "untold",
    }
)
"""Verdict → weight of what it costs, the worst first; also the name of a judgement's part."""

REPEATABLE = ("emotion", "gender")
"""Traits that a sentence comes back to without repeating itself: "calm and collected", "his"."""


@dataclass(frozen=True, slots=True)
class EvidenceJudge:
    """Judges by evidence: offline and deterministic."""

    weights: EvidenceWeights = field(default_factory=EvidenceWeights)
    name: str = "evidence"
    batch_size: int = 1

    @property
    def signature(self) -> str:
        """Weights, and a hash of the clue vocabulary and the version of its rules."""
        weights = ",".join(f"{one:g}" for one in astuple(self.weights))
        return f"evidence|weights:{weights}|clues:{evidence.claims_fingerprint()}|v{__version__}"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`."""
        found = []
        for clip, candidates in asked:
            known = clip.knowledge
            to_say = known.claims()
            found.append([self._judge(one, known, to_say) for one in candidates])
        return found

    def close(self) -> None:
        """As `Judge`: it holds nothing open."""

    def _judge(
        self, candidate: Candidate, known: evidence.ClipKnowledge, to_say: Sequence[tuple[str, str]]
    ) -> Judgement:
        clues = find_clues(candidate.text, candidate.language, repeats=True)
        claims = evidence.claims_of(clues)
        checked = [known.check(clue) for clue in evidence.without_composure(claims).values()]
        right = [
            one.clue
            for one in checked
            if one.status is evidence.ClaimStatus.SUPPORTED and not one.clue.negated
        ]
        # What a caption denies it does not make up.
        wrong = [
            one
            for one in checked
            if one.status is evidence.ClaimStatus.CONTRADICTED
            or (one.status is not evidence.ClaimStatus.SUPPORTED and not one.clue.negated)
        ]
        repeated = sum(one.trait not in REPEATABLE for one in clues)
        repeated -= sum(trait not in REPEATABLE for trait, _, _ in claims)
        counts = dict.fromkeys((*WEIGHT_OF.values(), "wrong_emotion"), 0.0)
        cost = self.weights.repeated * repeated
        for one in wrong:
            of_emotion = (
                one.status is evidence.ClaimStatus.CONTRADICTED and one.clue.trait == "emotion"
            )
            name = "wrong_emotion" if of_emotion else WEIGHT_OF[one.status]
            counts[name] += 1
            cost += getattr(self.weights, name)
        said = {(clue.trait, clue.meaning) for clue in right}
        worth = sum(self.weights.worth(*one) for one in to_say if one in said)
        total = max(1.0, sum(self.weights.worth(*one) for one in to_say))
        unsaid = [o for o in to_say if o not in said and self.weights.worth(*o) >= 1]
        return Judgement(
            candidate=candidate.key,
            judge=self.signature,
            score=(worth - cost) / total,
            parts=MappingProxyType(
                {"said": worth, "known": total, **counts, "repeated": float(repeated)}
            ),
            reason=_reason(wrong, [clue.word for clue in right], unsaid, repeated),
        )


def _reason(
    wrong: Sequence[evidence.CheckedClaim],
    right: Sequence[str],
    unsaid: Sequence[tuple[str, str]],
    repeated: int,
) -> str:
    """In words, the worst first: "says 'slow' but pace 6.1 syllables/s (…); rightly says 'sad'"."""
    order, contradicted = list(WEIGHT_OF), evidence.ClaimStatus.CONTRADICTED
    notes = [
        f"{'denies' if one.clue.negated else 'says'} '{one.clue.word}'"
        f"{' but' if one.status is contradicted else ', unsupported:'} {one.reason}"
        for one in sorted(wrong, key=lambda one: order.index(one.status))
    ]
    words = ", ".join(f"'{word}'" for word in right)
    notes += [f"rightly says {words}"] if right else []
    notes += [f"says {repeated} of it again"] if repeated else []
    left = ", ".join(f"{meaning} ({trait})" for trait, meaning in unsaid)
    notes += [f"leaves out {left}"] if unsaid else []
    return "; ".join(notes) or "claims nothing, and there is nothing to claim"


LOG = getLogger(__name__)

BATCH_SIZE = 16
"""Clips whose candidates are rated concurrently."""


@dataclass(frozen=True, slots=True)
class LlmJudge:
    """Judges by asking a language model."""

    client: JudgeClient
    name: str = "llm"
    batch_size: int = BATCH_SIZE

    @property
    def signature(self) -> str:
        """The model, its settings, the prompts and the penalty."""
        model = signature_text(self.client.model.name)
        prompts = ",".join(
            f"{one}-{aes.load_template('p-score', one, self.client.prompts).hash}"
            for one in LANGUAGES
        )
        settings = settings_hash(self.client.model.settings)
        return (
            f"llm|judge:{model}|settings:{settings}|prompts:{prompts}"
            f"|penalty:{aes.CONTRADICTION_PENALTY:g}|v{__version__}"
        )

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`; a clip that the model cannot rate has no judgement and is warned of.

        Raises JudgeError where the model cannot be asked, or can rate none of the clips.
        """
        if not asked:
            return []
        language = asked[0][1][0].language
        sets = [_set_of(*one, language=language) for one in asked]
        found = aes.score_candidate_sets(self.client, sets, language=language)
        failures = [one for one in found if isinstance(one, JudgeFailure)]
        for one in failures:
            LOG.warning("%s: could not be judged: %s", one.id, one.reason)
        if len(failures) == len(sets):
            raise JudgeError(
                f"judge {self.client.model.name} could rate none of {len(sets)} clips "
                f"({failures[0].reason}); try another model"
            )
        signature = self.signature
        return [
            []
            if isinstance(scores, JudgeFailure)
            else [_judgement(*both, signature) for both in zip(candidates, scores, strict=True)]
            for (_, candidates), scores in zip(asked, found, strict=True)
        ]

    def close(self) -> None:
        """Let go of the kept replies."""
        self.client.close()


def _judgement(candidate: Candidate, score: aes.CandidateScore, signature: str) -> Judgement:
    parts = {rating: getattr(score, rating) / aes.MAX_P_RATING for rating in aes.P_RATINGS}
    wrong = {"contradicted": score.contradicted, "unsupported": score.unsupported}
    return Judgement(
        candidate=candidate.key,
        judge=signature,
        score=score.value / aes.MAX_P_RATING,
        parts=MappingProxyType(parts | {name: float(len(clues)) for name, clues in wrong.items()}),
        reason="; ".join(f"{name}: {', '.join(clues)}" for name, clues in wrong.items() if clues),
    )


def _set_of(clip: Clip, candidates: Sequence[Candidate], *, language: str) -> aes.CandidateSet:
    gold = tuple(one.text for one in candidates if one.method == "gold")
    return aes.CandidateSet(
        id=clip.utterance,
        instruction=INSTRUCTIONS[language].strip(),
        candidates=tuple(one.text for one in candidates),
        references=clip.references.get(language) or gold,
    )


def open_llm_judge(options: "JudgeOptions") -> LlmJudge:
    """The llm judge; RecipeError where no language model is named."""
    if options.model is None:
        raise RecipeError("the llm judge needs a model; give --judge-model, and --judge-url")
    return LlmJudge(open_judge_client(options.model))


@dataclass(frozen=True, slots=True)
class HumanJudge:
    """Judges by annotations."""

    annotations: tuple[Annotation, ...]
    name: str = "human"
    batch_size: int = 1

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


def open_human_judge(options: "JudgeOptions") -> HumanJudge:
    """The human judge; DataError where nobody has chosen anything."""
    if not any(one.value is not None for one in options.annotations):
        raise DataError("nobody has judged a pair yet; run: aligncap prefer annotate")
    return HumanJudge(tuple(options.annotations))


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
    return JUDGES[name](options)


def open_evidence_judge(options: JudgeOptions) -> Judge:
    """The judge that compares claims with the measured signal."""
    return EvidenceJudge(options.weights)


JUDGES: Mapping[str, Callable[[JudgeOptions], Judge]] = MappingProxyType(
    {"evidence": open_evidence_judge, "llm": open_llm_judge, "human": open_human_judge}
)
"""Name → the function that opens the judge."""


def judge_all(store: PreferenceStore, judge: Judge) -> Iterator[int]:
    """Let a judge judge every candidate of a store that it has not judged yet.

    Gives, for each clip, the number of its new judgements once they are in the store: those of
    `judge.batch_size` clips are one transaction.
    """
    store.begin_judging(judge.name, judge.signature)
    for _, groups in groupby(store.groups(), key=lambda group: group[1]):
        while batch := list(islice(groups, judge.batch_size)):
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


def kendall_tau_b(clips: Iterable[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Kendall's tau-b (Kendall, 1945) between two judges' scores of the candidates of each clip.

    Over all pairs of candidates of one clip, as pairs of two clips are never made: the sum of
    sign(a_i - a_j) sign(b_i - b_j), over its largest value without ties of both judges.
    """
    signs = [np.zeros((2, 0))]
    for pair in clips:
        first, second = np.asarray(pair, np.float64)
        upper = np.triu_indices(len(first), k=1)
        orders = [np.sign(np.subtract.outer(one, one))[upper] for one in (first, second)]
        signs.append(np.array(orders))
    a, b = np.concatenate(signs, axis=1)
    scale = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / scale if scale else math.nan


def krippendorff_alpha(
    ratings: Sequence[Sequence[float | None]], level: Literal["nominal", "ordinal"]
) -> float:
    """Krippendorff's alpha, 1 - observed / expected disagreement (Krippendorff, 2011).

    `ratings` are one row a rater and one column a unit, None where a rater did not rate it. Units
    that fewer than two rated say nothing. 1 is agreement in all, 0 that of chance.
    """
    table = np.array(ratings, dtype=np.float64, ndmin=2)
    table = table[:, np.isfinite(table).sum(axis=0) > 1]
    if len(np.unique(table[np.isfinite(table)])) < 2:
        return math.nan
    try:
        from krippendorff import alpha
    except ModuleNotFoundError as error:
        raise MissingModelError(
            "the agreement of people needs krippendorff, which is not installed; "
            "run: pip install 'aligncap[serve]'"
        ) from error
    return float(alpha(table, level_of_measurement=level))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a judge prefers what a person preferred."""

    value: float
    """A judge's tie counts half; NaN where nothing was compared."""
    compared: int
    """Choices that were no tie or skip, of candidates that the judge has judged."""


def accuracy_against(choices: Iterable[Annotation], scores: Mapping[str, float]) -> Accuracy:
    """The share of people's preferences that a judge's scores (by candidate) share."""
    right = compared = 0.0
    for choice in choices:
        first, second = choice.pair
        if choice.value and first in scores and second in scores:
            compared += 1
            sign = np.sign(scores[first] - scores[second])
            right += 0.5 if sign == 0 else float(sign == choice.value)
    return Accuracy(right / compared if compared else math.nan, int(compared))


def ratings_of(choices: Iterable[Annotation]) -> list[list[float | None]]:
    """People's choices as ratings: a row a person, a column for each pair that anybody judged."""
    values: dict[str, dict[tuple[str, str], int]] = {}
    for choice in choices:
        if choice.value is not None:
            values.setdefault(choice.annotator, {})[choice.pair] = choice.value
    pairs = sorted({pair for row in values.values() for pair in row})
    return [[row.get(pair) for pair in pairs] for _, row in sorted(values.items())]
