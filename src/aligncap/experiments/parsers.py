"""The paper's grammar parser beside ours, on the captions of manifests (decision 6).

    python -m aligncap.experiments.parsers ../shared/data/speech/secap/manifest.jsonl

Of each caption both parsers' clues are compared by what they say, trait and meaning: a clue that
ours finds denied, or says of another head, the other finds as it stands. Numbers only are written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

import aligncap
from aligncap.clues import detect_language, open_parser
from aligncap.data.manifest import read_manifest
from aligncap.experiments import write_page
from aligncap.values import LANGUAGES, Clue

Parser = Callable[[str, str], Sequence[Clue]]


@dataclass(slots=True)
class Comparison:
    """Counts over the captions of one language."""

    captions: int = 0
    alike: int = 0
    """Captions in which both say the same."""
    both: Counter[str] = field(default_factory=Counter)
    """Clues that both find, by trait."""
    ours: Counter[str] = field(default_factory=Counter)
    """That ours alone finds."""
    other: Counter[str] = field(default_factory=Counter)
    """That the other alone finds."""

    def add(self, own: Iterable[Clue], other: Iterable[Clue]) -> None:
        """Count one caption."""
        first, second = ({(o.trait, o.meaning) for o in some if not o.negated}
                         for some in (own, other))  # fmt: skip
        self.captions += 1
        self.alike += first == second
        self.both.update(trait for trait, _ in first & second)
        self.ours.update(trait for trait, _ in first - second)
        self.other.update(trait for trait, _ in second - first)


def compare(texts: Iterable[str], own: Parser, other: Parser) -> dict[str, Comparison]:
    """The parsers' clues of each different text, by language."""
    found = {language: Comparison() for language in LANGUAGES}
    for text in dict.fromkeys(texts):
        language = detect_language(text)
        found[language].add(own(text, language), other(text, language))
    return {language: one for language, one in found.items() if one.captions}


def comparison_table(found: dict[str, Comparison]) -> list[str]:
    """Markdown lines, one a language and trait."""
    lines = [
        "| language | trait | both | ours alone | NLTK alone |",
        "| --- | --- | --- | --- | --- |",
    ]
    for language, one in found.items():
        traits = sorted({*one.both, *one.ours, *one.other})
        for trait in traits:
            counts = (one.both[trait], one.ours[trait], one.other[trait])
            lines.append(f"| {language} | {trait} | {' | '.join(map(str, counts))} |")
        totals = (one.both.total(), one.ours.total(), one.other.total())
        share = one.alike / one.captions
        lines.append(
            f"| {language} | all | {' | '.join(map(str, totals))} |\n| {language} | captions | "
            f"{one.captions} | alike {share:.3f} | |"
        )
    return lines


def main(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests with people's captions.")],
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/parsers.md"
    ),
) -> None:
    """Compare the parsers and write the table."""
    texts = [text for path in manifests for one in read_manifest(path) for text in one.captions]
    found = compare(texts, open_parser("own"), open_parser("nltk"))
    names = ", ".join(path.parent.name for path in manifests)
    write_page(
        output,
        "The paper's grammar parser beside ours",
        "Made by `python -m aligncap.experiments.parsers`; do not edit. Signature: aligncap "
        f"{aligncap.__version__} · captions of {names}, each once · clues by trait and meaning,"
        " denied ones left out.",
        comparison_table(found),
    )


if __name__ == "__main__":
    typer.run(main)
