"""Captions of the validation speakers, scored: what the model card and the README report.

    python -m aligncap.experiments.validation --model mini --data ../shared/data/speech \\
        --output docs/results/validation.md

Every speaker is one that the model was never trained on (`data.splits.validation_split`).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import aligncap
from aligncap.captioner.checkpoint import read_meta, write_meta
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import validation_split
from aligncap.errors import AlignCapError
from aligncap.experiments.tables import (
    CORPORA,
    KERNELS,
    LABELLED,
    Captioned,
    bootstrap_interval,
    claim_lines,
    distinct_line,
    emotion_table,
    functionals,
    gender_lines,
    svm_answers,
)
from aligncap.metrics.claims import macro_recall


def caption_all(model: str, utterances: Sequence[Utterance], *, language: str) -> list[Captioned]:
    """Each utterance captioned; an utterance that cannot be is an error."""
    captioner = aligncap.load(model)
    outcomes = captioner.caption_many([one.path for one in utterances], language=language)
    found = []
    for utterance, outcome in zip(utterances, outcomes, strict=True):
        if isinstance(outcome, AlignCapError):
            raise outcome
        found.append(Captioned(utterance, outcome))
    return found


def card_scores(rows: Sequence[Captioned]) -> dict[str, str]:
    """What the model card says: macro recalls of the emotion named in English captions."""
    scores = {}
    for corpus in LABELLED:
        own = [row for row in rows if row.utterance.corpus == corpus]
        truth, named = [str(row.utterance.emotion) for row in own], [row.emotion for row in own]
        low, high = bootstrap_interval(truth, named)
        scores[f"macro recall of the emotion named, {corpus}"] = (
            f"{macro_recall(truth, named):.3f} [95 % interval {low:.3f}–{high:.3f}|"
            f"{len(own)} clips of validation speakers|English captions]"
        )
    return scores


def report(model: str, data: Path, cache: Path, *, rivals: bool) -> tuple[str, list[Captioned]]:
    """The whole report as markdown, and every caption behind it."""
    everyone = [one for name in CORPORA for one in read_manifest(data / name / "manifest.jsonl")]
    train, validation = validation_split(everyone)
    english = caption_all(model, validation, language="en")
    chinese = caption_all(model, validation, language="zh")
    by_corpus = {c: [row for row in english if row.utterance.corpus == c] for c in CORPORA}
    chinese_by = {c: [row for row in chinese if row.utterance.corpus == c] for c in CORPORA}
    answers = svm_baselines(train, validation, cache) if rivals else {}
    lines = [
        f"# {model} on validation speakers",
        "",
        "Made by `python -m aligncap.experiments.validation`; do not edit. Signature: "
        f"aligncap {aligncap.__version__} · split validation_split · {len(validation)} clips of "
        "speakers never trained on · intervals by 1,000 stratified bootstrap draws, seed 0.",
        "",
        "## Emotion",
        "",
        *emotion_table(by_corpus, answers, model),
        "",
        "The same with Chinese captions:",
        "",
        *emotion_table(chinese_by, {}, f"{model}, Chinese"),
        "",
        "## Gender",
        "",
        *gender_lines(by_corpus),
        "",
        "## Claims against the signal",
        "",
        "English captions of all validation clips:",
        "",
        *claim_lines(english),
        "",
        "Chinese captions:",
        "",
        *claim_lines(chinese),
        "",
        "## Variety",
        "",
        distinct_line(english, "English"),
        distinct_line(chinese, "Chinese"),
    ]
    return "\n".join(lines) + "\n", [*english, *chinese]


def svm_baselines(
    train: Sequence[Utterance], validation: Sequence[Utterance], cache: Path
) -> dict[tuple[str, str], list[str]]:
    """The emotions that each support vector machine predicts, by (corpus, kernel)."""
    found = {}
    for corpus in LABELLED:
        own = [one for one in train if one.corpus == corpus]
        kept = [one for one in validation if one.corpus == corpus]
        values = functionals([*own, *kept], cache)
        for kernel in KERNELS:
            answers = svm_answers(own, values[: len(own)], values[len(own) :], kernel=kernel)
            found[corpus, kernel] = answers
    return found


def main(
    model: Annotated[str, typer.Option(help="Built-in model or model folder.")] = "mini",
    data: Annotated[Path, typer.Option(help="Folder with a folder a corpus.")] = Path(
        "../shared/data/speech"
    ),
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/validation.md"
    ),
    cache: Annotated[Path, typer.Option(help="Keeps eGeMAPS functionals.")] = Path(
        "runs/egemaps.npz"
    ),
    captions: Annotated[Path | None, typer.Option(help="JSONL file for every caption.")] = None,
    card: Annotated[Path | None, typer.Option(help="Model folder whose card gets it.")] = None,
    rivals: Annotated[bool, typer.Option(help="Train and test the SVMs too.")] = True,
) -> None:
    """Caption the validation speakers and write the table."""
    text, rows = report(model, data, cache, rivals=rivals)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)
    if card is not None:
        meta = read_meta(card)
        scores = card_scores([row for row in rows if row.caption.language == "en"])
        write_meta(card, replace(meta, notes=replace(meta.notes, scores=scores)))
    if captions is not None:
        with captions.open("w", encoding="utf-8") as file:
            for row in rows:
                line = {
                    "id": row.utterance.id,
                    "language": row.caption.language,
                    "label": row.utterance.emotion,
                    "named": row.emotion,
                    "caption": row.caption.text,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    typer.run(main)
