"""KD-Regularization against plain cross-entropy, and the teacher prompts against each other.

    python -m aligncap.experiments.alignment --rows runs/mini/rows/rows.jsonl \\
        --start runs/mini/warmup/model --output docs/results/alignment.md

Every arm has the same start, rows, batches, steps and seeds. What is scored are greedy captions
of the validation rows: speakers that neither speech encoder nor language model was trained on.
Runs that are there already are not repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import aligncap
from aligncap.alignment.examples import TrainingRow, read_rows, student_input
from aligncap.captioner.captioner import CaptionGenerator
from aligncap.captioner.checkpoint import load_torch, read_meta
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.clues import emotion_of, find_clues
from aligncap.errors import DataError
from aligncap.experiments import command, write_page
from aligncap.metrics.claims import macro_recall
from aligncap.recipes import run_recipe
from aligncap.training.loop import read_log

ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "CE": ("ce", ()),
    "KD, teacher reads act": ("kd", ("teacher.prompt=act",)),
    "KD, teacher reads act+sem": ("kd", ("teacher.prompt=act+sem",)),
    "KD, teacher reads act+transcript": ("kd", ("teacher.prompt=act+transcript",)),
}
"""Name → recipe under recipes/mini, and what it changes."""

SCORED = ("ravdess", "emodb", "ased")


@dataclass(frozen=True, slots=True)
class Score:
    """What one run reached on the validation rows."""

    recalls: Mapping[str, float]
    """Macro recall of the emotion named in the English caption, by corpus."""
    distinct: float
    """Share of the captions that differ from all others."""
    cross_entropy: float
    """Nats a token of the reference captions, as logged at the last step."""

    @property
    def recall(self) -> float:
        """Mean over the corpora scored."""
        return float(np.mean([self.recalls[corpus] for corpus in SCORED]))


def train_arm(name: str, *, recipes: Path, runs: Path, seed: int, overrides: Sequence[str]) -> Path:
    """The run folder of an arm and a seed, trained as far as it is not there.

    RecipeError where the folder holds a run with other settings.
    """
    recipe, changes = ARMS[name]
    slug = "".join(c if c.isalnum() else "-" for c in name.lower())
    output = runs / f"{slug}-{seed}"
    run_recipe(
        recipes / f"{recipe}.toml",
        overrides=[*overrides, *changes, f"training.seed={seed}"],
        output=output,
        resume=True,
    )
    return output


def score_run(run: Path, rows: Sequence[TrainingRow]) -> Score:
    """Greedy English captions of the rows, scored by the emotion they name."""
    model, meta = load_torch(run / "model"), read_meta(run / "model")
    rules = ResponseRules.of(model.vocabulary, meta.limits.stop_characters)
    runtime = TorchRuntime(model, rules)
    builder = PromptBuilder(model.vocabulary, meta.prompts, vectors=model.vectors)
    generator = CaptionGenerator(meta, builder, runtime)
    inputs = [student_input(row, meta, "en") for row in rows]
    found = generator.generate(inputs, language="en", options=DecodeOptions(beam_size=1))
    texts = [hypotheses[0].text for hypotheses in found]
    recalls = {}
    for corpus in sorted({row.corpus for row in rows}):
        own = [n for n, row in enumerate(rows) if row.corpus == corpus]
        truth = [str(_named(rows[n].captions["en"][0])) for n in own]
        recalls[corpus] = macro_recall(truth, [_named(texts[n]) for n in own])
    losses = [line["validation_ce"] for line in read_log(run) if "validation_ce" in line]
    if not losses:
        raise DataError(f"{run}: its log has no validation_ce; train with validation.every set")
    return Score(recalls, len(set(texts)) / len(texts), losses[-1])


def _named(text: str) -> str | None:
    return emotion_of(find_clues(text, "en"))


def table(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """Markdown lines: mean ± standard deviation over seeds."""

    def cell(values: Sequence[float]) -> str:
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        return f"{np.mean(values):.3f} ± {spread:.3f}"

    head = ["arm", *SCORED, "mean recall", "distinct captions", "cross-entropy"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name, runs in scores.items():
        cells = [cell([run.recalls[corpus] for run in runs]) for corpus in SCORED]
        cells += [cell([run.recall for run in runs]), cell([run.distinct for run in runs])]
        cells.append(cell([run.cross_entropy for run in runs]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main(
    rows: Annotated[Path, typer.Option(help="Training rows with validation rows among them.")],
    start: Annotated[Path, typer.Option(help="Model folder of the warm-up.")],
    recipes: Annotated[Path, typer.Option(help="Folder of kd.toml and ce.toml.")] = Path(
        "recipes/mini"
    ),
    runs: Annotated[Path, typer.Option(help="Keeps every run.")] = Path("runs/alignment"),
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/alignment.md"
    ),
    steps: Annotated[int, typer.Option(help="Optimiser steps of every run.")] = 400,
    seeds: Annotated[int, typer.Option(help="Runs of every arm.")] = 3,
    change: Annotated[list[str] | None, typer.Option("--set", help="For every arm.")] = None,
) -> None:
    """Train every arm with every seed, score it, and write the table."""
    overrides = [
        f'data.rows=["{rows}"]',
        f'model.start="{start}"',
        f"training.steps={steps}",
        f"validation.every={steps}",
        *(change or ()),
    ]
    kept = [row for row in read_rows(rows) if row.split == "validation" and row.corpus in SCORED]
    scores: dict[str, list[Score]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name in ARMS:
            own = [*overrides]
            if ARMS[name][0] == "kd":
                own.append(f'teacher.cache="{runs / "teacher"}"')
            # The learning rate falls over the whole run: another length is another run.
            folder = runs / f"{steps}-steps"
            run = train_arm(name, recipes=recipes, runs=folder, seed=seed, overrides=own)
            scores[name].append(score_run(run, kept))
    write_page(
        output,
        "Alignment: KD against cross-entropy, teacher prompts against each other",
        f"Made by `{command('alignment', rows=rows, start=start)}`; do not edit. "
        "Signature: aligncap "
        f"{aligncap.__version__} · {steps} steps · {seeds} seeds, mean ± sd · greedy English "
        f"captions of {len(kept)} validation rows · overrides {change or 'none'}.",
        table(scores),
    )


if __name__ == "__main__":
    typer.run(main)
