"""Captions of the validation speakers, scored: what the model card and the README report.

    python -m aligncap.experiments.validation --model mini --data ../shared/data/speech \\
        --output docs/results/validation.md

Every speaker is one that the model was never trained on (`corpora.validation_split`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import aligncap
from aligncap.clues import emotion_of, find_clues
from aligncap.corpora import Utterance, read_manifest, validation_split
from aligncap.errors import AlignCapError
from aligncap.experiments.egemaps import KERNELS, functionals, svm_answers
from aligncap.experiments.recall import bootstrap_interval, macro_recall
from aligncap.values import Caption, Verdict

CORPORA = ("ravdess", "emodb", "ased", "nemo", "secap")
RIVALS = ("ravdess", "emodb", "ased", "nemo")
"""Corpora with labels, on which a classifier can be trained."""
MEASURED_TRAITS = ("pitch", "volume", "pace")
DISTINCT_OVER = 500


@dataclass(frozen=True, slots=True)
class Captioned:
    """A validation clip with what the model said of it."""

    utterance: Utterance
    caption: Caption

    @property
    def emotion(self) -> str | None:
        """The category that the sentence names."""
        return emotion_of(find_clues(self.caption.text, self.caption.language))

    @property
    def stated_gender(self) -> str | None:
        """The gender that the sentence states."""
        for evidence in self.caption.evidence:
            if evidence.clue.trait == "gender" and not evidence.clue.negated:
                return evidence.clue.meaning
        return None


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


def emotion_row(
    name: str, system: str, clips: int, truth: list[str], named: list[str | None]
) -> str:
    """One row of the emotion table: macro recall with its 95 % interval."""
    low, high = bootstrap_interval(truth, named)
    value = macro_recall(truth, named)
    return f"| {name} | {system} | {clips} | {value:.3f} | {low:.3f}–{high:.3f} |"


def emotion_table(
    captioned: Mapping[str, Sequence[Captioned]],
    rivals: Mapping[tuple[str, str], Sequence[str]],
    model: str,
) -> list[str]:
    """Markdown lines: the emotion named in the caption against eGeMAPS with an SVM."""
    lines = [
        "| corpus | system | clips | macro recall | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for corpus in RIVALS:
        rows = captioned[corpus]
        truth = [str(row.utterance.emotion) for row in rows]
        named = [row.emotion for row in rows]
        lines.append(emotion_row(corpus, f"{model}, named in its caption", len(rows), truth, named))
        heard = [max(row.caption.emotion, key=row.caption.emotion.__getitem__) for row in rows]
        lines.append(emotion_row(corpus, f"{model}, likeliest emotion", len(rows), truth, [*heard]))
        for kernel in KERNELS:
            if answers := rivals.get((corpus, kernel)):
                system = f"eGeMAPS + SVM ({kernel})"
                lines.append(emotion_row(corpus, system, len(rows), truth, [*answers]))
    return lines


def gender_lines(captioned: Mapping[str, Sequence[Captioned]]) -> list[str]:
    """Markdown lines: how often a gender is stated, and how often it is the labelled one."""
    lines = [
        "| corpus | clips with a label | stated | right where stated |",
        "| --- | --- | --- | --- |",
    ]
    everywhere: list[bool] = []
    for corpus in RIVALS:
        rows = [row for row in captioned[corpus] if row.utterance.gender]
        right = [row.stated_gender == row.utterance.gender for row in rows if row.stated_gender]
        everywhere += right
        share = f"{sum(right) / len(right):.3f}" if right else "–"
        lines.append(f"| {corpus} | {len(rows)} | {len(right) / max(1, len(rows)):.1%} | {share} |")
    total = sum(len([r for r in captioned[c] if r.utterance.gender]) for c in RIVALS)
    lines.append(
        f"| all | {total} | {len(everywhere) / max(1, total):.1%} | "
        f"{sum(everywhere) / max(1, len(everywhere)):.3f} |"
    )
    return lines


def claim_lines(rows: Iterable[Captioned]) -> list[str]:
    """Markdown lines: claims about pitch, loudness and pace beside what the signal shows."""
    counts = {trait: dict.fromkeys(Verdict, 0) for trait in MEASURED_TRAITS}
    for row in rows:
        for evidence in row.caption.evidence:
            if evidence.clue.trait in counts:
                counts[evidence.clue.trait][evidence.verdict] += 1
    everything = {verdict: sum(c[verdict] for c in counts.values()) for verdict in Verdict}
    lines = [
        "| claims about | claims | supported | contradicted | cannot tell |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in [*counts.items(), ("all three", everything)]:
        total = max(1, sum(found.values()))
        shares = " | ".join(f"{found[verdict] / total:.1%}" for verdict in Verdict)
        lines.append(f"| {name} | {sum(found.values())} | {shares} |")
    return lines


def distinct_line(rows: Sequence[Captioned], language: str) -> str:
    """How many different captions evenly chosen clips get."""
    step = max(1, len(rows) // DISTINCT_OVER)
    texts = [row.caption.text for row in rows[::step]][:DISTINCT_OVER]
    return f"Distinct captions ({language}): {len(set(texts))} over {len(texts)} clips."


def report(model: str, data: Path, cache: Path, *, rivals: bool) -> tuple[str, list[Captioned]]:
    """The whole report as markdown, and every caption behind it."""
    everyone = [one for name in CORPORA for one in read_manifest(data / name / "manifest.jsonl")]
    train, validation = validation_split(everyone)
    english = caption_all(model, validation, language="en")
    chinese = caption_all(model, validation, language="zh")
    by_corpus = {c: [row for row in english if row.utterance.corpus == c] for c in CORPORA}
    chinese_by = {c: [row for row in chinese if row.utterance.corpus == c] for c in CORPORA}
    answers = rival_answers(train, validation, cache) if rivals else {}
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


def rival_answers(
    train: Sequence[Utterance], validation: Sequence[Utterance], cache: Path
) -> dict[tuple[str, str], list[str]]:
    """What each support vector machine names, by (corpus, kernel)."""
    found = {}
    for corpus in RIVALS:
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
    rivals: Annotated[bool, typer.Option(help="Train and test the SVMs too.")] = True,
) -> None:
    """Caption the validation speakers and write the table."""
    text, rows = report(model, data, cache, rivals=rivals)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)
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
