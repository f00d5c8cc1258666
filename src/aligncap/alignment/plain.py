"""Rows of plain captions: what a warm-up learns the use of clues from (`corpora.plain`)."""

from collections.abc import Iterator, Sequence

from aligncap.alignment.data import TrainingRow
from aligncap.clues import acoustic_prompt
from aligncap.corpora import Utterance, gold_clues, is_validation
from aligncap.corpora.labels import labelled
from aligncap.corpora.plain import plain_captions
from aligncap.values import Facts


def plain_rows(utterances: Sequence[Utterance], facts: Sequence[Facts]) -> Iterator[TrainingRow]:
    """A row of English captions alone for each training clip whose emotion is labelled."""
    for utterance, found in zip(utterances, facts, strict=True):
        if is_validation(utterance) or utterance.emotion is None:
            continue
        known = labelled(utterance)
        yield TrainingRow(
            id=f"{utterance.id}#plain",
            corpus=utterance.corpus or "",
            captions={"en": plain_captions(utterance.emotion, known.gender)},
            act={"en": acoustic_prompt(gold_clues(known, found), "en")},
        )
