"""The table of metrics: a name, and the module that opens it, imported when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from aligncap.errors import UnknownNameError
from aligncap.scoring.ngrams import TokenisedOnce
from aligncap.scoring.values import Metric
from aligncap.values import LANGUAGES


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
    tokenised: TokenisedOnce = field(default_factory=TokenisedOnce, repr=False, compare=False)
    """Metrics opened with the same options share the tokens and n-grams of the clips."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("language", self.language, LANGUAGES)


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
}
"""Name → module of this part that has `open_metric(name, options)`."""


DEFAULT_METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge-l", "cider", "cider-d")
"""What every machine can say of captions in every language, fast."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """The metric of that name; what it needs is imported only now.

    Raises UnknownNameError, or MissingModelError where something it needs is not here.
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    metric: Metric = import_module(f"aligncap.scoring.{METRICS[name]}").open_metric(name, options)
    return metric
