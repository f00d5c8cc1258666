"""The table of metrics: a name, and the module that opens it, imported when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from aligncap.errors import UnknownNameError
from aligncap.scoring.findings import Findings
from aligncap.scoring.ngrams import TokenisedOnce
from aligncap.scoring.values import Metric, SetMetric
from aligncap.values import LANGUAGES, TRAITS

if TYPE_CHECKING:  # it brings a database and an HTTP client
    from aligncap.scoring.judge.asking import Judge


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
    judge: "Judge | None" = None
    """The language model that rates captions, opened by `judge.opening.open_judge`."""
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)
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
    "bleu1": "bleu",
    "bleu2": "bleu",
    "bleu3": "bleu",
    "bleu4": "bleu",
    "rouge-l": "rouge",
    "cider": "cider",
    "cider-d": "cider",
    "meteor": "meteor",
    "meteor-1.5": "meteor_jar",
    "spice": "spice_jar",
    "spider": "spice_jar",
    "clue-precision": "clue_scores",
    "clue-recall": "clue_scores",
    "clue-f1": "clue_scores",
    **{part: "hallucination" for name, parts in SPLITS.items() for part in (name, *parts)},
    "emotion-recall": "emotion_scores",
    "similarity": "similarity",
    "aes-c": "judge.aes",
    "aes-s": "judge.aes",
}
"""Name → module of this part that has `open_metric(name, options)`."""

SET_METRICS: Mapping[str, str] = {
    "distinct1": "diversity",
    "distinct2": "diversity",
    "repeated": "diversity",
}
"""As `METRICS`, of metrics that belong to a whole set of captions: `open_set_metric`."""

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
    metric: Metric = import_module(f"aligncap.scoring.{METRICS[name]}").open_metric(name, options)
    return metric


def open_set_metric(name: str, options: MetricOptions) -> SetMetric:
    """The metric of a whole set of captions of that name; as `open_metric`."""
    if name not in SET_METRICS:
        raise UnknownNameError("metric of a set", name, SET_METRICS)
    module = import_module(f"aligncap.scoring.{SET_METRICS[name]}")
    metric: SetMetric = module.open_set_metric(name, options)
    return metric
