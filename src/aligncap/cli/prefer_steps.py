"""`aligncap prefer candidates`, `judge`, `pairs`, `export` and `import`: steps on one store."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap.cli.messages import stoppable, warnings_said
from aligncap.cli.progress import Progress
from aligncap.cli.world import World
from aligncap.errors import AlignCapError, RecipeError, UnknownNameError
from aligncap.preference.candidates import CandidateOptions, find_candidates, provenance_of
from aligncap.preference.evidence_judge import EvidenceWeights
from aligncap.preference.exchange import import_pairs, write_pairs
from aligncap.preference.judges import JUDGES, JudgeOptions, judge_all, open_judge
from aligncap.preference.pairs import PairOptions, pair_all
from aligncap.preference.store import PreferenceStore, open_store

if TYPE_CHECKING:
    from aligncap.scoring.judge import JudgeSettings

SOME_FAILED = 1

KEY_VARIABLE = "ALIGNCAP_JUDGE_KEY"
"""Where the key of a judge's server is read from: a command line is seen by others."""


@dataclass(frozen=True, slots=True)
class CandidateWish:
    """What candidates are asked of, and where they go."""

    manifest: Path
    store: Path
    model: str
    language: str
    tokenizer_weights: Path | None = None


@dataclass(frozen=True, slots=True)
class LlmWish:
    """The language model that is to judge."""

    model: str | None
    url: str | None
    cache: Path


def keep_candidates(wish: CandidateWish, options: CandidateOptions, *, world: World) -> int:
    """Find the candidates of a manifest; returns 0, or 1 if some clip could not be used."""
    from aligncap.captioner.opening import find_model, load, model_fingerprint
    from aligncap.captioner.runtime import CT2_FOLDER
    from aligncap.corpora.manifest import read_manifest

    folder = find_model(wish.model)
    if options.method == "diverse" and (folder / CT2_FOLDER).is_dir():
        raise RecipeError(
            f"{wish.model}: is an exported model, and diverse beams need torch; give the folder "
            "it was exported from, or another --method"
        )
    model = load(wish.model, seed=options.seed, tokenizer_path=wish.tokenizer_weights)
    fingerprint = model_fingerprint(folder)
    provenance = provenance_of(
        options, model.options, model=model.meta.name, fingerprint=fingerprint
    )
    failed = added = 0
    with PreferenceStore(wish.store) as store, warnings_said(world):
        done = store.found(provenance)
        everyone = list(read_manifest(wish.manifest))
        missing = [one for one in everyone if (one.id, wish.language) not in done]
        outcomes = find_candidates(
            missing,
            model,
            store,
            options=options,
            provenance=provenance,
            language=wish.language,
            root=wish.manifest.parent,
        )
        with (
            stoppable(lambda: f"{added} clips more are in {wish.store}"),
            Progress(world, "candidates", results_on_stdout=False) as bar,
        ):
            bar.expect(missing)
            for found in outcomes:
                bar.advance()
                if isinstance(found, AlignCapError):
                    failed += 1
                    world.say(str(found))
                else:
                    added += 1
        present = len(everyone) - len(missing)
        print(
            f"{wish.store}: {added} clips added, {present} there already, {failed} failed; "
            f"{len(store)} captions",
            file=world.stdout,
        )
    return SOME_FAILED if failed else 0


def judge_candidates(
    path: Path, name: str, *, weights: Sequence[str], llm: LlmWish | None, world: World
) -> int:
    """Judge what is not judged yet; returns 0."""
    judged = 0
    with open_store(path) as store, warnings_said(world):
        options = JudgeOptions(
            weights=_evidence_weights(weights),
            annotations=tuple(store.annotations.all()),
            model=_llm_settings(llm) if llm else None,
        )
        with (
            closing(open_judge(name, options)) as judge,
            stoppable(lambda: f"{judged} judgements more are in {path}"),
            Progress(world, "judging", results_on_stdout=False) as bar,
        ):
            for new in judge_all(store, judge):
                judged += new
                bar.advance()
            signature = judge.signature
        total = store.count_judgements(signature)
    print(f"{path}: {total} captions judged by {signature}", file=world.stdout)
    return 0


def pair_candidates(
    path: Path, judges: Sequence[str], *, margin: float, gold: bool, world: World
) -> int:
    """Make the pairs of a store; returns 0."""
    named = _named_numbers(judges or ["evidence"], lone=1.0)
    for name in named:
        if name not in JUDGES:
            raise UnknownNameError("judge", name, JUDGES)
    options = PairOptions(least_margin=margin, gold=gold, judges=MappingProxyType(named))
    clips = paired = made = 0
    with (
        open_store(path) as store,
        stoppable(lambda: f"the pairs of {clips} clips are in {path}"),
        Progress(world, "pairing", results_on_stdout=False) as bar,
    ):
        for count in pair_all(store, options):
            clips += 1
            paired += count > 0
            made += count
            bar.advance()
        for name in named:
            left = len(store) - store.count_judgements(store.latest_judge(name))
            if left and name != "human":  # people judge some pairs only
                world.say(f"{left} captions are not judged by {name} yet: aligncap prefer judge")
    print(f"{path}: {made} pairs of {paired} clips, of {clips}", file=world.stdout)
    return 0


def write_store_pairs(path: Path, out: Path, *, format: str, world: World) -> int:  # noqa: A002
    """Write the latest pairs of a store; returns 0."""
    with open_store(path) as store:
        files = {clip.utterance: clip.file for clip in store.clips()}
        pairs = store.pairs.all(store.pairs.latest())
        count = write_pairs(out, ((one, files[one.utterance]) for one in pairs), format=format)
    print(f"{out}: {count} pairs for {format}", file=world.stdout)
    return 0


def write_training_rows(path: Path, out: Path, rows: Sequence[Path], *, world: World) -> int:
    """Write the latest pairs of a store as preference rows; returns 0."""
    from aligncap.preference.to_rows import write_store_rows

    with open_store(path) as store:
        written, pairs, left = write_store_rows(store, out, rows)
    if left:
        world.say(f"{left} clips of {path} are in none of the rows, and were left out")
    print(f"{out}: {pairs} pairs in {written} preference rows", file=world.stdout)
    return 0


def read_store_pairs(path: Path, file: Path, *, world: World) -> int:
    """Put the pairs of a file into a store; returns 0."""
    with PreferenceStore(path) as store:
        count = import_pairs(store, file)
    print(f"{path}: {count} pairs from {file}", file=world.stdout)
    return 0


def _evidence_weights(settings: Sequence[str]) -> EvidenceWeights:
    known = [one.name for one in fields(EvidenceWeights)]
    named = _named_numbers(settings)
    for name in named:
        if name not in known:
            raise UnknownNameError("evidence weight", name, known)
    return EvidenceWeights(**named)


def _llm_settings(wish: LlmWish) -> "JudgeSettings":
    from aligncap.scoring.judge import JudgeSettings

    if wish.model is None:
        raise RecipeError("the llm judge needs a model; give --judge-model, and --judge-url")
    key = os.environ.get(KEY_VARIABLE)
    return JudgeSettings(model=wish.model, url=wish.url, key=key, cache=wish.cache)


def _named_numbers(settings: Sequence[str], *, lone: float | None = None) -> dict[str, float]:
    """ "name=0.5" as a name and a number; a name alone has the number `lone`, if one is given."""
    found = {}
    for setting in settings:
        name, sign, number = setting.partition("=")
        try:
            found[name] = lone if lone is not None and not sign else float(number)
        except ValueError as error:
            raise RecipeError(f"{setting!r}: write NAME=NUMBER, such as {name}=0.5") from error
    return found
