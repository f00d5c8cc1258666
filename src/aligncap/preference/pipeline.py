"""All of preference optimisation in one recipe: candidates, judge, pairs, rows, training; again.

    <output>/prefer.sqlite          candidates, judgements and pairs of every round
             round-1/rows.jsonl     preference rows of the round
                     dpo/model      the policy that the round ends with
                     summary.json   written when the round is done

A step that is done is not done again, and one that was broken off goes on. The policy of a round
gives the candidates of the next, and is its reference.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, field
from itertools import chain, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import model_validator

from aligncap.alignment.examples import SPLITS, read_rows, read_source
from aligncap.captioner.captioner import open_generator
from aligncap.captioner.checkpoint import RUN_MODEL_FOLDER, model_fingerprint
from aligncap.errors import DataError, RecipeError
from aligncap.metrics.judge import DEFAULT_CACHE, JudgeSettings
from aligncap.preference.candidates import (
    CandidateOptions,
    RowClipSettings,
    decode_options,
    find_row_candidates,
    is_unchanged,
    provenance_of,
    read_row_clips,
)
from aligncap.preference.examples import preference_rows, write_preference_rows
from aligncap.preference.judges import (
    JUDGES,
    EvidenceWeights,
    JudgeOptions,
    judge_all,
    open_judge,
)
from aligncap.preference.pairs import PairOptions, pair_all, variety
from aligncap.preference.store import PreferenceStore, Provenance
from aligncap.preference.variety import WordList
from aligncap.recipes import Count, Trainer, one_of, recipe_section, run_recipe
from aligncap.storage import write_atomic
from aligncap.training.devices import is_distributed
from aligncap.training.dry_run import MANIFEST_HINT, Needed, needed_path, plan_table

METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"dpo": ("dpo",), "ppo": ("ppo",), "reward+ppo": ("reward", "ppo")}
)
"""How a round trains → the recipes that it runs, one after another; the last is the policy's."""

STORE_FILE, ROWS_FILE, SUMMARY_FILE = "prefer.sqlite", "rows.jsonl", "summary.json"
VARIETY_FILE = "variety.json"
"""Of a round: how far its candidates and pairs differ."""

LOG = logging.getLogger(__name__)


@recipe_section
class LearnSettings:
    """What is trained on the preference rows."""

    method: Annotated[str, one_of(METHODS)] = "dpo"
    """One of `METHODS`."""
    recipes: Path = Path("recipes/mini")
    """Folder of dpo.toml, reward.toml and ppo.toml; data and start are the round's."""
    dpo: tuple[str, ...] = ()
    """What is changed of that recipe: "training.steps=300", "loss.beta=0.05"."""
    reward: tuple[str, ...] = ()
    ppo: tuple[str, ...] = ()


@recipe_section
class ModelJudgeSettings:
    """The language model that P_score is asked of (Fig. 5), for the judge "llm"."""

    model: str
    """Its name on the server, or a folder of this machine."""
    url: str | None = None
    """Of an OpenAI-compatible server; its key is read from ALIGNCAP_JUDGE_KEY."""
    cache: Path = DEFAULT_CACHE
    """Where its replies are kept."""
    prompts: Path | None = None
    """Folder of prompts in place of the built-in ones."""


@recipe_section
class PreferSettings:
    """A recipe of kind "prefer"."""

    data: RowClipSettings
    start: Path
    """Folder of a trained captioner (after KD, §3.2)."""
    exported: Path | None = None
    """The same exported: it gives the first round's candidates quicker."""
    candidates: CandidateOptions = field(default_factory=lambda: CandidateOptions(method="claims"))
    evidence: EvidenceWeights = field(default_factory=EvidenceWeights)
    """Weights of the evidence judge."""
    llm: ModelJudgeSettings | None = None
    """Of the judge "llm"."""
    pairs: PairOptions = field(default_factory=lambda: PairOptions(differ=True))
    """Whose judgements count, by weight: "evidence", "llm" (P_score), "human"; the scores of
    several are averaged. People choose between rounds' steps, on the page of `prefer annotate`."""
    learn: LearnSettings = field(default_factory=LearnSettings)
    rounds: Count = 1

    @model_validator(mode="after")
    def _judges_are_there(self) -> Self:
        judges = set(self.pairs.judges)
        for name in judges - set(JUDGES):
            raise ValueError(f"pairs.judges names {name!r}; known are {', '.join(JUDGES)}")
        if "llm" in judges and self.llm is None:
            raise ValueError("the judge 'llm' needs a model: give llm.model, and llm.url")
        if self.learn.method == "ppo" and judges != {"evidence"}:
            raise ValueError(
                "PPO without a reward model is rewarded by evidence alone; for other judges take "
                "learn.method = 'reward+ppo' or 'dpo'"
            )
        return self


def plan(settings: PreferSettings, output: Path) -> Mapping[str, object]:
    """The plan of a dry run: each step's total, and "steps" with the plans of the first round.

    What a round makes itself is not among what is loaded. Steps run one after another, so memory
    is the largest step's; nothing of an earlier round is removed, so disk is the sum.
    """
    planned = _each_step(settings, output / "round-1", settings.start, dry_run=True)
    steps: dict[str, Any] = {kind: described["plan"] for kind, described in planned}
    models = {"start from": settings.start, "write candidates": settings.exported}
    hint = "train it with its recipe, or give another model folder"
    data = settings.data
    needed = [
        needed_path("training rows", data.rows, hint="make it with a recipe of kind 'token-rows'"),
        *(needed_path("manifest", path, hint=MANIFEST_HINT) for path in data.manifests),
        *(
            needed_path(f"model to {what}", path, hint=hint)
            for what, path in models.items()
            if path
        ),
    ]
    for one in chain.from_iterable(plan["loads"] for plan in steps.values()):
        listed = one["name"] in {known.name for known in needed}
        if not listed and not Path(one["name"]).is_relative_to(output):
            needed.append(Needed(one["what"], one["name"], one["cure"] or ""))
    last = list(steps.values())[-1]
    disk, memory = (
        None
        if None in [plan[key] for plan in steps.values()]
        else {kind: plan[key]["total"] for kind, plan in steps.items()}
        for key in ("disk_bytes", "memory_bytes")
    )
    table = plan_table(
        needed,
        parameters=last["parameters"],
        disk=disk and {kind: settings.rounds * total for kind, total in disk.items()},
        assumed=last["assumed"],
        notes=[*last["notes"], _clips_note(settings)],
    )
    most = memory and {**memory, "total": max(memory.values())}
    return {**table, "memory_bytes": most, "steps": steps}


def _clips_note(settings: PreferSettings) -> str:
    data = settings.data
    if not data.rows.exists():
        return "the training rows are not here, so it is not known how many clips there are"
    read_source(data.rows)  # raises where they are no training rows
    found = dict.fromkeys(SPLITS, 0)
    for row in read_rows(data.rows):
        found[row.split] += row.speech is not None and is_unchanged(row)
    limits = zip(found.values(), (data.clips, data.validation_clips), strict=True)
    clips = sum(min(count, limit or count) for count, limit in limits)
    captions = clips * len(data.languages) * settings.candidates.count
    return (
        f"{settings.rounds} x {clips:,} clips, each with candidates in as many languages as the "
        f"model has: at most {captions:,} a round, written and judged before the steps"
    )


def run_rounds(settings: PreferSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Every round that is not done yet; returns the model folder of the last and its summary."""
    del resume  # every step goes on where it was; another recipe in its folder was refused
    if is_distributed():
        raise RecipeError(
            "rounds of preference learning run in one process; run its steps one after another, "
            "those of kind 'dpo', 'reward' and 'ppo' under torchrun"
        )
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
            *_, (_, trained) = _each_step(settings, folder, start)
            told = json.loads((folder / VARIETY_FILE).read_text("utf-8"))
            write_atomic(written, json.dumps({**trained, "variety": told}, default=str))
        summary = json.loads(written.read_text("utf-8"))
        start = Path(str(summary["model"]))
    return {"rounds": settings.rounds, **summary}


def make_rows(
    settings: PreferSettings, path: Path, rows: Path, *, start: Path, first: bool
) -> None:
    """The preference rows of a round in the file `rows`: candidates of the policy `start`, judged
    and paired in the store at `path`. Nothing is done where they are there."""
    if rows.exists():
        return
    clips, source = read_row_clips(settings.data)
    folder = (settings.exported or start) if first else start
    options = settings.candidates
    writer = open_generator(folder, seed=options.seed)
    provenance = provenance_of(
        options,
        decode_options(options, writer.options(options.count)),
        model=writer.meta.name,
        fingerprint=model_fingerprint(folder),
    )
    languages = [one for one in settings.data.languages if one in writer.meta.languages]
    words = WordList.of(known_texts(settings.data.rows))
    with PreferenceStore(path) as store:
        for language in languages:
            for _ in find_row_candidates(
                clips,
                writer,
                store,
                options=options,
                provenance=provenance,
                language=language,
                words=words,
            ):
                pass
        fresh = _found_first(store, provenance) if not first else None
        judge_store(settings, store, path, fresh)
        for _ in pair_all(store, settings.pairs, source=provenance):
            pass
        told = variety(store, provenance)
        LOG.warning("%s", told)
        write_atomic(rows.with_name(VARIETY_FILE), json.dumps(asdict(told)))
        builder = store.pairs.latest()
        found = preference_rows(
            store,
            [(one.row, one.clip) for one in clips],
            builder=builder,
            source=provenance,
            languages=languages,
        )
        write_preference_rows(rows, source, found)


def _found_first(store: PreferenceStore, source: Provenance) -> set[str]:
    """The keys of the candidates that no source before this one found."""
    before = takewhile(lambda one: one.key != source.key, store.sources())
    return _keys(store, source) - set().union(*(_keys(store, one) for one in before))


def _keys(store: PreferenceStore, source: Provenance) -> set[str]:
    return {one.key for _, _, candidates in store.groups(source) for one in candidates}


def judge_store(
    settings: PreferSettings, store: PreferenceStore, path: Path, fresh: set[str] | None
) -> None:
    """Have each of the recipe's judges judge what it has not judged yet.

    DataError where people's choices count and nobody has chosen yet, of `fresh` candidates where
    they are given: the page is served, and the run goes on.
    """
    annotations = tuple(store.annotations.all())
    chosen = (one for one in annotations if fresh is None or {one.first, one.second} & fresh)
    if "human" in settings.pairs.judges and not any(chosen):
        raise DataError(
            f"{path}: nobody has chosen between its candidates yet; run: aligncap prefer annotate "
            f"{path} --audio-root FOLDER, and then this again with --resume"
        )
    options = JudgeOptions(
        weights=settings.evidence, annotations=annotations, model=_model_judge(settings.llm)
    )
    for name in settings.pairs.judges:
        with closing(open_judge(name, options)) as judge:
            for _ in judge_all(store, judge):
                pass


def _model_judge(settings: ModelJudgeSettings | None) -> JudgeSettings | None:
    if settings is None:
        return None
    key = os.environ.get("ALIGNCAP_JUDGE_KEY", "").strip() or None
    return JudgeSettings(
        model=settings.model,
        url=settings.url,
        key=key,
        cache=settings.cache,
        prompts=settings.prompts,
    )


def known_texts(rows: Path) -> Iterator[str]:
    """The captions of training rows."""
    for row in read_rows(rows):
        yield from chain.from_iterable(row.captions.values())


def _each_step(
    settings: PreferSettings, folder: Path, start: Path, *, dry_run: bool = False
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The recipes of a round, one after another, and what each gave."""
    learn = settings.learn
    weights = asdict(settings.evidence).items()
    # PPO's reward is the judge of DPO's pairs, or a model of that judge's preferences.
    more = [f"reward.evidence.{name}={value}" for name, value in weights]
    more = more if learn.method == "ppo" else []
    for kind in METHODS[learn.method]:
        output = folder / kind
        summary = learn_once(
            kind,
            learn.recipes,
            output,
            rows=folder / ROWS_FILE,
            start=start,
            overrides=[*more, *getattr(learn, kind)],
            dry_run=dry_run,
        )
        yield kind, summary
        more = ["reward.name=model", f'reward.model="{output / RUN_MODEL_FOLDER}"']


def learn_once(
    kind: str,
    recipes: Path,
    output: Path,
    *,
    rows: Path,
    start: Path,
    overrides: list[str],
    dry_run: bool = False,
) -> Mapping[str, object]:
    """Run dpo.toml, reward.toml or ppo.toml on these rows, from this captioner."""
    own = [f'data.rows=["{rows}"]', f'model.start="{start}"', *overrides]
    return run_recipe(
        recipes / f"{kind}.toml", overrides=own, output=output, resume=True, dry_run=dry_run
    )


PREFER = Trainer(PreferSettings, plan, run_rounds)
