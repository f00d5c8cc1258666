"""Captions and clues written from what a corpus says of a clip."""

from collections.abc import Iterator
from random import Random

from aligncap.clues import Levels, clue_of, detect_language, find_clues, levels, measured_clues
from aligncap.data.manifest import Utterance
from aligncap.data.paraphrase import ASPECTS, Meaning, draw_captions
from aligncap.values import Clue, Facts


def write_captions(
    utterance: Utterance,
    facts: Facts | Levels | None,
    *,
    language: str,
    count: int,
    seed: int,
) -> list[str]:
    """At most `count` different captions of an utterance, each of one sentence.

    What people have written in this language is used as it is. Otherwise `count` sentences are
    drawn from the paraphrase grammar by the emotion and the gender of the corpus and by what the
    facts clearly show; the same seed draws the same ones. An utterance that has neither a
    caption in this language nor an emotion has none.
    """
    written = [text for text in utterance.captions if detect_language(text) == language]
    if written:
        return list(dict.fromkeys(written))[:count]
    meaning = meaning_of(utterance, facts)
    if meaning is None:
        return []
    rng = Random(f"{seed}/{language}/{utterance.corpus}/{utterance.id}")
    return draw_captions(meaning, language, count, rng)


def meaning_of(utterance: Utterance, facts: Facts | Levels | None) -> Meaning | None:
    """What can be said of an utterance; None where its emotion is not known.

    The gender of the corpus goes before a measured one.
    """
    if utterance.emotion is None:
        return None
    shown = levels(facts) if isinstance(facts, Facts) else facts
    return Meaning(
        emotion=utterance.emotion,
        intensity=utterance.intensity,
        gender=utterance.gender or (shown.gender if shown else None),
        levels=dict(_shown_levels(shown)) if shown else {},
        calm=utterance.label == "calm",
    )


def gold_clues(utterance: Utterance, facts: Facts | None = None) -> tuple[Clue, ...]:
    """The clues of an utterance, for the teacher's acoustic prompt P_act (§3.1, Eq. 1).

    First what the corpus says: the emotion and the gender, or the clues of captions that people
    wrote. Then what the signal supports, where that does not bear on a trait spoken of already.
    """
    told = list(_told(utterance))
    settled = {clue.trait for clue in told}
    shown = measured_clues(facts) if facts else ()
    return (*told, *(clue for clue in shown if clue.trait not in settled))


def _told(utterance: Utterance) -> Iterator[Clue]:
    seen: set[tuple[str, str]] = set()
    labels = (("emotion", utterance.emotion), ("gender", utterance.gender))
    clues = [clue_of(trait, meaning) for trait, meaning in labels if meaning]
    for caption in utterance.captions:
        clues.extend(clue for clue in find_clues(caption) if not clue.negated)
    for clue in clues:
        if (clue.trait, clue.meaning) not in seen:
            seen.add((clue.trait, clue.meaning))
            yield clue


def _shown_levels(shown: Levels) -> Iterator[tuple[str, str]]:
    for aspect, known in ASPECTS.items():
        level = getattr(shown, aspect, None)
        if level in known:
            yield aspect, level


_WHO = {"female": ("woman", "She"), "male": ("man", "He")}


def plain_captions(emotion: str, gender: str | None) -> tuple[str, ...]:
    """Two or three sentences that say an emotion in its plainest word: "The woman sounds sad."

    A language model that begins with captions full of synonyms may learn to write them without
    reading its clues at all (docs/lab-notes.md). From a few hundred steps with these among them it
    learns what a clue is for; every synonym is then learnt as another word for a clue it knows.
    """
    word = clue_of("emotion", emotion).word
    who, pronoun = _WHO.get(gender or "", ("speaker", "The speaker"))
    article = "An" if word[0] in "aeiou" else "A"
    captions = (
        f"The {who} sounds {word}.",
        f"{article} {word} {who} is speaking.",
        f"{pronoun} sounds {word}.",
    )
    return tuple(dict.fromkeys(captions))
