"""The group `aligncap prefer`: candidates, judges, pairs and people's choices in one store, and the
training that follows from them."""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import fields
from itertools import combinations
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aligncap.cli.console import (
    SOME_FAILED,
    CaptionLanguage,
    Console,
    Listing,
    Overwrite,
    Progress,
    Record,
    TokenizerWeights,
    format_of,
)
from aligncap.cli.evaluate import judge_settings
from aligncap.cli.train import Changes, DryRun, Manifest, RunFolder, run_recipe
from aligncap.errors import AlignCapError, DataError, RecipeError, UnknownNameError

if TYPE_CHECKING:
    from aligncap.preference.candidates import CandidateOptions
    from aligncap.preference.store import PreferenceStore

Store = Annotated[Path, typer.Argument(metavar="STORE", help="A preference store (.sqlite).")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.jsonl).")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Prefer captions: candidates, judges, pairs, and people's choices, in one store.",
)


@app.command()
def candidates(
    context: typer.Context,
    manifest: Manifest,
    store: Annotated[
        Path, typer.Option("--store", "-s", help="The store to make or to go on with.")
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="A built-in model or a model folder.")
    ] = "mini",
    count: Annotated[int, typer.Option(min=2, max=64, help="Candidates of a clip, at most.")] = 5,
    method: Annotated[
        Literal["beam", "diverse", "sample", "claims"],
        typer.Option(
            help="How they are found; claims: as if other things had been heard, no two claiming "
            "the same; diverse beams need torch."
        ),
    ] = "beam",
    language: CaptionLanguage = "en",
    diversity: Annotated[
        float, typer.Option(help="diverse: what a token costs that another group has chosen.")
    ] = 0.5,
    temperature: Annotated[float, typer.Option(help="sample: of the distribution.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="sample: share of it that is drawn from.")] = 0.95,
    seed: Annotated[int, typer.Option(help="sample: of the draws.")] = 0,
    tokenizer_weights: TokenizerWeights = None,
) -> int:
    """Ask a model for captions of each clip; goes on where it was."""
    from aligncap.preference.candidates import CandidateOptions

    options = CandidateOptions(
        count=count,
        method=method,
        diversity=diversity,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    return _add_candidates(
        context.obj, manifest, store, model, options, language, tokenizer_weights
    )


def _add_candidates(
    console: Console,
    manifest: Path,
    path: Path,
    name: str,
    options: "CandidateOptions",
    language: str,
    tokenizer_weights: Path | None,
) -> int:
    """Find the candidates of a manifest; returns 0, or 1 if some clip could not be used."""
    from aligncap.captioner.captioner import load
    from aligncap.captioner.checkpoint import find_model, model_fingerprint
    from aligncap.captioner.runtimes import CT2_FOLDER
    from aligncap.data.manifest import read_manifest
    from aligncap.preference.candidates import find_candidates, provenance_of
    from aligncap.preference.store import PreferenceStore

    console.check_output(path, [manifest], overwrite=True)
    folder = find_model(name)
    if options.method == "diverse" and (folder / CT2_FOLDER).is_dir():
        raise RecipeError(
            f"{name}: is an exported model, and diverse beams need torch; give the folder it was "
            "exported from, or another --method"
        )
    model = load(name, seed=options.seed, tokenizer_path=tokenizer_weights)
    fingerprint = model_fingerprint(folder)
    provenance = provenance_of(
        options, model.options, model=model.meta.name, fingerprint=fingerprint
    )
    failed = added = 0
    with PreferenceStore(path) as store:
        done = store.found(provenance)
        clips = list(read_manifest(manifest))
        missing = [one for one in clips if (one.id, language) not in done]
        outcomes = find_candidates(
            missing,
            model,
            store,
            options=options,
            provenance=provenance,
            language=language,
            root=manifest.parent,
        )
        with Progress(
            console, "candidates", kept=lambda: f"{added} clips more are in {path}"
        ) as bar:
            bar.add_total(len(missing))
            for outcome in outcomes:
                bar.advance()
                if isinstance(outcome, AlignCapError):
                    failed += 1
                    console.log(str(outcome))
                else:
                    added += 1
        console.print(
            f"{path}: {added} clips added, {len(clips) - len(missing)} there already, {failed} "
            f"failed; {len(store)} captions"
        )
    return SOME_FAILED if failed else 0


LlmModel = Annotated[str | None, typer.Option(metavar="NAME|DIR", help="llm: the language model.")]
LlmUrl = Annotated[
    str | None,
    typer.Option(help="llm: base URL of its server, such as http://localhost:8000/v1."),
]
LlmCache = Annotated[Path, typer.Option(help="llm: where every reply is kept.")]
LlmPrompts = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="llm: prompts to ask in place of the built-in ones."),
]


@app.command()
def judge(
    context: typer.Context,
    store: Store,
    judge: Annotated[
        Literal["evidence", "llm", "human"], typer.Option(help="Who judges.")
    ] = "evidence",
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="evidence: what a claim is worth or costs (contradicted, invented, untold, "
            "emotion, wrong_emotion, middle, repeated); may be given several times.",
        ),
    ] = None,
    judge_model: LlmModel = None,
    judge_url: LlmUrl = None,
    judge_cache: LlmCache = Path("judge-replies.sqlite"),
    judge_prompts: LlmPrompts = None,
) -> int:
    """Judge the candidates that this judge has not judged yet."""
    from aligncap.preference.judges import EvidenceWeights, JudgeOptions, judge_all, open_judge
    from aligncap.preference.store import open_store

    console: Console = context.obj
    if judge == "llm":
        console.check_output(judge_cache, [store], overwrite=True)
    known = [one.name for one in fields(EvidenceWeights)]
    judged = 0
    with open_store(store) as opened:
        options = JudgeOptions(
            weights=EvidenceWeights(**_named_numbers(weight or [], "evidence weight", known)),
            annotations=tuple(opened.annotations.all()),
            model=judge_settings(console, judge_model, judge_url, judge_cache, judge_prompts)
            if judge == "llm"
            else None,
        )
        with (
            closing(open_judge(judge, options)) as opened_judge,
            Progress(
                console, "judging", kept=lambda: f"{judged} judgements more are in {store}"
            ) as bar,
        ):
            for new in judge_all(opened, opened_judge):
                judged += new
                bar.advance()
            signature = opened_judge.signature
        total = opened.count_judgements(signature)
    console.print(f"{store}: {total} captions judged by {signature}")
    return 0


def _named_numbers(
    settings: Sequence[str], kind: str, known: Collection[str], *, lone: float | None = None
) -> dict[str, float]:
    """ "name=0.5" as a known name and a number; a name alone has the number `lone`, if given."""
    found = {}
    for setting in settings:
        name, sign, number = setting.partition("=")
        try:
            found[name] = lone if lone is not None and not sign else float(number)
        except ValueError as error:
            raise RecipeError(f"{setting!r}: write NAME=NUMBER, such as {name}=0.5") from error
    for name in found:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    return found


@app.command()
def pairs(
    context: typer.Context,
    store: Store,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="Whose judgements count: evidence (if not given), llm, human; may be repeated.",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, help="Pairs whose scores are nearer than this are dropped.")
    ] = 0.1,
    gold: Annotated[
        bool, typer.Option("--gold", help="Also the corpus' caption against the best candidate.")
    ] = False,
    differ: Annotated[
        bool,
        typer.Option(
            "--differ",
            help="Only captions that differ in what they claim; no opening is preferred as such.",
        ),
    ] = False,
) -> int:
    """Pair the best candidate of each clip with each of the rest."""
    from aligncap.preference.judges import JUDGES
    from aligncap.preference.pairs import PairOptions, pair_all, variety
    from aligncap.preference.store import open_store

    console: Console = context.obj
    judges = _named_numbers(judge or ["evidence"], "judge", JUDGES, lone=1.0)
    options = PairOptions(
        least_margin=margin, gold=gold, differ=differ, judges=MappingProxyType(judges)
    )
    clips = paired = made = 0
    with (
        open_store(store) as opened,
        Progress(
            console, "pairing", kept=lambda: f"the pairs of {clips} clips are in {store}"
        ) as bar,
    ):
        for count in pair_all(opened, options):
            clips += 1
            paired += count > 0
            made += count
            bar.advance()
        for name in judges:
            left = len(opened) - opened.count_judgements(opened.latest_judge(name))
            if left and name != "human":  # people judge some pairs only
                console.log(f"{left} captions are not judged by {name} yet: aligncap prefer judge")
        told = [str(variety(opened))] if differ else []
    console.print(f"{store}: {made} pairs of {paired} clips, of {clips}", *told)
    return 0


@app.command()
def annotate(
    context: typer.Context,
    store: Store,
    audio_root: Annotated[
        Path, typer.Option(help="Folder of the recordings; none outside of it is played.")
    ],
    annotator: Annotated[
        str | None, typer.Option(help="Who listens; the page asks if not given.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pairs that everybody is given.")
    ] = 0.2,
    per_clip: Annotated[int, typer.Option(min=1, help="Pairs of a clip, at most.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any.")] = 8765,
) -> int:
    """Serve a page where people choose (needs the serve extra)."""
    from aligncap.preference.store import open_store
    from aligncap.service import annotate as service
    from aligncap.service import web

    console: Console = context.obj
    with open_store(store) as opened:
        every = service.tasks_of(opened.groups(), per_clip=per_clip)
        with web.listen(host, port) as listener:
            tasks, missing = service.playable(every, audio_root)
            if not tasks:
                lacking = f"{store}: has no clip with two candidates to compare"
                raise DataError(missing[0] if missing else lacking)
            if missing:
                console.log(f"{len(missing)} pairs are left out, such as {missing[0]}")
            address = f"{web.address_of(host, listener)}/"
            console.print(f"{len(tasks)} pairs to judge at {address} (Ctrl-C ends it)")
            queue = service.AnnotationQueue(opened, tasks, audio_root, overlap, annotator)
            service.serve(queue, listener, host=host)
        console.log(f"{len(opened.annotations.all())} choices are in {store}")
    return 0


@app.command()
def agreement(
    context: typer.Context,
    store: Store,
    format: Annotated[Listing, typer.Option(help="How it is written.")] = "text",  # noqa: A002
) -> int:
    """Say how far judges, and people, agree."""
    from aligncap.preference.store import open_store

    console: Console = context.obj
    with open_store(store) as opened:
        record = agreement_record(opened)
    if format == "jsonl":
        console.print_record(record)
    else:
        console.print(*_agreement_lines(record))
    return 0


def agreement_record(store: "PreferenceStore") -> Record:
    """Tau-b of each two judges, alpha among people, each judge's accuracy against people."""
    from aligncap.preference.judges import (
        accuracy_against,
        kendall_tau_b,
        krippendorff_alpha,
        ratings_of,
    )

    judges = {name: store.latest_judge(name) for name in store.judge_names()}
    clips = [  # for each clip, the scores of each judge by candidate
        {
            name: {key: one.score for key, one in found.items()}
            for name, signature in judges.items()
            if (found := store.judgements(clip.utterance, language, signature))
        }
        for clip, language, _ in store.groups()
    ]
    correlations = []
    for pair in combinations(judges, 2):
        both = []
        for scores in clips:
            first, second = (scores.get(name, {}) for name in pair)
            keys = sorted(first.keys() & second.keys())
            both.append(([first[key] for key in keys], [second[key] for key in keys]))
        compared = sum(len(scores) > 1 for scores, _ in both)
        tau = _rounded(kendall_tau_b(both))
        correlations.append({"judges": list(pair), "clips": compared, "tau_b": tau})
    choices = store.annotations.all()
    accuracies = []
    for name in judges:
        if name != "human":
            by_key = {key: one for clip in clips for key, one in clip.get(name, {}).items()}
            right = accuracy_against(choices, by_key)
            accuracy = _rounded(right.value)
            accuracies.append({"judge": name, "choices": right.compared, "accuracy": accuracy})
    ratings = ratings_of(choices)
    shared = sum(sum(one is not None for one in unit) > 1 for unit in zip(*ratings, strict=True))
    return {
        "judges": judges,
        "tau_b": correlations,
        "people": {
            "annotators": len(ratings),
            "choices": len(choices),
            "shared_pairs": shared,
            "alpha_ordinal": _rounded(krippendorff_alpha(ratings, "ordinal")),
            "alpha_nominal": _rounded(krippendorff_alpha(ratings, "nominal")),
        },
        "accuracy": accuracies,
    }


def _rounded(value: float) -> float | None:
    return None if isnan(value) else round(value, 4)


def _agreement_lines(record: Record) -> list[str]:
    def number(value: float | None) -> str:
        return "cannot tell" if value is None else f"{value:.3f}"

    people = record["people"]
    return [
        *(f"{name}: {signature}" for name, signature in record["judges"].items()),
        *(
            f"Kendall's tau-b of {' and '.join(one['judges'])}: {number(one['tau_b'])} "
            f"(within {one['clips']} clips)"
            for one in record["tau_b"]
        ),
        f"Krippendorff's alpha of {people['annotators']} people: "
        f"{number(people['alpha_ordinal'])} ordinal, {number(people['alpha_nominal'])} nominal "
        f"({people['choices']} choices, {people['shared_pairs']} pairs shared)",
        *(
            f"{one['judge']} prefers what people prefer: {number(one['accuracy'])} "
            f"(of {one['choices']} choices)"
            for one in record["accuracy"]
        ),
    ]


@app.command("export")
def export_pairs(
    context: typer.Context,
    store: Store,
    out: Out,
    format: Annotated[  # noqa: A002
        Literal["trl", "llama-factory"], typer.Option(help="Who is to read them.")
    ] = "trl",
    overwrite: Overwrite = False,
) -> int:
    """Write the latest pairs for other trainers."""
    from aligncap.preference.pairs import write_pairs
    from aligncap.preference.store import open_store

    console: Console = context.obj
    _check_lines(console, out, [store], overwrite=overwrite)
    with open_store(store) as opened:
        files = {clip.utterance: clip.file for clip in opened.clips()}
        latest = opened.pairs.all(opened.pairs.latest())
        count = write_pairs(out, ((one, files[one.utterance]) for one in latest), format=format)
    console.print(f"{out}: {count} pairs for {format}")
    return 0


def _check_lines(console: Console, out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output of JSON lines that is called something else, is an input or is there."""
    console.check_output(out, inputs, overwrite=overwrite)
    format_of(out, None, {".jsonl": "jsonl", "": "jsonl"})


@app.command("import")
def import_pairs(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store; made if not there.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Pairs, in either format.")],
) -> int:
    """Read pairs that `export` or another tool wrote."""
    from aligncap.preference import pairs
    from aligncap.preference.store import PreferenceStore

    console: Console = context.obj
    console.check_output(store, [file], overwrite=True)
    if not file.is_file():
        raise DataError(f"{file}: no such file; give pairs as JSON lines")
    with PreferenceStore(store) as opened:
        count = pairs.import_pairs(opened, file)
    console.print(f"{store}: {count} pairs from {file}")
    return 0


@app.command()
def rows(
    context: typer.Context,
    store: Store,
    out: Out,
    rows: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", help="Training rows of the clips, for their tokens; may be repeated."
        ),
    ],
    overwrite: Overwrite = False,
) -> int:
    """Write the latest pairs as rows that `aligncap train` learns from (dpo, reward, ppo)."""
    from aligncap.preference.examples import write_store_rows
    from aligncap.preference.store import open_store

    console: Console = context.obj
    _check_lines(console, out, [store, *rows], overwrite=overwrite)
    with open_store(store) as opened:
        written, count, left = write_store_rows(opened, out, rows)
    if left:
        console.log(f"{left} clips of {store} are in none of the rows, and were left out")
    console.print(f"{out}: {count} pairs in {written} preference rows")
    return 0


@app.command()
def run(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe of kind prefer (.toml).")
    ],
    set: Changes = None,  # noqa: A002
    output: RunFolder = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds; each asks the policy of the one before for candidates."),
    ] = None,
    dry_run: DryRun = False,
) -> int:
    """Candidates, judge, pairs and training in one; what is done already is not done again."""
    changes = [*(set or []), *([f"rounds={rounds}"] if rounds is not None else [])]
    return run_recipe(context.obj, recipe, changes, output, resume=True, dry_run=dry_run)
