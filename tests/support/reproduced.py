"""Finished runs of `aligncap reproduce`, made up: folders as its runner leaves them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aligncap.experiments.runs import METRICS, StoredRun, scored_clip, write_captions
from aligncap.metrics.scores import MetricOptions, open_metric

IN_DOMAIN = {
    "protocol": "in-domain",
    "train": ["ravdess", "emodb"],
    "texts": [],
    "test": "emodb",
    "test_name": "emodb",
    "split": "test",
    "language": "en",
}

REFERENCES = {
    "angry": ("A man sounds angry, loud and fast.", "An angry man shouts quickly."),
    "sad": ("A woman sounds sad, quiet and slow.", "A sad woman murmurs slowly."),
    "happy": ("A woman sounds happy and speaks fast.", "A happy woman with a high voice."),
    "neutral": ("A man speaks calmly at a steady pace.", "A calm man with a low voice."),
}

Captions = Mapping[str, tuple[str, str]]
"""Clip → its emotion, and the caption written of it."""


def write_run(out: Path, name: str, captions: Captions, **fields: Any) -> StoredRun:
    """A run in a folder of results; `fields` are of run.json."""
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    table = {
        "name": name,
        "title": name,
        "seed": 0,
        "system": "AlignCap",
        "alignment": "kd",
        "preference": "none",
        "without": [],
        "language_model": "",
        "point": {},
        "n": len(captions),
        **IN_DOMAIN,
        **fields,
    }
    rows = [
        {
            "id": clip,
            "audio": f"{clip}.wav",
            "corpus": "emodb",
            "speaker": f"speaker-{number % 2}",
            "caption": caption,
            "references": list(REFERENCES[emotion]),
            "emotion": emotion,
            "named": next((one for one in REFERENCES if one in caption), None),
        }
        for number, (clip, (emotion, caption)) in enumerate(captions.items())
    ]
    write_captions(folder, rows)
    _write_scores(folder, rows)
    (folder / "run.json").write_text(json.dumps(table), "utf-8")
    return StoredRun(folder, table)


def _write_scores(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `runs.write_scores`, but METEOR, which loads WordNet, has the values of ROUGE-L."""
    measured = ("bleu4", "rouge_l", "cider", "emotion_recall")
    clips = list(map(scored_clip, rows))
    found = {
        key: open_metric(METRICS[key], MetricOptions(language="en")).measure(clips)
        for key in measured
    }
    found["meteor"] = found["rouge_l"]
    without = {key: "no judge was given" for key in METRICS if key not in found}
    totals = {key: 100 * one.value for key, one in found.items()}
    lines = [
        {"id": clip.id, **{key: 100 * one.clip_values[n] for key, one in found.items()}}
        for n, clip in enumerate(clips)
    ]
    (folder / "scores.json").write_text(
        json.dumps({**totals, **dict.fromkeys(without), "reasons": without}), "utf-8"
    )
    (folder / "scores.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")


def written_captions(right: float, *, clips: int = 12, seed: int = 0) -> Captions:
    """Captions of which about this share repeats a reference; the others are of another emotion."""
    random, emotions = np.random.default_rng(seed), list(REFERENCES)
    found = {}
    for number in range(clips):
        emotion = emotions[number % len(emotions)]
        other = emotions[(number + 1) % len(emotions)]
        said = emotion if random.random() < right else other
        found[f"clip-{number:02}"] = (emotion, REFERENCES[said][number % 2])
    return found
