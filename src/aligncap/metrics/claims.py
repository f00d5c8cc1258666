"""Precision, recall and F1 of typed clues: what captions say of the voice, whatever their words.

A claim is a trait, a meaning and whether it is denied ("not loud" is not "loud"); a caption makes
each claim once, in English or Chinese. It stands in for SPICE, which reads English scenes. With
several references, a claim is right if any of them makes it, and what had to be said is what the
reference nearest to it says: no caption can say what each of them says.

Claims are counted over all clips (micro average), so a clip weighs as much as it has claims.

Emotion recall: how often a caption names the emotion of the clip, class by class.

The emotion of a clip is the one its references file gives it, else the one that most of its
references name first, of several the first in the order of `values.EMOTIONS`. A clip of which
neither says an emotion is not counted.

Hallucination: what captions claim that the references, or the signal, do not bear out.

Against the references a claim is *contradicted* where one of them says the opposite (another
emotion), or denies it, and none says the same; it is *invented* where none speaks of that meaning
at all (`clues.claims`). Against the signal it is contradicted where `clues.judge` says so. Each
rate is over claims of all clips and can be asked for by trait: "hallucination/pitch",
"hallucination-signal/voice-quality".
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.clues import emotion_of, judge
from aligncap.clues.claims import Claim, ClaimStatus, check_by_references
from aligncap.errors import DataError
from aligncap.metrics.scores import Floats, ScoredClip, Statistics
from aligncap.metrics.table import HALLUCINATIONS, ClaimCache, MetricOptions
from aligncap.values import EMOTIONS, Evidence, Verdict

COLUMNS = ("right", "made", "recalled", "wanted")
"""Claims that some reference makes too, of how many; claims recalled of the nearest reference, of
how many."""


def nearest(made: Collection[Claim], references: Sequence[Collection[Claim]]) -> Collection[Claim]:
    """The claims of the reference of which most are made too; of several, of the one that has
    fewest others. Where nothing fits, of the one that claims most."""

    def nearness(wanted: Collection[Claim]) -> tuple[int, int]:
        recalled = sum(claim in made for claim in wanted)
        return recalled, -len(wanted) if recalled else len(wanted)

    return max(references, key=nearness)


def count_claims(
    made: Collection[Claim], references: Sequence[Collection[Claim]]
) -> tuple[int, int, int, int]:
    """The numbers of `COLUMNS` for one clip; no collection holds a claim twice."""
    right = sum(any(claim in wanted for wanted in references) for claim in made)
    wanted = nearest(made, references)
    return right, len(made), sum(claim in made for claim in wanted), len(wanted)


def precision(sums: Floats) -> Floats:
    """Share of the claims made that a reference makes; sums of `COLUMNS`, shape [..., 4] → [...].

    0 where nothing is claimed though there was something to say, NaN where there was not.
    """
    right, made, _, wanted = np.moveaxis(sums, -1, 0)
    silent = np.where(wanted > 0, 0.0, np.nan)
    return np.where(made > 0, right / np.maximum(made, 1), silent)


def recall(sums: Floats) -> Floats:
    """Share of the claims wanted that are made; sums of `COLUMNS`, shape [..., 4] → [...].

    NaN where the references claim nothing.
    """
    _, _, recalled, wanted = np.moveaxis(sums, -1, 0)
    return np.where(wanted > 0, recalled / np.maximum(wanted, 1), np.nan)


def f1(sums: Floats) -> Floats:
    """The harmonic mean of precision and recall; sums of `COLUMNS`, shape [..., 4] → [...].

    0 where one side claims nothing, NaN where both do.
    """
    p, r = precision(sums), np.nan_to_num(recall(sums))
    silent = np.where(np.isnan(p), np.nan, 0.0)
    return np.where(p + r > 0, 2 * p * r / np.where(p + r > 0, p + r, 1.0), silent)


VALUES = {"clue-precision": precision, "clue-recall": recall, "clue-f1": f1}


@dataclass(frozen=True, slots=True)
class ClueScore:
    """Precision, recall or F1 of the clues in one language."""

    name: str
    language: str
    findings: ClaimCache

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:micro+nearest|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        rows = np.array([self._row(clip) for clip in clips], dtype=np.float64)
        return Statistics(rows.reshape(len(clips), len(COLUMNS)), VALUES[self.name])

    def _row(self, clip: ScoredClip) -> tuple[int, int, int, int]:
        made = self.findings.claims(clip.hypothesis, self.language)
        wanted = [self.findings.claims(text, self.language) for text in clip.references]
        return count_claims(made.keys(), [claims.keys() for claims in wanted])


def open_clue_score(name: str, options: MetricOptions) -> ClueScore:
    """`clue-precision`, `clue-recall` or `clue-f1`."""
    return ClueScore(name, options.language, options.findings)


def macro_recall(truth: Sequence[str], named: Sequence[str | None]) -> float:
    """Mean over the classes of `truth` of the share of each that was named right (UAR).

    None counts as wrong. Raises DataError where there is nothing to average.
    """
    if len(truth) != len(named) or not truth:
        raise DataError(f"macro recall of {len(truth)} labels and {len(named)} answers")
    return recall_statistics(truth, named, classes=sorted(set(truth))).value


def recall_statistics(
    truth: Sequence[str | None], named: Sequence[str | None], *, classes: Sequence[str]
) -> Statistics:
    """A row a clip of hits, then of clips, each by class; the value is the macro recall.

    A clip without a truth has a row of zeros, and a class without clips does not count.
    """
    of_class = np.array([[label == one for one in classes] for label in truth], dtype=np.float64)
    right = np.array([[a == b] for a, b in zip(truth, named, strict=True)], dtype=np.float64)
    return Statistics(np.hstack([of_class * right, of_class]), mean_recall)


def mean_recall(sums: Floats) -> Floats:
    """Mean over classes of hits by clips; sums of shape [..., 2 x classes] → [...].

    NaN where no clip has a class.
    """
    hits, clips = np.split(sums, 2, axis=-1)
    present = (clips > 0).sum(axis=-1)
    total = (hits / np.maximum(clips, 1)).sum(axis=-1)
    return np.where(present > 0, total / np.maximum(present, 1), np.nan)


@dataclass(frozen=True, slots=True)
class EmotionRecall:
    """Macro recall of the emotion that a sentence names."""

    language: str
    findings: ClaimCache
    name: str = "emotion-recall"

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:macro|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        named = [self._named(clip.hypothesis) for clip in clips]
        return recall_statistics([self.truth(clip) for clip in clips], named, classes=EMOTIONS)

    def truth(self, clip: ScoredClip) -> str | None:
        """The emotion of a clip; None where neither its label nor a reference says one."""
        if clip.emotion is not None:
            return clip.emotion
        votes = Counter(filter(None, map(self._named, clip.references)))
        return max(EMOTIONS, key=lambda emotion: votes[emotion]) if votes else None

    def _named(self, text: str) -> str | None:
        return emotion_of(self.findings.claims(text, self.language).values())


def open_emotion_recall(name: str, options: MetricOptions) -> EmotionRecall:
    """`emotion-recall`."""
    return EmotionRecall(options.language, options.findings, name)


def rate(sums: Floats) -> Floats:
    """Share of claims that are wrong; sums of (claims, wrong), shape [..., 2] → [...].

    0 where nothing is claimed: who says nothing invents nothing.
    """
    return np.nan_to_num(rate_of_trait(sums))


def rate_of_trait(sums: Floats) -> Floats:
    """As `rate`, but NaN where nothing is claimed: that trait is not spoken of."""
    claims, wrong = np.moveaxis(sums, -1, 0)
    return np.where(claims > 0, wrong / np.maximum(claims, 1), np.nan)


Judged = Iterable[tuple[str, bool]]
"""The trait of each claim, and whether the claim is wrong."""


@dataclass(frozen=True, slots=True)
class Hallucination:
    """Claims that are wrong, over claims, of some traits."""

    name: str
    wrong: str
    """What counts as wrong, for the variant."""
    judged: Callable[[ScoredClip, str, ClaimCache], Judged]
    """The claims of a clip's hypothesis in a language."""
    traits: Sequence[str]
    value_of: Callable[[Floats], Floats]
    language: str
    findings: ClaimCache

    @property
    def variant(self) -> str:
        """As `Metric`."""
        return f"{self.name}:{self.wrong}|lang:{self.language}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`; DataError where the signal is asked and a clip names no recording."""
        return Statistics(np.array([self._row(clip) for clip in clips], np.float64), self.value_of)

    def _row(self, clip: ScoredClip) -> tuple[int, int]:
        judged = self.judged(clip, self.language, self.findings)
        wrong = [is_wrong for trait, is_wrong in judged if trait in self.traits]
        return len(wrong), sum(wrong)


def against_references(clip: ScoredClip, language: str, findings: ClaimCache) -> Judged:
    """Claims are wrong that are contradicted or invented."""
    said = findings.said(clip.references, language).keys()
    for claim in findings.claims(clip.hypothesis, language):
        yield claim[0], check_by_references(claim, said)[0] is not ClaimStatus.SUPPORTED


def against_signal(clip: ScoredClip, language: str, findings: ClaimCache) -> Judged:
    """Claims are wrong that the recording contradicts; one it cannot tell of is not."""
    for one in measured_facts_of(clip, language, findings):
        yield one.clue.trait, one.verdict is Verdict.CONTRADICTED


def measured_facts_of(
    clip: ScoredClip, language: str, findings: ClaimCache
) -> tuple[Evidence, ...]:
    """Each claim of a hypothesis beside what its recording shows."""
    made = findings.claims(clip.hypothesis, language)
    return judge(made.values(), findings.facts(clip))


def open_hallucination(name: str, options: MetricOptions) -> Hallucination:
    """`hallucination` or `hallucination-signal`, or one of them by trait."""
    whole, _, part = name.partition("/")
    traits = [
        trait for trait in HALLUCINATIONS[whole] if not part or trait == part.replace("-", " ")
    ]
    signal = whole == "hallucination-signal"
    return Hallucination(
        name=name,
        wrong="contradicted" if signal else "contradicted+invented",
        judged=against_signal if signal else against_references,
        traits=traits,
        value_of=rate_of_trait if part else rate,
        language=options.language,
        findings=options.findings,
    )
