"""Rows of captions alone, for the warm-up: plain ones, and as many of each emotion.

What clues are for is learnt from plain captions. A corpus has few clips of some
emotions, but text is free: what a clip would be called if it were bored, its facts as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aligncap.alignment.data import TrainingRow
from aligncap.clues import acoustic_prompt
from aligncap.corpora.captions import gold_clues, plain_captions, write_captions
from aligncap.corpora.manifest import Utterance, labelled
from aligncap.corpora.splits import is_validation
from aligncap.training import seed_of
from aligncap.values import EMOTIONS, LANGUAGES, Facts


def plain_rows(utterances: Iterable[Utterance], facts: Iterable[Facts]) -> Iterator[TrainingRow]:
    """A row of plain English captions for each training clip whose emotion is labelled."""
    for known, found in _taught(utterances, facts):
        assert known.emotion is not None
        yield TrainingRow(
            id=f"{known.id}#plain",
            corpus=known.corpus or "",
            captions={"en": plain_captions(known.emotion, known.gender)},
            act={"en": acoustic_prompt(gold_clues(known, found), "en")},
        )


def even_rows(
    utterances: Iterable[Utterance], facts: Iterable[Facts], *, captions: int, seed: int
) -> Iterator[TrainingRow]:
    """For each training clip with a label a row of captions with another emotion, in turn, so that
    each emotion has as many rows."""
    for number, (known, found) in enumerate(_taught(utterances, facts)):
        felt = replace(known, emotion=EMOTIONS[number % len(EMOTIONS)], label=None, intensity=None)
        written = {
            language: tuple(
                write_captions(
                    felt, found, language=language, count=captions, seed=seed_of(seed, number)
                )
            )
            for language in LANGUAGES
        }
        act = {language: acoustic_prompt(gold_clues(felt, found), language) for language in written}
        yield TrainingRow(
            id=f"{known.id}#even", corpus=known.corpus or "", captions=written, act=act
        )


def _taught(
    utterances: Iterable[Utterance], facts: Iterable[Facts]
) -> Iterator[tuple[Utterance, Facts]]:
    for utterance, found in zip(utterances, facts, strict=True):
        if not is_validation(utterance) and utterance.emotion is not None:
            yield labelled(utterance), found
