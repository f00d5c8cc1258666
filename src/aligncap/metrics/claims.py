"""Metrics of the claims that captions make of a voice: precision, recall and F1 of clues, emotion
recall, and hallucination.

A claim is a trait, a meaning and whether it is denied ("not loud" is not "loud"), in English or
Chinese (`clues.evidence`). Claims are counted over all clips (micro average), so a clip weighs as
much as it has claims.

Precision, recall and F1 stand in for SPICE, which reads English scenes. With several references, a
claim is correct if any of them makes it, and the claims to recall are those of the reference
nearest to the caption: no caption can make the claims of all of them.

Emotion recall is the mean over emotions of the share of clips whose caption names theirs. The
emotion of a clip is the one its references file gives it, else the one that most of its references
name first, of several the first in the order of `values.EMOTIONS`. A clip without is not counted,
and one with an unknown label is left out.

Hallucination is the share of claims that the references, or the signal, do not support. Against
the references a claim is wrong where it is *contradicted*: one of them makes the opposite claim
(another emotion), or denies it, and none makes it; or *invented*: none makes or denies it. Against
the signal it is wrong where `clues.judge` contradicts it. Each rate can be asked for by trait:
"hallucination/pitch", "hallucination-signal/voice-quality".
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.clues import emotion_of, judge
from aligncap.clues.evidence import Claim, ClaimStatus, check_by_references
from aligncap.errors import AlignCapError, DataError
from aligncap.metrics import scores
from aligncap.values import EMOTIONS, Evidence, Verdict


@dataclass(frozen=True, slots=True)
class ClaimMetric:
    """A metric whose statistics are a row of each clip alone."""

    name: str
    variant: str
    row_of: Callable[[scores.ScoredClip], Sequence[float] | scores.Floats]
    value_of: Callable[[scores.Floats], scores.Floats]

    def measure(self, clips: list[scores.ScoredClip]) -> scores.Statistics:
        """As `Metric`; clips of which `row_of` raises an AlignCapError are left out."""
        rows: list[Sequence[float] | scores.Floats | None] = []
        left_out: dict[str, str] = {}
        for clip in clips:
            try:
                rows.append(self.row_of(clip))
            except AlignCapError as error:
                rows.append(None)
                left_out[clip.id] = str(error)
        width = next((len(row) for row in rows if row is not None), 0)
        table = np.array([np.zeros(width) if row is None else row for row in rows], float)
        value_of = self.value_of if width else lambda sums: np.full(sums.shape[:-1], np.nan)
        return scores.Statistics(table, value_of, left_out=left_out)


def open_clue_score(name: str, options: scores.MetricOptions) -> ClaimMetric:
    """`clue-precision`, `clue-recall` or `clue-f1`."""

    def row_of(clip: scores.ScoredClip) -> tuple[int, int, int, int]:
        made = options.claims.claims(clip.hypothesis, options.language)
        references = [options.claims.claims(text, options.language) for text in clip.references]
        return count_claims(made, references)

    value_of = {"clue-precision": precision, "clue-recall": recall, "clue-f1": f1}[name]
    return ClaimMetric(name, f"{name}:micro+nearest|lang:{options.language}", row_of, value_of)


def count_claims(
    made: Collection[Claim], references: Sequence[Collection[Claim]]
) -> tuple[int, int, int, int]:
    """For one clip the claims that are correct, those made, those of the nearest reference that are
    recalled, and those it has; no collection holds a claim twice."""
    correct = sum(any(claim in claims for claims in references) for claim in made)
    nearest = nearest_reference(made, references)
    return correct, len(made), sum(claim in made for claim in nearest), len(nearest)


def nearest_reference(
    made: Collection[Claim], references: Sequence[Collection[Claim]]
) -> Collection[Claim]:
    """The claims of the reference of which most are made too; of several, of the one that has
    fewest others. Where nothing matches, of the one that claims most."""

    def nearness(claims: Collection[Claim]) -> tuple[int, int]:
        recalled = sum(claim in made for claim in claims)
        return recalled, -len(claims) if recalled else len(claims)

    return max(references, key=nearness)


def precision(sums: scores.Floats) -> scores.Floats:
    """Correct claims over claims made; sums of `count_claims`, shape [..., 4] → [...].

    0 where nothing is claimed though the references claim something, NaN where they do not.
    """
    correct, made, _, wanted = np.moveaxis(sums, -1, 0)
    without = np.where(wanted > 0, 0.0, np.nan)
    return np.where(made > 0, correct / np.maximum(made, 1), without)


def recall(sums: scores.Floats) -> scores.Floats:
    """Recalled claims over those of the nearest references; sums of `count_claims`, shape
    [..., 4] → [...]. NaN where the references claim nothing.
    """
    _, _, recalled, wanted = np.moveaxis(sums, -1, 0)
    return np.where(wanted > 0, recalled / np.maximum(wanted, 1), np.nan)


def f1(sums: scores.Floats) -> scores.Floats:
    """The harmonic mean of precision and recall; sums of `count_claims`, shape [..., 4] → [...].

    0 where one side claims nothing, NaN where both do.
    """
    p, r = precision(sums), np.nan_to_num(recall(sums))
    without = np.where(np.isnan(p), np.nan, 0.0)
    return np.where(p + r > 0, 2 * p * r / np.where(p + r > 0, p + r, 1.0), without)


def open_emotion_recall(name: str, options: scores.MetricOptions) -> ClaimMetric:
    """`emotion-recall`."""

    def named(text: str) -> str | None:
        return emotion_of(options.claims.claims(text, options.language).values())

    def row_of(clip: scores.ScoredClip) -> scores.Floats:
        truth = clip.emotion
        if truth is not None and truth not in EMOTIONS:
            raise DataError(f"its emotion is {truth!r}, none of {', '.join(EMOTIONS)}")
        if truth is None:
            votes = Counter(filter(None, map(named, clip.references)))
            truth = max(EMOTIONS, key=lambda emotion: votes[emotion]) if votes else None
        return recall_row(truth, named(clip.hypothesis), EMOTIONS)

    return ClaimMetric(name, f"{name}:macro|lang:{options.language}", row_of, mean_recall)


def macro_recall(truth: Sequence[str], named: Sequence[str | None]) -> float:
    """Mean over the classes of `truth` of the share of each that was named right (UAR).

    None counts as wrong. Raises DataError where there is nothing to average.
    """
    if len(truth) != len(named) or not truth:
        raise DataError(f"macro recall of {len(truth)} labels and {len(named)} answers")
    classes = sorted(set(truth))
    rows = [recall_row(one, other, classes) for one, other in zip(truth, named, strict=True)]
    return float(mean_recall(np.sum(rows, axis=0)))


def recall_row(truth: str | None, named: str | None, classes: Sequence[str]) -> scores.Floats:
    """Hits, then clips, each by class, of one clip; zeros without a truth. [2 x classes]"""
    of_class = np.array([truth == one for one in classes], float)
    return np.concatenate([of_class * (truth == named), of_class])


def mean_recall(sums: scores.Floats) -> scores.Floats:
    """Mean over the classes present of hits by clips; sums of shape [..., 2 x classes] → [...].

    NaN where no clip has a class.
    """
    hits, clips = np.split(sums, 2, axis=-1)
    present = (clips > 0).sum(axis=-1)
    total = (hits / np.maximum(clips, 1)).sum(axis=-1)
    return np.where(present > 0, total / np.maximum(present, 1), np.nan)


def open_hallucination(name: str, options: scores.MetricOptions) -> ClaimMetric:
    """`hallucination` or `hallucination-signal`, or one of them by trait."""
    kind, _, part = name.partition("/")
    by_signal = kind == "hallucination-signal"
    traits = [
        one for one in scores.HALLUCINATIONS[kind] if not part or one == part.replace("-", " ")
    ]

    def row_of(clip: scores.ScoredClip) -> tuple[int, int, int]:
        if by_signal:
            checked = evidence_of(clip, options.language, options.claims)
            wrong = [
                one.verdict is Verdict.CONTRADICTED for one in checked if one.clue.trait in traits
            ]
        else:
            references = options.claims.all_claims(clip.references, options.language)
            wrong = [
                check_by_references(claim, references)[0] is not ClaimStatus.SUPPORTED
                for claim in options.claims.claims(clip.hypothesis, options.language)
                if claim[0] in traits
            ]
        return len(wrong), sum(wrong), 1

    counted = "contradicted" if by_signal else "contradicted+invented"
    variant = f"{name}:{counted}|lang:{options.language}"
    return ClaimMetric(name, variant, row_of, wrong_share_of_trait if part else wrong_share)


def evidence_of(
    clip: scores.ScoredClip, language: str, claims: scores.ClaimCache
) -> tuple[Evidence, ...]:
    """The verdict of a clip's recording on each claim of its hypothesis; an AlignCapError where
    there is no recording, or it cannot be measured."""
    return judge(claims.claims(clip.hypothesis, language).values(), claims.facts(clip))


def wrong_share(sums: scores.Floats) -> scores.Floats:
    """Share of claims that are wrong; sums of (claims, wrong, clips), shape [..., 3] → [...].

    0 where nothing is claimed: a caption without claims invents nothing.
    NaN where no clip is counted.
    """
    return np.where(sums[..., 2] > 0, np.nan_to_num(wrong_share_of_trait(sums)), np.nan)


def wrong_share_of_trait(sums: scores.Floats) -> scores.Floats:
    """As `wrong_share`, but NaN where nothing is claimed of that trait."""
    claims, wrong, _ = np.moveaxis(sums, -1, 0)
    return np.where(claims > 0, wrong / np.maximum(claims, 1), np.nan)
