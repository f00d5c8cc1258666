"""`aligncap prefer agreement`: how far judges agree with each other, and with people."""

import json
import math
from itertools import combinations
from pathlib import Path

from aligncap.cli.records import Record
from aligncap.cli.world import World
from aligncap.preference.agreement import (
    Concordance,
    accuracy_against,
    concordance,
    krippendorff_alpha,
    ratings_of,
)
from aligncap.preference.store import PreferenceStore, open_store


def show_agreement(path: Path, *, format: str, world: World) -> int:  # noqa: A002
    """Print the agreement of the latest judges of a store; returns 0."""
    with open_store(path) as store:
        record = agreement_record(store)
    if format == "jsonl":
        print(json.dumps(record, ensure_ascii=False), file=world.stdout)
    else:
        print(*_lines(record), sep="\n", file=world.stdout)
    return 0


def agreement_record(store: PreferenceStore) -> Record:
    """Tau-b of each two judges, alpha among people, each judge's accuracy against people."""
    judges = {name: store.latest_judge(name) for name in store.judge_names()}
    clips = [
        {
            name: {key: one.score for key, one in found.items()}
            for name, signature in judges.items()
            if (found := store.judgements(clip.utterance, language, signature))
        }
        for clip, language, _ in store.groups()
    ]
    choices = store.annotations.all()
    ratings = ratings_of(choices)
    shared = sum(sum(one is not None for one in unit) > 1 for unit in zip(*ratings, strict=True))
    return {
        "judges": judges,
        "tau_b": [_tau(first, second, clips) for first, second in combinations(judges, 2)],
        "people": {
            "annotators": len(ratings),
            "choices": len(choices),
            "shared_pairs": shared,
            "alpha_ordinal": _number(krippendorff_alpha(ratings, "ordinal")),
            "alpha_nominal": _number(krippendorff_alpha(ratings, "nominal")),
        },
        "accuracy": [_accuracy(name, clips, store) for name in judges if name != "human"],
    }


Clips = list[dict[str, dict[str, float]]]
"""For each clip, the scores of each judge by candidate."""


def _tau(first: str, second: str, clips: Clips) -> Record:
    total, compared = Concordance(), 0
    for scores in clips:
        a, b = scores.get(first, {}), scores.get(second, {})
        both = sorted(a.keys() & b.keys())
        compared += len(both) > 1
        total += concordance([a[key] for key in both], [b[key] for key in both])
    return {"judges": [first, second], "clips": compared, "tau_b": _number(total.tau_b)}


def _accuracy(name: str, clips: Clips, store: PreferenceStore) -> Record:
    scores = {key: one for clip in clips for key, one in clip.get(name, {}).items()}
    found = accuracy_against(store.annotations.all(), scores)
    return {"judge": name, "choices": found.compared, "accuracy": _number(found.value)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _lines(record: Record) -> list[str]:
    lines = [f"{name}: {signature}" for name, signature in record["judges"].items()]
    lines += [
        f"Kendall's tau-b of {' and '.join(one['judges'])}: {_told(one['tau_b'])} "
        f"(within {one['clips']} clips)"
        for one in record["tau_b"]
    ]
    people = record["people"]
    lines.append(
        f"Krippendorff's alpha of {people['annotators']} people: "
        f"{_told(people['alpha_ordinal'])} ordinal, {_told(people['alpha_nominal'])} nominal "
        f"({people['choices']} choices, {people['shared_pairs']} pairs shared)"
    )
    lines += [
        f"{one['judge']} prefers what people prefer: {_told(one['accuracy'])} "
        f"(of {one['choices']} choices)"
        for one in record["accuracy"]
    ]
    return lines


def _told(number: float | None) -> str:
    return "cannot tell" if number is None else f"{number:.3f}"
