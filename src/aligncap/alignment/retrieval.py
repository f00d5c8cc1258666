"""Clue words in a joint speech-text space: what P_act = "retrieved" is read from (decision 5)."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from aligncap.alignment.examples import TrainingRow
from aligncap.alignment.space import JointSpace
from aligncap.captioner import checkpoint
from aligncap.clues import acoustic_prompt, clue_of, find_clues
from aligncap.tokenizers.clue_retrieval import CLUES_FILE, WEIGHTS, ClueRetriever

LEAST_ROWS = 5
"""Training rows that must name a clue for it to be a word that is looked for."""


def clue_words(rows: Iterable[TrainingRow], languages: Iterable[str]) -> list[tuple[str, str]]:
    """Trait and meaning of every clue that P_act of enough training rows names, sorted."""
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.split == "train":
            named = {one for lang in languages for one in _named(row.act.get(lang, ""), lang)}
            found.update(named)
    return sorted(one for one, count in found.items() if count >= LEAST_ROWS)


@lru_cache(maxsize=20_000)
def _named(act: str, language: str) -> frozenset[tuple[str, str]]:
    return frozenset((one.trait, one.meaning) for one in find_clues(act, language))


def retriever_of(space: JointSpace, rows: Iterable[TrainingRow]) -> ClueRetriever:
    """The speech tower of a space as numbers, and the clue words of the rows in it.

    A word stands where P_act of it alone is, "Feeling sad" and 感到悲伤: of the languages that the
    rows are in, the middle.
    """
    rows = list(rows)
    languages = sorted({language for row in rows for language in row.captions})
    words = clue_words(rows, languages)
    total = np.zeros((len(words), space.width), np.float32)
    for language in languages:
        texts = [acoustic_prompt([clue_of(*one, language=language)], language) for one in words]
        total += space.embed_texts(texts)
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    weights = space.speech.state_dict()
    source = space.shape.source
    return ClueRetriever(
        codebooks=source.codebooks,
        codebook_size=source.codebook_size,
        weights={name: weights[name].detach().cpu().numpy() for name in WEIGHTS},
        words=tuple(f"{trait}:{meaning}" for trait, meaning in words),
        vectors=total / np.maximum(norm, 1e-12),
    )


def write_retriever(
    space: JointSpace, rows: Iterable[TrainingRow], encoder: Path, out: Path
) -> None:
    """Copy a built-in encoder's folder to `out`, with the clue words of a space beside it."""
    checkpoint.copy_encoder_files(encoder, out)
    retriever_of(space, rows).save(out / CLUES_FILE)
