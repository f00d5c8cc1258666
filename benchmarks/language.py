"""What the language of captions is like, over records of `aligncap caption … -o captions.jsonl`.

    python benchmarks/language.py captions.jsonl […] [--sampled 100]

For each language: how often the commonest opening occurs (three words, or six Chinese characters),
how many different words there are (Chinese: characters), how often a trait is spoken of twice, how
many captions are distinct, how long they are, how many are put with reserve, and how many name
(first) another emotion than the record's likeliest.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
import typer

from aligncap.clues import emotion_of, find_clues, is_hedged

ONCE = ("pitch", "pace", "volume", "intonation", "voice quality")
"""Traits that a caption need not speak of twice."""

WORD = {"en": re.compile(r"[a-z]+(?:[-'][a-z]+)*"), "zh": re.compile(r"[\u4e00-\u9fff]")}
OPENING = {"en": 3, "zh": 6}


def report(records: Sequence[dict[str, Any]], language: str) -> dict[str, Any]:
    """The numbers of one language's records; shares are of the captions."""
    texts = [record["caption"] for record in records]
    words = [WORD[language].findall(text.lower()) for text in texts]
    openings = Counter(tuple(one[: OPENING[language]]) for one in words)
    (commonest, count), *_ = openings.most_common(1)
    clues = [find_clues(text, language, repeats=True) for text in texts]
    twice = [
        max(Counter(c.trait for c in own if c.trait in ONCE).values(), default=0) > 1
        for own in clues
    ]
    heard = [
        (emotion_of(own), max(record["emotion"], key=record["emotion"].__getitem__))
        for own, record in zip(clues, records, strict=True)
        if record.get("emotion")
    ]
    lengths = np.array([len(one) for one in words])
    low, middle, high = np.percentile(lengths, (5, 50, 95)).astype(int).tolist()
    share = 1 / len(texts)
    return {
        "captions": len(texts),
        "commonest opening": ("" if language == "zh" else " ").join(commonest),
        "its share": count * share,
        "different words" if language == "en" else "different characters": len(
            {word for one in words for word in one}
        ),
        "a trait said twice": sum(twice) * share,
        "distinct captions": len(set(texts)) * share,
        "length (5 %, 50 %, 95 %)": f"{low}, {middle}, {high}",
        "put with reserve": sum(is_hedged(text, language) for text in texts) * share,
        "name no emotion": sum(named is None for named, _ in heard) / max(1, len(heard)),
        "name another emotion than the record": sum(
            named is not None and named != likeliest for named, likeliest in heard
        )
        / max(1, len(heard)),
    }


def sample(records: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Captions drawn at random (seed 0), as they are; each with the clip's file name."""
    drawn = Random(0).sample(records, min(count, len(records)))
    return [f"- {one['caption']} `{Path(one['file']).name}`" for one in drawn]


def main(
    paths: Annotated[list[Path], typer.Argument(help="Records of `aligncap caption`, jsonl.")],
    sampled: Annotated[int, typer.Option(help="Captions to print, by language.")] = 0,
) -> None:
    """Print the tables, in Markdown, and captions drawn at random."""
    lines = (line for path in paths for line in path.read_text("utf-8").splitlines())
    records = [json.loads(line) for line in lines if line.strip()]
    spoken = [one for one in records if one.get("caption") and not one.get("vocalization")]
    if sampled:
        signatures = sorted({str(one.get("signature", "unsigned")) for one in spoken})
        print("# What captions are like\n")
        print("Made by `python benchmarks/language.py`; do not edit. Captions are unedited, drawn")
        print(f"at random (seed 0). Signatures: {', '.join(signatures)}.\n")
    for language in WORD:
        own = [one for one in spoken if one.get("language") == language]
        if own:
            print(f"| {language} | |\n| --- | --- |")
            for name, value in report(own, language).items():
                print(f"| {name} | {f'{value:.1%}' if isinstance(value, float) else value} |")
            print("", *sample(own, sampled), sep="\n")


if __name__ == "__main__":
    typer.run(main)
