"""The table of metrics: a name, and the module that opens it, imported when it is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from aligncap.errors import UnknownNameError
from aligncap.scoring.values import Metric
from aligncap.values import LANGUAGES

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

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("language", self.language, LANGUAGES)


METRICS: Mapping[str, str] = {
    "aes-c": "judge.aes",
    "aes-s": "judge.aes",
}
"""Name → module of this part that has `open_metric(name, options)`."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """The metric of that name; what it needs is imported only now.

    Raises UnknownNameError, or MissingModelError where something it needs is not here.
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    metric: Metric = import_module(f"aligncap.scoring.{METRICS[name]}").open_metric(name, options)
    return metric
