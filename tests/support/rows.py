"""Rows, clips and logs of a few lines."""

from pathlib import Path

from aligncap.metrics.scores import ScoredClip
from aligncap.training.loop import read_log


def clip(hypothesis: str, *references: str, name: str = "c", **known: object) -> ScoredClip:
    """A clip to score by a metric."""
    return ScoredClip(name, hypothesis, references, **known)  # type: ignore[arg-type]


def trace(output: Path) -> list[dict[str, float]]:
    """The log of a run without its times, which differ between runs that are alike."""
    return [{k: v for k, v in line.items() if k != "elapsed_s"} for line in read_log(output)]
