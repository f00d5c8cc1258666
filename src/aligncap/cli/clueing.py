"""`aligncap clues`: what a caption says of the voice."""

import json
from collections.abc import Iterable, Iterator, Sequence

from aligncap.cli.records import Record
from aligncap.cli.world import World
from aligncap.cli.writers import cells, pad
from aligncap.clues import acoustic_prompt, arousal_valence, detect_language, emotion_of, find_clues


def list_clues(
    texts: Sequence[str],
    *,
    language: str | None,
    format: str,  # noqa: A002
    world: World,
) -> int:
    """The clues of each text; returns 0."""
    for text in _all_texts(texts, world=world):
        record = clues_record(text, language or detect_language(text))
        if format == "jsonl":
            print(json.dumps(record, ensure_ascii=False), file=world.stdout, flush=True)
        else:
            print(*_lines(record), sep="\n", file=world.stdout, flush=True)
    return 0


def _all_texts(texts: Iterable[str], *, world: World) -> Iterator[str]:
    for text in texts:
        if text == "-":
            yield from (line.strip() for line in world.stdin if line.strip())
        else:
            yield text


def clues_record(text: str, language: str) -> Record:
    """The clues of a text, and what they add up to, as plain values."""
    clues = find_clues(text, language)
    arousal, valence = arousal_valence(clues)
    return {
        "text": text,
        "language": language,
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
        "acoustic_prompt": acoustic_prompt(clues, language),
    }


def _lines(record: Record) -> list[str]:
    """The text, a line for each clue (word, trait, meaning), and the acoustic prompt."""
    clues = record["clues"]
    if not clues:
        return [record["text"], "  no clue of how it is spoken"]
    word = max(cells(clue["word"]) for clue in clues)
    trait = max(cells(clue["trait"]) for clue in clues)
    return [
        record["text"],
        *(
            f"  {pad(clue['word'], word)}  {pad(clue['trait'], trait)}  {_meaning(clue)}"
            for clue in clues
        ),
        f"  prompt: {record['acoustic_prompt'] or 'none'}",
    ]


def _meaning(clue: Record) -> str:
    denial = "not " if clue["negated"] else ""
    degree = {0.5: " (slightly)", 1.5: " (very)"}.get(clue["degree"], "")
    return f"{denial}{clue['meaning']}{degree}"
