"""What preferences add to KD: KD, KD+DPO and KD+PPO on validation speakers, and a control.

    python -m aligncap.experiments.preference --start runs/mini/kd/model \\
        --rows runs/mini/rows/rows.jsonl --facts runs/mini/rows/facts.jsonl

Each seed samples candidates of its own, which are judged by evidence and paired; DPO is trained on
the pairs, and PPO with the same evidence as its reward on the same clips. The control spends DPO's
steps on the captions that the pairs prefer, by cross-entropy. Steps that are done already are not
repeated.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

import aligncap
from aligncap.alignment.examples import read_rows
from aligncap.captioner.captioner import StudentInput, open_generator
from aligncap.captioner.checkpoint import load_vocabulary, model_fingerprint, read_meta
from aligncap.errors import DataError
from aligncap.experiments import Page, command, write_page
from aligncap.experiments.validation import REFERENCES, measures, tables
from aligncap.preference.candidates import RowClip, is_unchanged, join
from aligncap.preference.pipeline import ROWS_FILE, SUMMARY_FILE, learn_once
from aligncap.recipes import read_toml, run_recipe
from aligncap.storage import fingerprint_of_arrays, hash_of, hash_of_parts, write_atomic

LANGUAGE = "en"

SCORED = ("ravdess", "emodb", "ased", "nemo")
"""Whose validation clips are scored."""

KD, DPO, CHOSEN, PPO = "KD", "KD + DPO", "KD + CE on the chosen", "KD + PPO"

LIKELIHOOD_ALONE = ("loss.beta=1e-9", "loss.likelihood_weight=1.0")
"""Of DPO's loss it leaves the chosen captions' cross-entropy: the gradient of the rest is in
proportion to beta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of the experiment."""

    start: Path
    rows: Path
    facts: Path
    recipes: Path
    runs: Path
    clips: int
    steps: int
    ppo_steps: int
    beam: int
    change: Sequence[str]
    dpo: Sequence[str]
    ppo: Sequence[str]
    corpora: Sequence[str] = SCORED

    @property
    def folder(self) -> Path:
        """Runs of these settings: the learning rate falls over a whole run, so other steps are
        other runs."""
        parts = [str(self.clips), str(self.steps), str(self.ppo_steps), *self.change]
        parts += [*self.dpo, "/", *self.ppo, model_fingerprint(self.start)]
        return self.runs / hash_of("|".join(parts))[:12]


def train(options: Options, seed: int) -> dict[str, Path]:
    """The model folders of one seed by arm, trained as far as they are not there."""
    folder = options.folder / f"seed-{seed}"
    dpo = [f"training.steps={options.steps}", f"training.seed={seed}", *options.dpo]
    summary = run_recipe(
        options.recipes / "prefer.toml",
        overrides=[
            f'start="{options.start}"',
            "exported=none",  # the recipe's is of its own start
            f'data.rows="{options.rows}"',
            f'data.facts="{options.facts}"',
            f"data.clips={options.clips}",
            f"candidates.seed={seed}",
            f'learn.recipes="{options.recipes}"',
            f"learn.dpo={json.dumps(dpo)}",
            *options.change,
        ],
        output=folder / "dpo",
        resume=True,
    )
    learnt = folder / "dpo" / "round-1"
    rows = learnt / ROWS_FILE
    chosen = [*dpo, *LIKELIHOOD_ALONE, f'reference="{learnt / "dpo" / "reference"}"']
    # The reward is the judge that DPO's pairs are from.
    weights = [f"reward.{one}" for one in options.change if one.startswith("evidence.")]
    ppo = [f"training.steps={options.ppo_steps}", f"training.seed={seed}", *weights, *options.ppo]
    return {
        DPO: Path(str(summary["model"])),
        CHOSEN: _learnt("dpo", folder / "chosen", rows, options, chosen),
        PPO: _learnt("ppo", folder / "ppo", rows, options, ppo),
    }


def _learnt(
    kind: Literal["dpo", "ppo"], folder: Path, rows: Path, options: Options, overrides: list[str]
) -> Path:
    """The model that a recipe makes of the rows, trained as far as it is not there."""
    written = folder / SUMMARY_FILE
    if not written.exists():
        found = learn_once(
            kind, options.recipes, folder, rows=rows, start=options.start, overrides=overrides
        )
        write_atomic(written, json.dumps(found, default=str))
    return folder / "model"


def validation_clips(options: Options) -> list[RowClip]:
    """The validation rows of the scored corpora, as training knows them."""
    manifests = [
        Path(one) for one in read_toml(options.recipes / "prefer.toml")["data"]["manifests"]
    ]
    kept = [
        row
        for row in read_rows(options.rows)
        if row.split == "validation"
        and row.corpus in options.corpora
        and row.speech is not None
        and is_unchanged(row)
    ]
    if not kept:
        raise DataError(f"{options.rows}: no validation row of {', '.join(options.corpora)}")
    return join(kept, manifests, options.facts)


def captions_of(model: Path, clips: Sequence[RowClip], *, beam: int, cache: Path) -> list[str]:
    """The model's caption of each clip, by a beam search; kept in `cache` by the model, the beam
    and what the model reads."""
    meta = read_meta(model)
    inputs = [one.student_input(meta, LANGUAGE) for one in clips]
    parts = [f"{model_fingerprint(model)}|{beam}", *map(_read_by_model, inputs)]
    path = cache / f"captions-{hash_of_parts(parts)[:20]}.json"
    if path.exists():
        return [str(text) for text in json.loads(path.read_text("utf-8"))]
    generator = open_generator(model)
    found = generator.generate(inputs, language=LANGUAGE, options=generator.options(beam))
    # A caption is one line; the runs of a clip are joined by line.
    texts = [" ".join(hypotheses[0].text.split()) for hypotheses in found]
    write_atomic(path, json.dumps(texts, ensure_ascii=False))
    return texts


def _read_by_model(one: StudentInput) -> str:
    """A hash of a prompt's speech, P_act and plan."""
    tokens = one.tokens
    vectors = [("vectors", tokens.features.read())] if tokens.features else []
    return fingerprint_of_arrays(
        {"act": one.act, "plan": one.plan}, [("codes", tokens.codes), *vectors]
    )


def report(options: Options, seeds: int) -> Page:
    """Train every arm with every seed, caption, score; the page."""
    clips = validation_clips(options)
    cache = options.runs / "captions"
    captions: dict[str, list[list[str]]] = {
        KD: [captions_of(options.start, clips, beam=options.beam, cache=cache)]
    }
    for seed in range(seeds):
        for name, model in train(options, seed).items():
            found = captions_of(model, clips, beam=options.beam, cache=cache)
            captions.setdefault(name, []).append(found)
    vocabulary = load_vocabulary(options.start, read_meta(options.start))
    metrics = measures(
        {one.clip.utterance: one.clip.knowledge for one in clips},
        language=LANGUAGE,
        tokens=lambda text: len(vocabulary.encode_text(text)),
    )
    asked = command("preference", start=options.start, rows=options.rows, facts=options.facts)
    changes = {"prefer": options.change, "dpo": options.dpo, "ppo": options.ppo}
    changed = [f"{name} {list(own)}" for name, own in changes.items() if own]
    made = (
        f"Made by `{asked}`; do not edit. Signature: aligncap {aligncap.__version__} · "
        f"{options.clips} training clips · DPO {options.steps} steps · PPO {options.ppo_steps} "
        f"steps · {seeds} seeds, mean ± sd · beam {options.beam}, English captions of {len(clips)} "
        f"validation clips ({', '.join(options.corpora)}) · {REFERENCES} references of the "
        f"paraphrase grammar · changes: {', '.join(changed) or 'none'}. Shares in per cent; "
        "intervals are of 95 %, by a bootstrap over clips, the runs of a clip together. "
        "What the rows mean stands in `aligncap.experiments.validation`."
    )
    title = f"Preferences: {KD}, {DPO}, {CHOSEN}, {PPO}"
    return title, made, tables(metrics, clips, captions, language=LANGUAGE)


def main(
    start: Annotated[Path, typer.Option(help="Model folder after KD.")],
    rows: Annotated[Path, typer.Option(help="Training rows with validation rows among them.")],
    facts: Annotated[Path, typer.Option(help="Facts that were measured for the rows.")],
    recipes: Annotated[
        Path, typer.Option(help="Folder of prefer.toml, dpo.toml and ppo.toml.")
    ] = Path("recipes/mini"),
    runs: Annotated[Path, typer.Option(help="Keeps every run.")] = Path("runs/preference"),
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/preference.md"
    ),
    clips: Annotated[int, typer.Option(help="Training clips that get candidates.")] = 5000,
    steps: Annotated[int, typer.Option(help="Optimiser steps of DPO.")] = 500,
    ppo_steps: Annotated[int, typer.Option(help="Optimiser steps of PPO.")] = 240,
    seeds: Annotated[int, typer.Option(help="Runs of DPO and of PPO.")] = 3,
    beam: Annotated[int, typer.Option(help="Beams of the scored captions; 1 is greedy.")] = 4,
    change: Annotated[list[str] | None, typer.Option("--set", help="Of prefer.toml.")] = None,
    dpo: Annotated[list[str] | None, typer.Option("--dpo-set", help="Of dpo.toml.")] = None,
    ppo: Annotated[list[str] | None, typer.Option("--ppo-set", help="Of ppo.toml.")] = None,
) -> None:
    """Train every arm with every seed, score it, and write the table."""
    options = Options(
        start=start,
        rows=rows,
        facts=facts,
        recipes=recipes,
        runs=runs,
        clips=clips,
        steps=steps,
        ppo_steps=ppo_steps,
        beam=beam,
        change=change or (),
        dpo=dpo or (),
        ppo=ppo or (),
    )
    write_page(output, *report(options, seeds))


if __name__ == "__main__":
    typer.run(main)
