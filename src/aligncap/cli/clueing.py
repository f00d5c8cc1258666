"""`aligncap clues`: what a caption says of the voice."""

import json
from collections.abc import Iterable, Iterator, Sequence

from aligncap.cli.records import Record
from aligncap.cli.world import World
from aligncap.cli.writers import cells, pad
from aligncap.clues import acoustic_prompt, arousal_valence, emotion_of, find_clues
from aligncap.values import Clue


def list_clues(
    texts: Sequence[str],
    *,
    language: str | None,
    format: str,  # noqa: A002
    world: World,
) -> int:
    """The clues of each text; returns 0."""
    for text in _all_texts(texts, world=world):
        clues = find_clues(text, language)
        if format == "jsonl":
            record = clues_record(text, clues)
            print(json.dumps(record, ensure_ascii=False), file=world.stdout, flush=True)
        else:
            print(*_lines(text, clues), sep="\n", file=world.stdout, flush=True)
    return 0


def _all_texts(texts: Iterable[str], *, world: World) -> Iterator[str]:
    for text in texts:
        if text == "-":
            yield from (line.strip() for line in world.stdin if line.strip())
        else:
            yield text


def clues_record(text: str, clues: Sequence[Clue]) -> Record:
    """The clues of a text, and what they add up to, as plain values."""
    arousal, valence = arousal_valence(clues)
    return {
        "text": text,
        "clues": [
            {
                "word": clue.word,
                "trait": clue.trait,
                "meaning": clue.meaning,
                "degree": clue.degree,
                "negated": clue.negated,
            }
            for clue in clues
        ],
        "emotion": emotion_of(clues),
        "arousal": arousal,
        "valence": valence,
        "acoustic_prompt": acoustic_prompt(clues),
    }


def _lines(text: str, clues: Sequence[Clue]) -> list[str]:
    lines = [text]
    word = max((cells(clue.word) for clue in clues), default=0)
    trait = max((cells(clue.trait) for clue in clues), default=0)
    for clue in clues:
        denial = "not " if clue.negated else ""
        degree = {0.5: " (slightly)", 1.5: " (very)"}.get(clue.degree, "")
        lines.append(
            f"  {pad(clue.word, word)}  {pad(clue.trait, trait)}  {denial}{clue.meaning}{degree}"
        )
    if not clues:
        lines.append("  no clue of how it is spoken")
    else:
        lines.append(f"  prompt: {acoustic_prompt(clues)}")
    return lines
