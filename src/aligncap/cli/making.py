"""`aligncap train`, `tokens`, `merge` and `export`: the verbs that make a model."""

import json
from collections.abc import Sequence
from pathlib import Path

from aligncap.cli.progress import Progress
from aligncap.cli.world import World

SOME_FAILED = 1


def train_recipe(
    recipe: Path,
    *,
    overrides: Sequence[str],
    output: Path | None,
    resume: bool,
    dry_run: bool,
    world: World,
) -> int:
    """Run a recipe and print its summary, or with `dry_run` what would be done; returns 0."""
    from aligncap.recipes import run_recipe

    summary = run_recipe(recipe, overrides=overrides, output=output, resume=resume, dry_run=dry_run)
    if not dry_run:
        from aligncap.training import is_first_process

        if not is_first_process():
            return 0
    print(json.dumps(summary, indent=2, ensure_ascii=False, default=str), file=world.stdout)
    return 0


def cache_tokens(
    manifest: Path,
    *,
    tokenizer: str,
    weights: Path | None,
    codebooks: int,
    output: Path,
    world: World,
) -> int:
    """Tokenise the speech of a manifest into a cache; returns 0, or 1 if some clip failed."""
    from aligncap.corpora.manifest import read_manifest
    from aligncap.speech import open_tokenizer, tokenize_manifest

    options = {"codebooks": codebooks} if codebooks > 1 else {}
    with Progress(world, "encoding", results_on_stdout=False) as bar:
        if manifest.is_file():  # a pipe can be read once only
            bar.expect_as_many(lambda: sum(1 for _ in read_manifest(manifest)))
        summary = tokenize_manifest(
            read_manifest(manifest),
            open_tokenizer(tokenizer, weights, **options),
            output,
            progress=lambda _: bar.advance(),
        )
    for failure in summary.failures:
        world.say(failure.reason)
    print(
        f"{output}: {summary.added} clips encoded, {summary.present} there already, "
        f"{len(summary.failures)} failed",
        file=world.stdout,
    )
    return SOME_FAILED if summary.failures else 0


def merge_model(model: Path, out: Path, *, world: World) -> int:
    """Merge a trained model into a plain checkpoint; returns 0."""
    from aligncap.captioner.merging import merge_folder

    meta = merge_folder(model, out)
    print(
        f"merged into {out}; serve it with: vllm serve {out} --served-model-name {meta.name}",
        file=world.stdout,
    )
    return 0


def export_model(model: Path, out: Path, *, quantization: str, world: World) -> int:
    """Export a trained model; returns 0."""
    from aligncap.captioner.export import export

    export(model, out, quantization=quantization)
    print(f"exported to {out}", file=world.stdout)
    return 0
