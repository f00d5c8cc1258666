"""Rows, clips and logs of a few lines."""

from pathlib import Path

import numpy as np

from aligncap.alignment.examples import SpeechSource, TrainingRow, write_rows
from aligncap.metrics.scores import ScoredClip
from aligncap.training.loop import read_log

SOURCE = SpeechSource(
    name="fake", fingerprint="f" * 16, frame_rate_hz=12.5, codebooks=1, codebook_size=12
)

FEELINGS = {
    "sad": ("She sounds sad and slow.", "A sad, slow voice.", "她听起来很悲伤。"),
    "happy": ("She sounds happy and fast.", "A happy, fast voice.", "她听起来很高兴。"),
    "angry": ("She sounds angry and loud.", "An angry, loud voice.", "她听起来很生气。"),
}
"""Two English captions and a Chinese one of each feeling."""


def tiny_rows(count: int = 30, *, seed: int = 0) -> list[TrainingRow]:
    """Rows whose codes lie in a third of the codebook, which third says the feeling."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        place, frames = number % len(FEELINGS), int(chance.integers(4, 14))
        feeling, (first, second, chinese) = list(FEELINGS.items())[place]
        rows.append(
            TrainingRow(
                id=f"clip{number}",
                corpus="even" if number % 2 else "odd",
                split="validation" if number % 10 >= 7 else "train",
                speech=chance.integers(4 * place, 4 * place + 4, (1, frames)),
                captions={"en": (first, second), "zh": (chinese,)},
                act={"en": f"Feeling {feeling}", "zh": f"感到{chinese[-3:-1]}"},
                measured={"en": "Feeling loud" if feeling == "angry" else "Feeling quiet"},
                transcript=f"sentence {number % 4}",
            )
        )
    return rows


def write_tiny(folder: Path, *, count: int = 30) -> Path:
    """The rows as a file in `folder`."""
    path = folder / "rows.jsonl"
    write_rows(path, SOURCE, tiny_rows(count))
    return path


def clip(hypothesis: str, *references: str, name: str = "c", **known: object) -> ScoredClip:
    """A clip to score by a metric."""
    return ScoredClip(name, hypothesis, references, **known)  # type: ignore[arg-type]


def trace(output: Path) -> list[dict[str, float]]:
    """The log of a run without its times, which differ between runs that are alike."""
    return [{k: v for k, v in line.items() if k != "elapsed_s"} for line in read_log(output)]
