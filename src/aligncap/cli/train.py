"""From a corpus to a model: the group `aligncap corpus`, and the verbs `tokens`, `train`, `merge`
and `export`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aligncap.cli.console import SOME_FAILED, Console, Overwrite, Progress
from aligncap.storage import check_outputs

if TYPE_CHECKING:
    from aligncap.data.doctor import Report
    from aligncap.data.layouts import Fault
    from aligncap.data.splits import Leaks, Split

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (.toml).")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
RunFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the run; runs/RECIPE if not given."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the recipe and say what would be done.")
]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (.jsonl).")]
TrainedModel = Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model's folder.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")]


def train(
    context: typer.Context,
    recipe: Recipe,
    set: Changes = None,  # noqa: A002
    output: RunFolder = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run.")
    ] = False,
    dry_run: DryRun = False,
) -> int:
    """Train what a recipe describes (needs the train extra)."""
    return run_recipe(context.obj, recipe, set or [], output, resume=resume, dry_run=dry_run)


def run_recipe(
    console: Console,
    recipe: Path,
    changes: list[str],
    output: Path | None,
    *,
    resume: bool,
    dry_run: bool,
) -> int:
    """Run a recipe and print its summary, or with `dry_run` what would be done; returns 0."""
    from aligncap import recipes

    summary = recipes.run_recipe(
        recipe, overrides=changes, output=output, resume=resume, dry_run=dry_run
    )
    if not dry_run:
        from aligncap.training.devices import is_first_process

        if not is_first_process():
            return 0
    console.print(json.dumps(summary, indent=2, ensure_ascii=False, default=str))
    return 0


def tokens(
    context: typer.Context,
    manifest: Manifest,
    tokenizer: Annotated[
        str, typer.Option(metavar="NAME", help="speechtokenizer, mimi or builtin.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the token cache.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The tokenizer's weights; builtin: mini's if not given."),
    ] = None,
    codebooks: Annotated[
        int, typer.Option(min=1, help="speechtokenizer, mimi: RVQ layers; 1 is the paper's.")
    ] = 1,
) -> int:
    """Turn the speech of a manifest into tokens, once, for training."""
    from aligncap.data.manifest import read_manifest
    from aligncap.tokenizers import open_tokenizer
    from aligncap.tokenizers.cache import tokenize_manifest

    console: Console = context.obj
    options = {"codebooks": codebooks} if codebooks > 1 else {}
    with Progress(console, "encoding") as bar:
        if bar.shown and manifest.is_file():  # a pipe can be read once only
            bar.add_total(sum(1 for _ in read_manifest(manifest)))
        summary = tokenize_manifest(
            read_manifest(manifest),
            open_tokenizer(tokenizer, weights, **options),
            output,
            progress=lambda _: bar.advance(),
        )
    for failure in summary.failures:
        console.log(failure.reason)
    console.print(
        f"{output}: {summary.added} clips encoded, {summary.present} there already, "
        f"{len(summary.failures)} failed"
    )
    return SOME_FAILED if summary.failures else 0


def merge(
    context: typer.Context, model: TrainedModel, out: ModelFolder, overwrite: Overwrite = False
) -> int:
    """Merge a trained model for transformers and vLLM (needs the train extra).

    OUT is a plain checkpoint in which speech tokens are ordinary tokens; its README says what
    prompt to send.
    """
    from aligncap.captioner.export import merge_folder

    check_outputs([out], [model], overwrite=overwrite)
    name = merge_folder(model, out).name
    console: Console = context.obj
    console.print(f"merged into {out}; serve it with: vllm serve {out} --served-model-name {name}")
    return 0


def export(
    context: typer.Context,
    model: TrainedModel,
    out: ModelFolder,
    quantization: Annotated[
        Literal["int8", "float32"], typer.Option(help="Weights of the language model.")
    ] = "int8",
    overwrite: Overwrite = False,
) -> int:
    """Make a model that captions without torch from a trained one (needs the train extra)."""
    from aligncap.captioner import export as exporting

    check_outputs([out], [model], overwrite=overwrite)
    exporting.export(model, out, quantization=quantization)
    console: Console = context.obj
    console.print(f"exported to {out}")
    return 0


def finetune(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CLIPS",
            help="A manifest (.jsonl), a table (.csv, .tsv: file, emotion, speaker, caption), or a "
            "folder of folders called like emotions.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The model to make.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="The exported model to begin with.")
    ] = "mini",
    captions: Annotated[
        bool,
        typer.Option(
            "--captions/--labels-only",
            help="Whether the language model learns from captions, if there are any (needs the "
            "train extra).",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is and what would be done.")
    ] = False,
    overwrite: Overwrite = False,
) -> int:
    """Adapt a model to clips of your own with labels or captions, and say what it gained.

    A run that was stopped goes on with the same command.
    """
    from aligncap.alignment import finetune as finetuning
    from aligncap.captioner.checkpoint import find_model
    from aligncap.data.own_clips import check_clips, read_clips

    console: Console = context.obj
    folder = find_model(model)
    check_outputs([out], [source, folder], overwrite=overwrite)
    finetuning.check_model(folder)
    found = read_clips(source)
    check_clips(found)
    console.print(*finetuning.plan(found, captions=captions))
    report = None
    if not dry_run:
        with Progress(console, "hearing", kept=lambda: "what was heard so far is kept") as bar:
            bar.add_total(len(found.clips))
            report = finetuning.finetune(
                found, folder, out, captions=captions, progress=lambda _: bar.advance()
            )
    faults = report.faults if report else found.faults
    for fault in faults[:SHOWN_OF_A_KIND]:
        console.log(fault)
    if len(faults) > SHOWN_OF_A_KIND:
        console.log(f"{len(faults) - SHOWN_OF_A_KIND} more clips are left out")
    if report:
        console.print(*report.lines(), f"use it: aligncap caption FILE --model {out}")
    return SOME_FAILED if faults else 0


CORPORA = {
    "emosec": "EMOSEC: captions over the sound of ESD and IEMOCAP.",
    "mer2023": "MER2023: films with labels, and EMER's captions.",
    "nnime": "NNIME: Mandarin dialogues, no captions.",
    "secap": "SECap's test set: Mandarin with Chinese captions.",
    "esd": "ESD: 350 sentences, five emotions, twenty speakers.",
    "iemocap": "IEMOCAP: English dialogues.",
    "ravdess": "RAVDESS: two English sentences by 24 actors.",
    "emodb": "EmoDB: ten German sentences by ten actors.",
    "folder": "Sound files with captions (clip.txt), labels (clip.json).",
}
"""Corpus → help of its verb; the names are those of `data.captioned`, whose import takes numpy."""

SHOWN_OF_A_KIND = 5
"""A corpus that lacks a folder has thousands of faults of one kind; all are in a file."""

SplitBy = Literal["random", "speaker"]
Source = Annotated[
    Path, typer.Argument(metavar="SRC", help="The folder of the corpus, as it was shipped.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the manifest.")
]
SplitOption = Annotated[
    SplitBy | None,
    typer.Option(
        help="Also write train, validation and test, 8:1:1: at random as the paper does, or with "
        "each speaker in one of them only."
    ),
]
Salt = Annotated[str, typer.Option(metavar="TEXT", help="Another text gives another split.")]
Subset = Annotated[
    bool,
    typer.Option("--subset", help="It is part of the corpus: do not check how many clips it has."),
]

corpus = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Corpora as shipped, to manifests: prepare, split, and look for faults.",
)


def _prepare(name: str) -> Callable[..., int]:
    """The verb that prepares one corpus."""

    def prepare(
        context: typer.Context,
        source: Source,
        out: Out,
        split: SplitOption = None,
        salt: Salt = "",
        subset: Subset = False,
        overwrite: Overwrite = False,
    ) -> int:
        from aligncap.data import captioned, doctor
        from aligncap.data.splits import FILES, Split

        written = (doctor.MANIFEST, *FILES, doctor.REPORT, doctor.FAULTS)
        check_outputs([out / name for name in written], [], overwrite=overwrite)
        console: Console = context.obj
        faults: Counter[str] = Counter()

        def log(fault: "Fault") -> None:
            faults[fault.kind] += 1
            if faults[fault.kind] <= SHOWN_OF_A_KIND:
                console.log(str(fault))

        with Progress(console, "reading", kept=lambda: "what was read so far is kept") as bar:
            report = doctor.prepare(
                captioned.open_corpus(name),
                source,
                out,
                counts={} if subset else None,
                split=Split(split, salt) if split else None,
                on_fault=log,
                progress=bar.advance,
            )
        for kind, count in faults.items():
            if count > SHOWN_OF_A_KIND:
                more = count - SHOWN_OF_A_KIND
                console.log(f"{kind}: {more:,} more are in {out / doctor.FAULTS}")
        return _print_report(console, out / doctor.MANIFEST, report)

    return prepare


for _name, _help in CORPORA.items():
    corpus.command(_name, help=_help)(_prepare(_name))


@corpus.command()
def split(
    context: typer.Context,
    manifest: Manifest,
    out: Out,
    by: Annotated[SplitBy, typer.Option(help="As for the corpora.")] = "random",
    salt: Salt = "",
    overwrite: Overwrite = False,
) -> int:
    """Split a manifest into train, validation and test."""
    from aligncap.data import splits

    check_outputs([out / name for name in splits.FILES], [manifest], overwrite=overwrite)
    console: Console = context.obj
    asked = splits.Split(by, salt)
    out.mkdir(parents=True, exist_ok=True)
    with (
        Progress(console, "splitting", kept=lambda: "nothing was changed"),
        splits.Seen(out) as seen,
    ):
        counts = splits.split_manifest(manifest, out, asked, seen)
        leaks = splits.count_leaks(seen)
        faults = [*splits.leak_faults(seen, asked), *splits.empty_parts(seen, counts, asked)]
    for fault in faults:
        console.log(str(fault))
    _print_split(console, counts, leaks, asked)
    return SOME_FAILED if faults else 0


@corpus.command()
def doctor(
    context: typer.Context,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST|DIR",
            help="A manifest, a prepared folder, or with --corpus a corpus as it was shipped.",
        ),
    ],
    corpus: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it is; if not given, what its report says."),
    ] = None,
    subset: Subset = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read the heads of the sound files only.")
    ] = False,
) -> int:
    """Look for faults; each is a line with what to do."""
    from aligncap.data.captioned import open_corpus
    from aligncap.data.doctor import examine

    console: Console = context.obj
    with Progress(console, "looking", kept=lambda: "nothing was changed") as bar:
        report = examine(
            target,
            corpus=open_corpus(corpus) if corpus else None,
            counts={} if subset else None,
            headers_only=quick,
            on_fault=lambda fault: console.print(str(fault)),
            progress=bar.advance,
        )
    return _print_report(console, target, report)


def _print_report(console: Console, target: Path, report: "Report") -> int:
    """Print what was found of a corpus; returns 1 if it has faults, else 0."""
    tally = report.tally
    faults = ", ".join(f"{count:,} {kind}" for kind, count in tally.faults.items()) or "none"
    rates = ", ".join(f"{rate:,} Hz" for rate in sorted(tally.rates_hz))
    console.print(
        f"{target}: {tally.clips:,} clips, {tally.seconds / 3600:.2f} h, "
        f"{report.speakers:,} speakers, {tally.captions:,} captions"
        f"{f', {rates}' if rates else ''}; faults: {faults}"
    )
    if report.parts and report.leaks is not None:
        _print_split(console, report.parts, report.leaks, report.split)
    return SOME_FAILED if report.faults else 0


def _print_split(
    console: Console, counts: Mapping[str, int], leaks: "Leaks", split: "Split | None"
) -> None:
    """Print how a corpus was split and what lies on both sides."""
    how = f"split by {split.by}, salt {split.salt!r}" if split else "split"
    lengths = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    console.print(
        f"{how}: {lengths}",
        f"in more than one part: {leaks.speakers:,} speakers, {leaks.sentences:,} sentences, "
        f"{leaks.sounds:,} sounds",
    )
