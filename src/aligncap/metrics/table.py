"""What is found in captions and recordings, each looked at once however many metrics ask.

The table of metrics: a name, and the module that opens it, imported when it is asked for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligncap.audio import load
from aligncap.clues import find_clues
from aligncap.clues.claims import Claim, claims_of
from aligncap.errors import DataError, UnknownNameError
from aligncap.metrics.scores import Metric, ScoredClip, SetMetric
from aligncap.metrics.tokenise import TokenisedOnce
from aligncap.prosody import measure
from aligncap.values import LANGUAGES, TRAITS, Clue, Facts

if TYPE_CHECKING:
    from aligncap.metrics.judge import JudgeClient


class ClaimCache:
    """The claims of captions and the facts of recordings; handed to metrics by their options."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[Claim, Clue]] = {}
        self._facts: dict[Path, Facts] = {}

    def claims(self, text: str, language: str) -> dict[Claim, Clue]:
        """The claims of a caption in their order, each with the first clue that makes it."""
        key = (language, text)
        if key not in self._claims:
            self._claims[key] = claims_of(find_clues(text, language))
        return self._claims[key]

    def said(self, texts: Iterable[str], language: str) -> dict[Claim, Clue]:
        """The claims of several captions together."""
        together: dict[Claim, Clue] = {}
        for text in texts:
            together |= self.claims(text, language)
        return together

    def facts(self, clip: ScoredClip) -> Facts:
        """What the clip's recording shows. DataError where the clip names none, AudioError where
        it cannot be read."""
        if clip.file is None:
            raise DataError(
                f'clip {clip.id!r} has no recording to judge by; name it as "file" in the '
                "references, or leave hallucination-signal out"
            )
        if clip.file not in self._facts:
            self._facts[clip.file] = measure(load(clip.file))
        return self._facts[clip.file]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOptions:
    """What metrics may need to know beside the clips; each takes what concerns it."""

    language: str = "en"
    """Of hypotheses and references."""
    tokenisation: str | None = None
    """"coco-en", "zh-char" or "zh-word"; None is the language's default, the first two."""
    jars: Path | None = None
    """Folder of METEOR's and SPICE's Java programs."""
    encoder: Path | None = None
    """Folder of a sentence encoder, for similarity."""
    judge: "JudgeClient | None" = None
    """The language model that rates captions, opened by `judge.opening.open_judge`."""
    findings: ClaimCache = field(default_factory=ClaimCache, repr=False, compare=False)
    """Clues and facts found so far: metrics opened with the same options share them."""
    tokenised: TokenisedOnce = field(default_factory=TokenisedOnce, repr=False, compare=False)
    """Metrics opened with the same options share the tokens and n-grams of the clips."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("language", self.language, LANGUAGES)


HALLUCINATIONS: Mapping[str, tuple[str, ...]] = {
    "hallucination": TRAITS,
    "hallucination-signal": tuple(trait for trait in TRAITS if trait not in ("emotion", "tone")),
}
"""Rates that are also given by trait ("hallucination/pitch") → the traits they can judge."""

SPLITS: Mapping[str, tuple[str, ...]] = {
    name: tuple(f"{name}/{trait.replace(' ', '-')}" for trait in traits)
    for name, traits in HALLUCINATIONS.items()
}
"""Metric → the metrics that split it."""

METRICS: Mapping[str, str] = {
    "bleu1": "ngram:open_bleu",
    "bleu2": "ngram:open_bleu",
    "bleu3": "ngram:open_bleu",
    "bleu4": "ngram:open_bleu",
    "rouge-l": "ngram:open_rouge",
    "cider": "ngram:open_cider",
    "cider-d": "ngram:open_cider",
    "meteor": "meteor:open_meteor",
    "meteor-1.5": "meteor:open_meteor_jar",
    "spice": "meteor:open_spice",
    "spider": "meteor:open_spice",
    "clue-precision": "claims:open_clue_score",
    "clue-recall": "claims:open_clue_score",
    "clue-f1": "claims:open_clue_score",
    **{
        part: "claims:open_hallucination"
        for name, parts in SPLITS.items()
        for part in (name, *parts)
    },
    "emotion-recall": "claims:open_emotion_recall",
    "similarity": "similarity:open_similarity",
    "aes-c": "aes:open_aes",
    "aes-s": "aes:open_aes",
}
"""Name → module of this part and its function (name, options) -> Metric."""

SET_METRICS: Mapping[str, str] = {
    "distinct1": "ngram:open_distinct",
    "distinct2": "ngram:open_distinct",
    "repeated": "ngram:open_distinct",
}
"""As `METRICS`, of metrics that belong to a whole set of captions."""

DEFAULT_METRICS = (
    "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge-l", "cider", "cider-d",
    "clue-f1", "clue-precision", "clue-recall", "hallucination", "emotion-recall",
    "distinct2", "repeated",
)  # fmt: skip
"""What every machine can say of captions in every language, fast."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """The metric of that name; what it needs is imported only now.

    Raises UnknownNameError, or MissingModelError where something it needs is not here.
    """
    if name not in METRICS:
        known = [one for one in (*METRICS, *SET_METRICS) if "/" not in one or "/" in name]
        raise UnknownNameError("metric", name, known)
    metric: Metric = _opener(METRICS[name])(name, options)
    return metric


def open_set_metric(name: str, options: MetricOptions) -> SetMetric:
    """The metric of a whole set of captions of that name; as `open_metric`."""
    if name not in SET_METRICS:
        raise UnknownNameError("metric of a set", name, SET_METRICS)
    metric: SetMetric = _opener(SET_METRICS[name])(name, options)
    return metric


def _opener(place: str) -> Callable[[str, MetricOptions], Any]:
    module, _, function = place.partition(":")
    opener: Callable[[str, MetricOptions], Any] = getattr(
        import_module(f"aligncap.metrics.{module}"), function
    )
    return opener
