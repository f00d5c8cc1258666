"""`aligncap annotate`: a corpus in, the same with columns for expressive text-to-speech out."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aligncap.cli.console import SOME_FAILED, CaptionLanguage, Console, Overwrite, Progress
from aligncap.errors import DataError, RecipeError

if TYPE_CHECKING:
    from aligncap.tts.annotator import AnnotateSettings
    from aligncap.tts.runs import AnnotateRun

Corpus = Annotated[
    Path,
    typer.Argument(
        metavar="CORPUS",
        help="A folder of sounds, of parquet or of webdataset's tars, one that save_to_disk "
        "wrote, a manifest (.jsonl, .csv), a .parquet file or a .tar.",
    ),
]


def _column(of_what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="NAME", help=f"Column of {of_what}.")
    return option


Bins = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Edges and words of pace, noise, pitch: v01, v02, paraspeechcaps, none, a .json.",
    ),
]

Per = Annotated[
    Literal["speaker"] | None,
    typer.Option(help="Captions relative to how the speaker usually sounds."),
]


def annotate(
    context: typer.Context,
    corpus: Corpus,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write parquet shards to.")],
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="A built-in model, or a model folder.")
    ] = "mini",
    language: CaptionLanguage = "en",
    bins: Bins = "v02",
    audio: Annotated[bool, typer.Option(help="Write the recordings too.")] = True,
    audio_column: Annotated[str | None, _column("the recordings, if unusual")] = None,
    text_column: Annotated[str | None, _column("the transcripts, if unusual")] = None,
    speaker_column: Annotated[str | None, _column("the speakers, if unusual")] = None,
    one_speaker: Annotated[
        bool, typer.Option("--one-speaker", help="All recordings are of one voice.")
    ] = False,
    per: Per = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, each with its own model.")] = 1,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Which part this machine does, from 0/N; RANK or SLURM's, else."
        ),
    ] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows of a shard, at most.")] = 512,
    overwrite: Overwrite = False,
) -> int:
    """Annotate a corpus for text-to-speech: captions, numbers, texts (needs the tts extra)."""
    from aligncap.tts.annotator import AnnotateSettings
    from aligncap.tts.runs import AnnotateRun
    from aligncap.tts.sources import open_corpus

    console: Console = context.obj
    if one_speaker and speaker_column:
        raise RecipeError("--one-speaker says whose voice it is, --speaker-column too; give one")
    settings = AnnotateSettings(
        model=model,
        language=language,
        bins=bins,
        audio=audio_column,
        text=text_column,
        speaker="*" if one_speaker else speaker_column,
        per_speaker=per == "speaker",
    )
    _check_out(corpus, out)
    run = AnnotateRun(
        open_corpus(corpus, shard_rows, audio_column),
        out,
        settings,
        audio=audio,
        jobs=jobs,
        part=part_of(shard, console.environment),
        open_model=Opener(console.load_model),
    )
    if overwrite:
        run.remove_earlier()
    return _show(run, console)


class Opener:
    """Opens the model of some settings by a function of a console."""

    def __init__(self, load_model: object) -> None:
        self._load_model = load_model

    def __call__(self, settings: "AnnotateSettings") -> object:
        """The captioner."""
        assert callable(self._load_model)
        return self._load_model(settings.model, threads=settings.threads)


def _check_out(corpus: Path, out: Path) -> None:
    """Refuse a folder that holds the corpus or lies in it."""
    if corpus.exists() and (
        out.resolve() == corpus.resolve() or corpus.resolve().is_relative_to(out.resolve())
    ):
        raise DataError(f"{out}: holds {corpus}, which this command reads; choose another --out")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is no folder; choose another --out")
    if corpus.is_dir() and out.resolve().is_relative_to(corpus.resolve()):
        raise DataError(
            f"{out}: lies in {corpus}, of which it would be a part; choose another --out"
        )


NUMBERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Variables that say which process this is and how many there are."""


def part_of(shard: str | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Which part is done here, from 0, and of how many: as typed, or as launchers tell it."""
    if shard is None:
        shard = next(
            (
                f"{environment[i]}/{environment[n]}"
                for i, n in NUMBERS
                if {i, n} <= environment.keys()
            ),
            _of_array(environment),
        )
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise RecipeError(f"--shard {shard}: must be I/N, from 0/N to (N-1)/N, as 0/4")
    return int(number), int(count)


def _of_array(environment: Mapping[str, str]) -> str:
    """The part that a task of a SLURM array does."""
    task, count = (environment.get(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
    first = environment.get("SLURM_ARRAY_TASK_MIN", "0")
    if task is None or count is None or not (task.isdecimal() and first.isdecimal()):
        return "0/1"
    return f"{int(task) - int(first)}/{count}"


def _show(run: "AnnotateRun", console: Console) -> int:
    """Run, with a bar, and say what it came to."""
    counts = [shard.count for shard in run.corpus.shards]
    kept = f"shards that are done are in {run.out}"
    if run.settings.per_speaker and run.left:
        run.check_plan()  # before anything is heard
        with Progress(console, "hearing the speakers", kept=lambda: kept):
            run.usual  # noqa: B018
    started, done, sound_s = time.monotonic(), 0, 0.0
    with Progress(console, "annotating", kept=lambda: kept) as bar:
        if None not in counts:
            own, of = run.part
            bar.add_total(sum(one or 0 for one in counts[own::of]))

        def told(rows: int, seconds: float) -> None:
            nonlocal done, sound_s
            done, sound_s = done + rows, sound_s + seconds
            took = max(time.monotonic() - started, 1e-6)
            bar.describe(f"{done / took:.1f} clips/s, {sound_s / took:.0f} x real time")
            for _ in range(rows):
                bar.advance()

        already = run.done()
        told(already, 0.0)
        done = 0
        summary = run(told)
    took = max(time.monotonic() - started, 1e-6)
    if done:
        console.log(
            f"{done} clips, {sound_s / 3600:.2f} h of sound in {took:.0f} s: "
            f"{done / took:.1f} clips/s, {sound_s / took:.0f} x real time"
        )
    if summary.unmeasured:
        console.print(
            f"{summary.rows} clips are annotated, {summary.unmeasured} shards are others' to do; "
            f"whoever ends last writes {run.out}"
        )
    else:
        console.print(f"{run.out}: {summary.rows} clips, {summary.sound_s / 3600:.2f} h of sound")
    if summary.failed:
        console.log(f"{summary.failed} of {summary.rows} clips have an error in their column error")
    return SOME_FAILED if summary.failed else 0
