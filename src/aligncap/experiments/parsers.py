"""The paper's grammar parser beside ours, on the captions of manifests (decision 6).

    python -m aligncap.experiments.parsers ../shared/data/speech/secap/manifest.jsonl \\
        ../shared/data/captions/*.jsonl

A file is a manifest, or has a caption a line under one of the names `CAPTION_KEYS`. Of each caption
both parsers' clues are compared by what they say, trait and meaning: a clue that ours finds denied,
or says of another head, the other finds as it stands. Numbers only are written.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

import aligncap
from aligncap.clues import detect_language, open_parser
from aligncap.experiments import write_page
from aligncap.foreign import reading
from aligncap.values import LANGUAGES, Clue

CAPTION_KEYS = ("captions", "caption", "style_prompt")

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


def compare(
    texts: Iterable[str], own: Parser, other: Parser, languages: Sequence[str] = LANGUAGES
) -> dict[str, Comparison]:
    """The parsers' clues of each different text, by language."""
    found = {language: Comparison() for language in languages}
    for text in dict.fromkeys(texts):
        if (language := detect_language(text)) in found:
            found[language].add(own(text, language), other(text, language))
    return {language: one for language, one in found.items() if one.captions}


def captions_of(path: Path) -> Iterator[str]:
    """The captions of a file of JSON lines; DataError where a line is none."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        with reading(path, hint=f"line {number} is no JSON"):
            table = json.loads(line)
            for key in CAPTION_KEYS:
                found = table.get(key, ())
                yield from (found,) if isinstance(found, str) else found


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
    files: Annotated[list[Path], typer.Argument(help="Manifests, or files of captions.")],
    language: Annotated[list[str] | None, typer.Option(help="Of the captions; all.")] = None,
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/parsers.md"
    ),
) -> None:
    """Compare the parsers and write the table."""
    texts = [text for path in files for text in captions_of(path)]
    parsers = open_parser("own"), open_parser("nltk")
    found = compare(texts, *parsers, language or LANGUAGES)
    names = ", ".join(path.parent.name if path.stem == "manifest" else path.stem for path in files)
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
