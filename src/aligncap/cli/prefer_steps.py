"""`aligncap prefer candidates`, `judge`, `pairs`, `export` and `import`: steps on one store.

`aligncap prefer agreement`: how far judges agree with each other, and with people.

`aligncap prefer annotate`: the annotation page, served until Ctrl-C.
"""

import json
import math
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from aligncap.cli.caption import Record
from aligncap.cli.console import Console, LlmOptions, Progress, stoppable, warnings_said
from aligncap.errors import (
    AlignCapError,
    DataError,
    MissingModelError,
    RecipeError,
    UnknownNameError,
)
from aligncap.preference.agreement import (
    accuracy_against,
    kendall_tau_b,
    krippendorff_alpha,
    ratings_of,
)
from aligncap.preference.candidates import CandidateOptions, find_candidates, provenance_of
from aligncap.preference.evidence import EvidenceWeights
from aligncap.preference.judges import JUDGES, JudgeOptions, judge_all, open_judge
from aligncap.preference.pairs import PairOptions, import_pairs, pair_all, write_pairs
from aligncap.preference.store import PreferenceStore, open_store
from aligncap.service.annotate import Task, tasks_of

SOME_FAILED = 1


@dataclass(frozen=True, slots=True)
class CandidateRequest:
    """What candidates are asked of, and where they go."""

    manifest: Path
    store: Path
    model: str
    language: str
    tokenizer_weights: Path | None = None


def keep_candidates(wish: CandidateRequest, options: CandidateOptions, *, world: Console) -> int:
    """Find the candidates of a manifest; returns 0, or 1 if some clip could not be used."""
    from aligncap.captioner.loading import find_model, load, model_fingerprint
    from aligncap.captioner.runtimes import CT2_FOLDER
    from aligncap.data.manifest import read_manifest

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
    path: Path, name: str, *, weights: Sequence[str], llm: LlmOptions, world: Console
) -> int:
    """Judge what is not judged yet; returns 0."""
    judged = 0
    with open_store(path) as store, warnings_said(world):
        options = JudgeOptions(
            weights=_evidence_weights(weights),
            annotations=tuple(store.annotations.all()),
            model=llm.settings(world.environment),
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
    path: Path, judges: Sequence[str], *, margin: float, gold: bool, world: Console
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


def write_store_pairs(path: Path, out: Path, *, format: str, world: Console) -> int:  # noqa: A002
    """Write the latest pairs of a store; returns 0."""
    with open_store(path) as store:
        files = {clip.utterance: clip.file for clip in store.clips()}
        pairs = store.pairs.all(store.pairs.latest())
        count = write_pairs(out, ((one, files[one.utterance]) for one in pairs), format=format)
    print(f"{out}: {count} pairs for {format}", file=world.stdout)
    return 0


def write_training_rows(path: Path, out: Path, rows: Sequence[Path], *, world: Console) -> int:
    """Write the latest pairs of a store as preference rows; returns 0."""
    from aligncap.preference.examples import write_store_rows

    with open_store(path) as store:
        written, pairs, left = write_store_rows(store, out, rows)
    if left:
        world.say(f"{left} clips of {path} are in none of the rows, and were left out")
    print(f"{out}: {pairs} pairs in {written} preference rows", file=world.stdout)
    return 0


def read_store_pairs(path: Path, file: Path, *, world: Console) -> int:
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


def show_agreement(path: Path, *, format: str, world: Console) -> int:  # noqa: A002
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
    both = []
    for scores in clips:
        a, b = scores.get(first, {}), scores.get(second, {})
        keys = sorted(a.keys() & b.keys())
        both.append(([a[key] for key in keys], [b[key] for key in keys]))
    return {
        "judges": [first, second],
        "clips": sum(len(scores) > 1 for scores, _ in both),
        "tau_b": _number(kendall_tau_b(both)),
    }


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


EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  only where it is asked for


@dataclass(frozen=True, slots=True)
class AnnotateOptions:
    """What is annotated, by whom, and where the page is."""

    store: Path
    audio_root: Path
    annotator: str | None
    overlap: float
    per_clip: int
    host: str
    port: int


def serve_page(wish: AnnotateOptions, *, world: Console) -> int:
    """Serve the annotation page; returns 0 when it is stopped."""
    try:
        import uvicorn

        from aligncap.service.annotate import AnnotationQueue, annotation_app
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"the annotation page needs {error.name}: pip install 'aligncap[serve]'"
        ) from error
    with open_store(wish.store) as store, _listening(wish.host, wish.port) as door:
        tasks = _playable(tasks_of(store.groups(), per_clip=wish.per_clip), wish, world=world)
        desk = AnnotationQueue(store, tasks, wish.audio_root, wish.overlap, wish.annotator)
        hosts = ["*"] if wish.host in EVERYWHERE else [wish.host, "localhost", "127.0.0.1"]
        server = uvicorn.Server(
            uvicorn.Config(annotation_app(desk, hosts=hosts), log_level="error")
        )
        port = door.getsockname()[1]
        print(
            f"{len(tasks)} pairs to judge at http://{wish.host}:{port}/ (Ctrl-C ends it)",
            file=world.stdout,
            flush=True,
        )
        with suppress(KeyboardInterrupt):  # the usual end
            server.run(sockets=[door])
        world.say(f"{len(store.annotations.all())} choices are in {wish.store}")
    return 0


def _playable(tasks: Sequence[Task], wish: AnnotateOptions, *, world: Console) -> list[Task]:
    """The tasks whose recordings can be played; DataError where that is none."""
    from aligncap.service.annotate import recording

    found, wrong = [], []
    for task in tasks:
        try:
            recording(wish.audio_root, task.file)
            found.append(task)
        except DataError as error:
            wrong.append(str(error))
    if not found:
        lacking = f"{wish.store}: has no clip with two candidates to compare"
        raise DataError(wrong[0] if wrong else lacking)
    if wrong:
        world.say(f"{len(wrong)} pairs are left out, such as {wrong[0]}")
    return found


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise DataError(
            f"{host}:{port}: cannot listen there ({error.strerror or error}); give another --port"
        ) from error
