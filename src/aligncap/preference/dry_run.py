"""Dry runs of preference recipes: DPO, reward model and PPO, and rounds of them."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from aligncap.alignment.examples import SPLITS, read_rows, read_source
from aligncap.alignment.trainer import StageSettings, plan_training
from aligncap.captioner.model import CaptionModel
from aligncap.preference.candidates import CandidateOptions, RowClipSettings, is_as_it_is
from aligncap.preference.examples import read_preferences, with_pairs
from aligncap.training.dry_run import MANIFEST_HINT, Needed, needed_path, plan_table

ROWS_HINT = "make it with a recipe of kind 'prefer', or as aligncap.preference.examples describes"

Plan = Mapping[str, Any]


def plan_preference(
    settings: StageSettings,
    *,
    pairs: bool = True,
    wrap: Callable[[CaptionModel], nn.Module] | None = None,
    frozen: Callable[[CaptionModel], int] | None = None,
    more: Iterable[Needed] = (),
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """`plan_training` on preference rows; with `pairs`, DataError where none holds a pair."""
    paths = settings.data.rows
    needed = [needed_path("preference rows", path, hint=ROWS_HINT) for path in paths]
    source = None
    if not any(one.hint for one in needed):
        rows, source = read_preferences(paths)
        if pairs:
            with_pairs(rows, candidates=settings.batch.captions)
    return plan_training(
        settings, source, rows=needed, more=more, wrap=wrap, frozen=frozen, notes=notes
    )


def plan_rounds(
    data: RowClipSettings,
    candidates: CandidateOptions,
    steps: Mapping[str, Plan],
    *,
    folders: Mapping[str, Path],
    output: Path,
    rounds: int,
) -> Plan:
    """The plan of `rounds` rounds of `steps` (plans by kind) in the folder `output`: the total of
    each step, and "steps" with their plans. `folders` are captioners by purpose.

    What a round makes itself is no input. Steps run one after another, so memory is the largest
    step's; nothing of an earlier round is removed, so disk is the sum.
    """
    start_hint = "train it with its recipe, or give another model folder"
    needed = [
        needed_path("training rows", data.rows, hint="make it with a recipe of kind 'rows'"),
        *(needed_path("manifest", path, hint=MANIFEST_HINT) for path in data.manifests),
        *(needed_path(f"model to {what}", path, hint=start_hint) for what, path in folders.items()),
    ]
    named = {one.name for one in needed}
    for one in chain.from_iterable(plan["loads"] for plan in steps.values()):
        if one["name"] not in named and not Path(one["name"]).is_relative_to(output):
            needed.append(Needed(one["what"], one["name"], one["cure"] or ""))
            named.add(one["name"])
    last = list(steps.values())[-1]

    def totals(key: str) -> dict[str, int] | None:
        found = {kind: plan[key] for kind, plan in steps.items()}
        return None if None in found.values() else {k: one["total"] for k, one in found.items()}

    disk, memory = totals("disk_bytes"), totals("memory_bytes")
    plan = plan_table(
        needed,
        parameters=last["parameters"],
        disk=disk and {kind: rounds * total for kind, total in disk.items()},
        assumed=last["assumed"],
        notes=[*last["notes"], _clips_note(data, candidates, rounds)],
    )
    largest = memory and {**memory, "total": max(memory.values())}
    return {**plan, "memory_bytes": largest, "steps": steps}


def _clips_note(data: RowClipSettings, candidates: CandidateOptions, rounds: int) -> str:
    if not data.rows.exists():
        return "the training rows are not here, so it is not known how many clips there are"
    read_source(data.rows)
    found = dict.fromkeys(SPLITS, 0)
    for row in read_rows(data.rows):
        found[row.split] += row.speech is not None and is_as_it_is(row)
    limits = zip(found.values(), (data.clips, data.validation_clips), strict=True)
    clips = sum(min(count, limit or count) for count, limit in limits)
    asked = clips * len(data.languages) * candidates.count
    return (
        f"{rounds} x {clips:,} clips, each with candidates in as many languages as the model has: "
        f"at most {asked:,} a round, written and judged before the steps"
    )
