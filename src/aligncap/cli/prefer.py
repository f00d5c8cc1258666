"""The verbs of `aligncap prefer` that lead to a trained model: `rows` and `run`.

The group `aligncap prefer` and its options; each verb imports what it needs when called.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aligncap.cli.console import Console
from aligncap.cli.verbs import Changes, DryRun, Language, Listing, RunFolder, TokenizerWeights


def write_rows(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A preference store (.sqlite).")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.jsonl).")],
    rows: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", help="Training rows of the clips, for their tokens; may be repeated."
        ),
    ],
) -> None:
    """Write the latest pairs as rows that `aligncap train` learns from (dpo, reward, ppo)."""
    from aligncap.cli.prefer_steps import write_training_rows

    raise typer.Exit(write_training_rows(store, out, rows, world=context.ensure_object(Console)))


def run_whole(
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
) -> None:
    """Candidates, judge, pairs and training in one; what is done already is not done again."""
    from aligncap.cli.measure import train_recipe

    changes = [*(set or []), *([f"rounds={rounds}"] if rounds is not None else [])]
    raise typer.Exit(
        train_recipe(
            recipe,
            overrides=changes,
            output=output,
            resume=True,
            dry_run=dry_run,
            world=context.ensure_object(Console),
        )
    )


class Method(StrEnum):
    """How a model is asked for candidates."""

    BEAM = "beam"
    DIVERSE = "diverse"
    SAMPLE = "sample"


class JudgeName(StrEnum):
    """Who judges."""

    EVIDENCE = "evidence"
    LLM = "llm"
    HUMAN = "human"


class PairFormat(StrEnum):
    """Who reads the pairs."""

    TRL = "trl"
    LLAMA_FACTORY = "llama-factory"


app = typer.Typer(
    no_args_is_help=True,
    help="Prefer captions: candidates, judges, pairs, and people's choices, in one store.",
)

Store = Annotated[Path, typer.Argument(metavar="STORE", help="A preference store (.sqlite).")]


@app.command()
def candidates(
    context: typer.Context,
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (.jsonl).")],
    store: Annotated[
        Path, typer.Option("--store", "-s", help="The store to make or to go on with.")
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="A built-in model or a model folder.")
    ] = "mini",
    count: Annotated[int, typer.Option(min=2, max=64, help="Candidates of a clip, at most.")] = 5,
    method: Annotated[
        Method, typer.Option(help="How they are found; diverse beams need torch.")
    ] = Method.BEAM,
    language: Annotated[Language, typer.Option(help="Language of the captions.")] = Language.EN,
    diversity: Annotated[
        float, typer.Option(help="diverse: what a token costs that another group has chosen.")
    ] = 0.5,
    temperature: Annotated[float, typer.Option(help="sample: of the distribution.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="sample: share of it that is drawn from.")] = 0.95,
    seed: Annotated[int, typer.Option(help="sample: of the draws.")] = 0,
    tokenizer_weights: TokenizerWeights = None,
) -> None:
    """Ask a model for captions of each clip; goes on where it was."""
    from aligncap.cli.prefer_steps import CandidateRequest, keep_candidates
    from aligncap.preference.candidates import CandidateOptions

    options = CandidateOptions(
        count=count,
        method=method.value,
        diversity=diversity,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    wish = CandidateRequest(manifest, store, model, language.value, tokenizer_weights)
    raise typer.Exit(keep_candidates(wish, options, world=context.ensure_object(Console)))


@app.command()
def judge(
    context: typer.Context,
    store: Store,
    judge: Annotated[JudgeName, typer.Option(help="Who judges.")] = JudgeName.EVIDENCE,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="evidence: what a claim is worth or costs (contradicted, invented, untold, "
            "emotion, wrong_emotion, middle); may be repeated.",
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="llm: the language model.")
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(help="llm: base URL of its server, such as http://localhost:8000/v1."),
    ] = None,
    judge_cache: Annotated[Path, typer.Option(help="llm: where every reply is kept.")] = Path(
        "judge-replies.sqlite"
    ),
    judge_prompts: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="llm: prompts to ask in place of the built-in ones."),
    ] = None,
) -> None:
    """Judge the candidates that this judge has not judged yet."""
    from aligncap.cli.console import LlmOptions
    from aligncap.cli.prefer_steps import judge_candidates

    llm = LlmOptions()
    if judge is JudgeName.LLM:
        llm = LlmOptions(model=judge_model, url=judge_url, cache=judge_cache, prompts=judge_prompts)
    raise typer.Exit(
        judge_candidates(
            store, judge.value, weights=weight or [], llm=llm, world=context.ensure_object(Console)
        )
    )


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
) -> None:
    """Pair the best candidate of each clip with each of the rest."""
    from aligncap.cli.prefer_steps import pair_candidates

    raise typer.Exit(
        pair_candidates(
            store, judge or [], margin=margin, gold=gold, world=context.ensure_object(Console)
        )
    )


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
) -> None:
    """Serve a page where people choose (needs the serve extra)."""
    from aligncap.cli.prefer_steps import AnnotateOptions, serve_page

    wish = AnnotateOptions(store, audio_root, annotator, overlap, per_clip, host, port)
    raise typer.Exit(serve_page(wish, world=context.ensure_object(Console)))


@app.command()
def agreement(
    context: typer.Context,
    store: Store,
    format: Annotated[  # noqa: A002
        Listing, typer.Option(help="How it is written.")
    ] = Listing.TEXT,
) -> None:
    """Say how far judges, and people, agree."""
    from aligncap.cli.prefer_steps import show_agreement

    raise typer.Exit(
        show_agreement(store, format=format.value, world=context.ensure_object(Console))
    )


@app.command("export")
def export_pairs(
    context: typer.Context,
    store: Store,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write (.jsonl).")],
    format: Annotated[  # noqa: A002
        PairFormat, typer.Option(help="Who is to read them.")
    ] = PairFormat.TRL,
) -> None:
    """Write the latest pairs for other trainers."""
    from aligncap.cli.prefer_steps import write_store_pairs

    raise typer.Exit(
        write_store_pairs(store, out, format=format.value, world=context.ensure_object(Console))
    )


@app.command("import")
def import_pairs(
    context: typer.Context,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store; made if not there.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Pairs, in either format.")],
) -> None:
    """Read pairs that `export` or another tool wrote."""
    from aligncap.cli.prefer_steps import read_store_pairs

    raise typer.Exit(read_store_pairs(store, file, world=context.ensure_object(Console)))


app.command("rows")(write_rows)
app.command("run")(run_whole)
