"""All of preference optimisation in one recipe: candidates, judge, pairs, rows, training; again.

    <output>/prefer.sqlite          candidates, judgements and pairs of every round
             round-1/rows.jsonl     what is learnt from
                     dpo/model      the policy that the round ends with
                     summary.json   written when the round is done

A step that is done is not done again, and one that was broken off goes on. The policy of a round
gives the candidates of the next, and is its reference.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from aligncap.alignment.backbone_plan import MANIFEST_CURE, ROWS_CURE, needed_path
from aligncap.captioner.opening import model_fingerprint, open_writer
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.preference.candidates import CandidateOptions, decode_options, provenance_of
from aligncap.preference.evidence_judge import EvidenceJudge, EvidenceWeights
from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import PairOptions, pair_all
from aligncap.preference.row_candidates import find_row_candidates
from aligncap.preference.row_clips import RowClipSettings, read_row_clips
from aligncap.preference.rows import write_preference_rows
from aligncap.preference.store import PreferenceStore
from aligncap.preference.to_rows import preference_rows
from aligncap.recipes import run_recipe

METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"dpo": ("dpo",), "ppo": ("ppo",), "reward+ppo": ("reward", "ppo")}
)
"""How a round learns → the recipes that it runs, one after another; the last trains the policy."""

STORE_FILE, ROWS_FILE, SUMMARY_FILE = "prefer.sqlite", "rows.jsonl", "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnSettings:
    """What learns from the preference rows."""

    method: str = "dpo"
    """One of `METHODS`."""
    recipes: Path = Path("recipes/mini")
    """Folder of dpo.toml, reward.toml and ppo.toml; data and start are the round's."""
    dpo: tuple[str, ...] = ()
    """What is changed of that recipe: "training.steps=300", "loss.beta=0.05"."""
    reward: tuple[str, ...] = ()
    ppo: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("way to learn preferences", self.method, METHODS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferSettings:
    """A recipe of kind "prefer"."""

    data: RowClipSettings
    start: Path
    """Folder of a trained captioner (after KD, §3.2)."""
    exported: Path | None = None
    """The same exported: it gives the first round's candidates quicker."""
    candidates: CandidateOptions = field(
        default_factory=lambda: CandidateOptions(method="sample", top_p=1.0)
    )
    evidence: EvidenceWeights = field(default_factory=EvidenceWeights)
    """Weights of the evidence judge."""
    pairs: PairOptions = field(default_factory=PairOptions)
    """Judges other than evidence must have judged the store before."""
    learn: LearnSettings = field(default_factory=LearnSettings)
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise RecipeError(f"rounds is {self.rounds}, must be at least 1")


SETTINGS = PreferSettings


def plan(settings: PreferSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it: what is read, and whether it is here."""
    data, kinds = settings.data, METHODS[settings.learn.method]
    train = "train it with its recipe, or give another model folder"
    needed = [
        needed_path("model to start from", settings.start, cure=train),
        needed_path("training rows", data.rows, cure=ROWS_CURE),
        *(needed_path("manifest", one, cure=MANIFEST_CURE) for one in data.manifests),
        *(
            needed_path("recipe", settings.learn.recipes / f"{kind}.toml", cure="write it")
            for kind in kinds
        ),
    ]
    if settings.exported is not None:
        needed.append(
            needed_path("exported model", settings.exported, cure="make it with aligncap export")
        )
    return {"loads": [one.table for one in needed]}


def run(settings: PreferSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Every round that is not done yet; returns the model folder of the last and its summary."""
    del resume  # every step goes on where it was
    output.mkdir(parents=True, exist_ok=True)
    start, summary = settings.start, dict[str, object]()
    for number in range(1, settings.rounds + 1):
        folder = output / f"round-{number}"
        folder.mkdir(exist_ok=True)
        written = folder / SUMMARY_FILE
        if not written.exists():
            make_rows(
                settings, output / STORE_FILE, folder / ROWS_FILE, start=start, first=number == 1
            )
            summary = dict(_learn(settings.learn, folder, start))
            _write_whole(written, json.dumps(summary, default=str))
        summary = json.loads(written.read_text("utf-8"))
        start = Path(str(summary["model"]))
    return {"rounds": settings.rounds, **summary}


def make_rows(
    settings: PreferSettings, path: Path, rows: Path, *, start: Path, first: bool
) -> Path:
    """The preference rows of a round in the file `rows`: candidates of the policy `start`, judged
    and paired in the store at `path`. Nothing is done where they are there."""
    if rows.exists():
        return rows
    clips, source = read_row_clips(settings.data)
    folder = (settings.exported or start) if first else start
    options, judge = settings.candidates, EvidenceJudge(settings.evidence)
    writer = open_writer(folder, seed=options.seed)
    provenance = provenance_of(
        options,
        decode_options(options, writer.options(options.count)),
        model=writer.meta.name,
        fingerprint=model_fingerprint(folder),
    )
    languages = [one for one in settings.data.languages if one in writer.meta.languages]
    with PreferenceStore(path) as store:
        for language in languages:
            for _ in find_row_candidates(
                clips, writer, store, options=options, provenance=provenance, language=language
            ):
                pass
        for _ in judge_all(store, judge):
            pass
        for _ in pair_all(store, settings.pairs, source=provenance):
            pass
        builder = store.pairs.latest()
        found = preference_rows(
            store,
            [(one.row, one.clip) for one in clips],
            builder=builder,
            source=provenance,
            languages=languages,
        )
        write_preference_rows(rows, source, found)
    return rows


def _learn(learn: LearnSettings, folder: Path, start: Path) -> Mapping[str, object]:
    summary: Mapping[str, object] = {}
    more: list[str] = []
    for kind in METHODS[learn.method]:
        summary = learn_once(
            kind,
            learn.recipes,
            folder / kind,
            rows=folder / ROWS_FILE,
            start=start,
            overrides=[*more, *getattr(learn, kind)],
        )
        more = ["reward.name=model", f'reward.model="{summary["model"]}"']
    return summary


def learn_once(
    kind: str, recipes: Path, output: Path, *, rows: Path, start: Path, overrides: list[str]
) -> Mapping[str, object]:
    """Run dpo.toml, reward.toml or ppo.toml on these rows, from this captioner."""
    own = [f'data.rows=["{rows}"]', f'model.start="{start}"', *overrides]
    return run_recipe(recipes / f"{kind}.toml", overrides=own, output=output, resume=True)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
