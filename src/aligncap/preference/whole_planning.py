"""What a dry run says of all of preference optimisation in one recipe: each step and the most.

Beside the keys of `alignment.planning` there is "steps", the plan of each recipe that a round
runs. What a round makes itself is not among what is loaded.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from aligncap.alignment.data import SPLITS, read_rows, read_source
from aligncap.preference.candidates import CandidateOptions
from aligncap.preference.row_clips import RowClipSettings, is_as_it_is
from aligncap.training.needs import MANIFEST_CURE, Needed, needed_path, table_of

Plan = Mapping[str, Any]


def plan_rounds(
    data: RowClipSettings,
    candidates: CandidateOptions,
    steps: Mapping[str, Plan],
    *,
    folders: Mapping[str, Path],
    output: Path,
    rounds: int,
) -> Plan:
    """The plan of `rounds` rounds of `steps`, plans by kind, in the folder `output`.

    `folders` are captioners by what they are for.
    """
    loads = table_of(_needed(data, folders))
    named = {one["name"] for one in loads}
    for one in chain.from_iterable(plan["loads"] for plan in steps.values()):
        if one["name"] not in named and not Path(one["name"]).is_relative_to(output):
            loads.append(one)
            named.add(one["name"])
    clips = _clips(data)
    asked = None if clips is None else clips * len(data.languages) * candidates.count
    last = list(steps.values())[-1]
    return {
        "loads": loads,
        "parameters": last["parameters"],
        "memory_bytes": _memory(steps),
        "disk_bytes": _disk(steps, rounds),
        "assumed": last["assumed"],
        "notes": [*last["notes"], *_notes(clips, asked, rounds)],
        "steps": steps,
    }


def _needed(data: RowClipSettings, folders: Mapping[str, Path]) -> Sequence[Needed]:
    rows_cure = "make it with a recipe of kind 'rows'"
    start_cure = "train it with its recipe, or give another model folder"
    return [
        needed_path("training rows", data.rows, cure=rows_cure),
        *(needed_path("manifest", path, cure=MANIFEST_CURE) for path in data.manifests),
        *(needed_path(f"model to {what}", path, cure=start_cure) for what, path in folders.items()),
    ]


def _clips(data: RowClipSettings) -> int | None:
    """Clips that get candidates; None where the rows are not here."""
    if not data.rows.exists():
        return None
    read_source(data.rows)
    found = dict.fromkeys(SPLITS, 0)
    for row in read_rows(data.rows):
        found[row.split] += row.speech is not None and is_as_it_is(row)
    limits = zip(found.values(), (data.clips, data.validation_clips), strict=True)
    return sum(min(count, limit or count) for count, limit in limits)


def _memory(steps: Mapping[str, Plan]) -> Mapping[str, int] | None:
    """The most that each step holds, and the most of all: they run one after another."""
    known = {kind: plan["memory_bytes"] for kind, plan in steps.items()}
    if None in known.values():
        return None
    most = {kind: need["total"] for kind, need in known.items()}
    checkpointed = max(need["total_checkpointed"] for need in known.values())
    return {**most, "total": max(most.values()), "total_checkpointed": checkpointed}


def _disk(steps: Mapping[str, Plan], rounds: int) -> Mapping[str, int] | None:
    """What all rounds write: nothing of an earlier round is taken away."""
    if any(plan["disk_bytes"] is None for plan in steps.values()):
        return None
    written = {kind: rounds * plan["disk_bytes"]["total"] for kind, plan in steps.items()}
    return {**written, "total": sum(written.values())}


def _notes(clips: int | None, asked: int | None, rounds: int) -> Sequence[str]:
    if clips is None:
        return ["the training rows are not here, so it is not known how many clips there are"]
    return [
        f"{rounds} x {clips:,} clips, each with candidates in as many languages as the model has: "
        f"at most {asked:,} a round, written and judged before the steps"
    ]
