"""Preferences over the made-up corpus of the stages: one wording is preferred to the other."""

from pathlib import Path
from types import MappingProxyType

import numpy as np

from aligncap.alignment import warmup
from aligncap.alignment.data import TrainingRow, write_rows
from aligncap.alignment.settings import BatchSettings, DataSettings, ModelSettings, SizeSettings
from aligncap.alignment.warmup import WarmupSettings
from aligncap.preference.rows import PreferenceRow, write_preference_rows
from aligncap.training import FitSettings
from aligncap.values import Fact, Facts
from alignment.tiny_rows import FEELINGS, SOURCE

QUIET = Facts(2.0, 1.8, MappingProxyType({"loudness_db": Fact("loudness_db", -34.0, "dB", 0.9)}))
"""Facts that contradict "loud"."""


def preference_rows(count: int = 30, *, seed: int = 0) -> list[PreferenceRow]:
    """Clips whose three candidates name each feeling; the one of the codes is preferred."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        place = number % len(FEELINGS)
        texts = tuple(wording[0] for wording in FEELINGS.values())
        clip = TrainingRow(
            id=f"clip{number}",
            corpus="even" if number % 2 else "odd",
            split="validation" if number % 10 >= 7 else "train",
            speech=chance.integers(4 * place, 4 * place + 4, (1, int(chance.integers(4, 10)))),
            captions={"en": texts},
        )
        rows.append(
            PreferenceRow(
                clip=clip,
                pairs=tuple((place, other) for other in range(3) if other != place),
                facts=QUIET,
                emotion=list(FEELINGS)[place],
            )
        )
    return rows


def write_preferences(folder: Path, count: int = 60) -> Path:
    """The rows as a file in `folder`."""
    path = folder / "preferences.jsonl"
    write_preference_rows(path, SOURCE, preference_rows(count))
    return path


def train_start(folder: Path) -> Path:
    """A model that can say the captions and knows nothing of speech: a short warm-up."""
    rows = [row.clip for row in preference_rows(12)]
    write_rows(folder / "rows.jsonl", SOURCE, rows)
    settings = WarmupSettings(
        data=DataSettings(rows=(folder / "rows.jsonl",)),
        training=FitSettings(steps=60, learning_rate=1e-2, warmup_steps=5, log_every=30),
        model=ModelSettings(new=SizeSettings(hidden=32, layers=2, heads=2, text_vocabulary=300)),
        batch=BatchSettings(rows=4, captions=3),
    )
    (folder / "run").mkdir()
    return Path(str(warmup.run(settings, folder / "run", resume=False)["model"]))
