"""Captions and clues written from what a corpus says of a clip, and what was measured in it."""

from collections.abc import Iterator, Mapping
from random import Random

from aligncap.clues import (
    HeardEmotion,
    Levels,
    clue_of,
    detect_language,
    find_clues,
    levels,
    measured_clues,
)
from aligncap.data.grammar import ASPECTS, Meaning
from aligncap.data.manifest import Utterance
from aligncap.data.plans import plan_for, sentence_of
from aligncap.errors import DataError
from aligncap.values import Clue, Facts

TRIES = 200
"""Plans tried for one caption that differs from those before it."""

FULL: Mapping[str, float] = {"full": 1.0}

TRAINED_STYLES: Mapping[str, float] = {"full": 0.7, "short": 0.12, "tts": 0.18}
"""How often a planned caption of a training row is of each style."""


def draw_captions(
    meaning: Meaning,
    language: str,
    count: int,
    rng: Random,
    *,
    styles: Mapping[str, float] = FULL,
    planned: bool = False,
) -> list[str]:
    """`count` different captions of one meaning, each ending with its only full stop.

    `styles` are drawn by weight; `planned` captions begin with their plan: "f17 3|She …".
    """
    captions: dict[str, str] = {}
    for _ in range(20 * count + TRIES):
        if len(captions) >= count:
            return list(captions.values())
        (style,) = rng.choices(list(styles), list(styles.values()))
        plan = plan_for(meaning, style, language, rng.randrange(2**31))
        text = sentence_of(meaning, plan, language).text
        captions.setdefault(text, f"{plan}|{text}" if planned else text)
    raise DataError(f"{meaning}: only {len(captions)} captions in {language}, not {count}")


def write_captions(
    utterance: Utterance,
    facts: Facts | Levels | None,
    *,
    language: str,
    count: int,
    seed: int,
    heard: HeardEmotion | None = None,
    intensity: str | None = None,
    planned: bool = False,
) -> list[str]:
    """At most `count` different captions of an utterance, each of one sentence.

    What people have written in this language is used as it is. Otherwise `count` sentences are
    drawn from the paraphrase grammar by the emotion and the gender of the corpus and by what the
    facts clearly show; the same seed draws the same ones. `heard` says how certain the emotion is
    to be; `planned` ones are of all styles and begin with their plans. An utterance that has
    neither a caption in this language nor an emotion has none.
    """
    written = [text for text in utterance.captions if detect_language(text) == language]
    if written:
        return list(dict.fromkeys(written))[:count]
    meaning = meaning_of(utterance, facts, heard, intensity)
    if meaning is None:
        return []
    rng = Random(f"{seed}/{language}/{utterance.corpus}/{utterance.id}")
    styles = TRAINED_STYLES if planned else FULL
    return draw_captions(meaning, language, count, rng, styles=styles, planned=planned)


def meaning_of(
    utterance: Utterance,
    facts: Facts | Levels | None,
    heard: HeardEmotion | None = None,
    intensity: str | None = None,
) -> Meaning | None:
    """What can be said of an utterance; None where its emotion is not known.

    The gender of the corpus goes before a measured one, and its intensity before the given one;
    what is `heard` goes before the label.
    """
    if utterance.emotion is None:
        return None
    shown = levels(facts) if isinstance(facts, Facts) else facts
    heard = heard or HeardEmotion(utterance.emotion)
    return Meaning(
        emotion=heard.first,
        intensity=utterance.intensity or intensity,
        gender=utterance.gender or (shown.gender if shown else None),
        levels=dict(_shown_levels(shown)) if shown else {},
        calm=utterance.label == "calm" and heard.first == utterance.emotion,
        certainty=heard.certainty,
        second=heard.second,
    )


def gold_clues(
    utterance: Utterance,
    facts: Facts | None = None,
    emotion: Clue | None = None,
) -> tuple[Clue, ...]:
    """The clues of an utterance, for the teacher's acoustic prompt P_act (§3.1, Eq. 1).

    First what the corpus says: the emotion and the gender, or the clues of captions that people
    wrote. Then what the signal supports, where that does not bear on a trait spoken of already.
    `emotion` is said in place of the label's, with its certainty.
    """
    told = list(_told(utterance))
    settled = {clue.trait for clue in told}
    shown = measured_clues(facts) if facts else ()
    if emotion is not None and utterance.emotion is not None:
        told = [emotion if clue.trait == "emotion" else clue for clue in told]
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
        # "Steady, growing louder" would be heard as a contradiction: the slope says more.
        moved = level in ("steady", "flat") and getattr(shown, _MOVEMENTS.get(aspect, ""), None)
        # What is only normal listeners do not remark on.
        if level in known and level != "normal" and not moved:
            yield aspect, level


_MOVEMENTS = {"loudness_range": "loudness_movement", "pitch_range": "pitch_movement"}
