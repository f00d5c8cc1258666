"""Captions beside those that people wrote: SECap's clips, of speakers kept for validation.

    python benchmarks/human_captions.py [mini mini-1 …] [--output docs/results/human-captions.md]

Each model's Chinese caption of each clip is scored against its human caption, by character, beside
a retrieval baseline: the human caption of the training clip whose vector (the first model's
encoder) is the nearest by cosine. A clip in which a model hears no speech has an empty caption.
Intervals are over clips, and differences are to retrieval on the same resamples.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import aligncap
from aligncap.captioner.captioner import Captioner
from aligncap.captioner.checkpoint import find_model, model_fingerprint
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import split_of
from aligncap.metrics.scores import MetricOptions, ScoredClip, difference, open_metric, score
from aligncap.values import Caption

METRICS = ("bleu4", "rouge-l", "cider-d")
RETRIEVAL = "retrieval"


def captions_of(captioner: Captioner, clips: Sequence[Utterance]) -> list[str]:
    """The Chinese caption of each clip, "" where there is none."""
    outcomes = captioner.caption_many([one.path for one in clips], language="zh")
    return [one.text if isinstance(one, Caption) else "" for one in outcomes]


def vectors_of(captioner: Captioner, clips: Sequence[Utterance]) -> np.ndarray:
    """Unit vectors of the clips, [clips, D]; zeros where a clip has none."""
    found = [captioner.baseline(one.path).vector for one in clips]
    length = max(0 if one is None else len(one) for one in found)
    rows = np.stack([np.zeros(length) if one is None else one for one in found])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def nearest(
    captioner: Captioner, train: Sequence[Utterance], clips: Sequence[Utterance]
) -> list[str]:
    """Of each clip the first human caption of the nearest training clip."""
    own, others = vectors_of(captioner, clips), vectors_of(captioner, train)
    return [train[place].captions[0] for place in (own @ others.T).argmax(1)]


def table(clips: Sequence[Utterance], systems: dict[str, list[str]]) -> list[str]:
    """Markdown: a row a system, a column a metric; below, differences to retrieval."""
    options = MetricOptions(language="zh")
    metrics = [open_metric(name, options) for name in METRICS]

    def scored(texts: Sequence[str]) -> list[ScoredClip]:
        return [
            ScoredClip(one.id, text, tuple(one.captions))
            for one, text in zip(clips, texts, strict=True)
        ]

    def cell(value: float, low: float | None, high: float | None, sign: str = "") -> str:
        bounds = "–" if low is None or high is None else f"{low:{sign}.1f} … {high:{sign}.1f}"
        return f"{value:{sign}.1f} [{bounds}]"

    lines = [f"| system | {' | '.join(METRICS)} |", "|" + " --- |" * (len(METRICS) + 1)]
    for name, texts in systems.items():
        found = [score(metric, scored(texts)) for metric in metrics]
        lines.append(f"| {name} | {' | '.join(cell(s.value, s.low, s.high) for s in found)} |")
    for name, texts in systems.items():
        if name != RETRIEVAL:
            rows = [difference(m, scored(texts), scored(systems[RETRIEVAL])) for m in metrics]
            cells = (cell(one.delta, one.low, one.high, "+") for one in rows)
            lines.append(f"| {name} less {RETRIEVAL} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Caption, retrieve, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["mini", "mini-1"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/speech/secap"))
    parser.add_argument("--output", type=Path, default=Path("docs/results/human-captions.md"))
    given = parser.parse_args()
    everyone = list(read_manifest(given.data / "manifest.jsonl"))
    train = [one for one in everyone if split_of(one) == "train"]
    clips = [one for one in everyone if split_of(one) == "validation"]
    captioners = {name: aligncap.load(name) for name in given.models}
    systems = {name: captions_of(one, clips) for name, one in captioners.items()}
    first = captioners[given.models[0]]
    systems[RETRIEVAL] = nearest(first, train, clips)
    signature = " · ".join(f"{n} {model_fingerprint(find_model(n))[:12]}" for n in given.models)
    lines = [
        "# Beside people's captions",
        "",
        f"Made by `python benchmarks/human_captions.py {' '.join(given.models)}`; do not edit. "
        f"{len(clips)} clips of SECap kept for validation (`data.splits`), one human caption each, "
        f"retrieval from {len(train)} others; by character, x 100, 95 % intervals over clips. "
        f"aligncap {aligncap.__version__} · {signature}.",
        "",
        *table(clips, systems),
        "",
    ]
    given.output.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
