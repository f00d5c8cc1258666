"""One training row: what can be said of a clip, beside its speech tokens."""

from dataclasses import replace

from aligncap.alignment.data import TrainingRow
from aligncap.captioner.acting import student_act
from aligncap.captioner.vocabulary import STOP_CHARACTERS
from aligncap.clues import acoustic_prompt, detect_language, heard_gender
from aligncap.corpora.captions import gold_clues, write_captions
from aligncap.corpora.manifest import Utterance
from aligncap.training import seed_of
from aligncap.values import LANGUAGES, Facts, SpeechTokens


def training_row(
    utterance: Utterance,
    facts: Facts,
    tokens: SpeechTokens,
    *,
    view: int = 0,
    split: str,
    captions: int,
    seed: int,
) -> TrainingRow | None:
    """The row of view `view` of an utterance; None where nothing is known to say of it.

    It has at most `captions` captions in each language: people's where there are any, else drawn
    from labels and facts. `utterance` has the labels that are relied on (`corpora.manifest`).
    """
    if heard_gender(tokens.readout, facts) is None:
        utterance = replace(utterance, gender=None)  # or the student learns to guess
    written: dict[str, tuple[str, ...]] = {}
    act: dict[str, str] = {}
    for language in LANGUAGES:
        texts = write_captions(
            utterance, facts, language=language, count=captions, seed=seed_of(seed, view)
        )
        if texts:
            written[language] = tuple(ended(text) for text in texts)
            # Clues of human captions are words of their language: the other one goes by the label.
            human = any(detect_language(text) == language for text in utterance.captions)
            told = utterance if human else replace(utterance, captions=())
            act[language] = acoustic_prompt(gold_clues(told, facts), language)
    if not written:
        return None
    return TrainingRow(
        id=f"{utterance.id}#{view}",
        corpus=utterance.corpus or "",
        captions=written,
        speech=tokens.codes,
        split=split,
        act=act,
        measured={one: student_act("measured", facts, tokens, one) for one in written},
        heard={one: student_act("heard", facts, tokens, one) for one in written},
        transcript=utterance.text or "",
    )


def ended(text: str) -> str:
    """A human caption with a full stop where its writer left it out."""
    text = text.strip()
    if text.endswith(tuple(STOP_CHARACTERS)):
        return text
    return text + ("。" if detect_language(text) == "zh" else ".")
