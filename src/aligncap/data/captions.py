"""From a meaning to a caption: what to say, where to say it, and whether it reads well.

Captions and clues written from what a corpus says of a clip.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random

from aligncap.clues import Levels, clue_of, detect_language, find_clues, levels, measured_clues
from aligncap.data.grammar import (
    ASPECTS,
    CONFLICTS,
    Grammar,
    Item,
    Meaning,
    Said,
    Style,
    Template,
    open_grammar,
    parse,
)
from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.values import Clue, Facts

TRIES = 200
"""Sentences drawn for one caption before giving up; about two in three are good enough."""

STRENGTH = {"strong": 0.75, None: 0.15, "normal": 0.0}
"""Intensity of the emotion → how often its word is a strong one."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption and what of its meaning it says."""

    text: str
    gender: str | None
    levels: Mapping[str, str]


def draw_sentence(meaning: Meaning, language: str, rng: Random) -> Sentence:
    """One sentence ("en", "zh") that says the emotion, and most of the rest, of a meaning."""
    grammar = open_grammar(language)
    for _ in range(TRIES):
        sentence = _sentence(grammar, meaning, rng)
        if sentence is not None and grammar.reads_well(sentence.text):
            return sentence
    raise DataError(f"{meaning}: no caption in {language} after {TRIES} tries; say fewer levels")


def draw_captions(meaning: Meaning, language: str, count: int, rng: Random) -> list[str]:
    """`count` different sentences for one meaning, each ending with its only full stop."""
    captions: dict[str, None] = {}
    for _ in range(20 * count + TRIES):
        if len(captions) >= count:
            return list(captions)
        captions[draw_sentence(meaning, language, rng).text] = None
    raise DataError(f"{meaning}: only {len(captions)} captions in {language}, not {count}")


def _sentence(grammar: Grammar, meaning: Meaning, rng: Random) -> Sentence | None:
    style = _weighted(grammar.styles, rng)
    placed = _placed(grammar, style, _stated(grammar, meaning, rng), rng)
    frames = _frames_for(grammar, style, frozenset(placed))
    if not frames:
        return None
    gender = meaning.gender if rng.random() < grammar.gender_stated else None
    phrases = {role: [phrase for _, phrase in pairs] for role, pairs in placed.items()}
    speaker = _Speaker(grammar, meaning, gender, phrases, rng)
    text = grammar.finish(speaker.write(frames[int(rng.random() * len(frames))]))
    return Sentence(text, gender, dict(item for pairs in placed.values() for item, _ in pairs))


def _weighted(styles: tuple[Style, ...], rng: Random) -> Style:
    place = rng.random() * sum(style.weight for style in styles)
    for style in styles:
        place -= style.weight
        if place < 0:
            return style
    return styles[-1]


def _stated(grammar: Grammar, meaning: Meaning, rng: Random) -> list[Item]:
    items = []
    for aspect, level in meaning.levels.items():
        often = grammar.normal_stated if level == "normal" else 1.0
        if rng.random() < often * grammar.aspect_stated[aspect]:
            items.append((aspect, level))
    rng.shuffle(items)
    agreeing: list[Item] = []
    for item in items:
        if not any(frozenset((item, other)) in CONFLICTS for other in agreeing):
            agreeing.append(item)
    return agreeing[: grammar.most_levels]


def _placed(
    grammar: Grammar, style: Style, stated: list[Item], rng: Random
) -> dict[str, list[tuple[Item, str]]]:
    """Role → what is said in it, as much as the style has room for; the rest goes unsaid."""
    placed: dict[str, list[tuple[Item, str]]] = {}
    for item in stated:
        offers = grammar.phrases[item]
        roles = [role for role in offers if len(placed.get(role, ())) < style.capacity.get(role, 0)]
        if roles:
            role = roles[int(rng.random() * len(roles))]
            phrase = offers[role][int(rng.random() * len(offers[role]))]
            placed.setdefault(role, []).append((item, phrase))
    return placed


@cache
def _frames_for(grammar: Grammar, style: Style, roles: frozenset[str]) -> tuple[Template, ...]:
    """The frames of a style that have a place for each of the roles and need no other."""
    slot_role = grammar.role_of
    found = []
    for frame in style.frames:
        needs = {slot_role[slot] for slot in frame.needs if slot in slot_role}
        holds = {slot_role[slot] for slot in frame.holds if slot in slot_role}
        if needs <= roles <= holds:
            found.append(frame)
    return tuple(found)


@cache
def _said(grammar: Grammar, roles: frozenset[str]) -> Said:
    filled = (slot for slot, role in grammar.role_of.items() if role in roles)
    return Said(frozenset(grammar.role_of), frozenset(filled))


class _Speaker:
    """Fills the slots of one sentence."""

    def __init__(
        self,
        grammar: Grammar,
        meaning: Meaning,
        gender: str | None,
        phrases: Mapping[str, list[str]],
        rng: Random,
    ) -> None:
        self.grammar, self.gender, self.phrases, self.rng = grammar, gender, phrases, rng
        self.said = _said(grammar, frozenset(phrases))
        kind = "calm" if meaning.calm else meaning.emotion
        self.emotion = grammar.emotions[kind]
        self.strength = STRENGTH[meaning.intensity]

    def write(self, template: Template) -> str:
        return template.render(self.pick, self.said, self.rng.random)

    def pick(self, name: str) -> str:
        """The text of a slot."""
        grammar, rng = self.grammar, self.rng
        if name in grammar.role_of:
            phrases = [self.write(parse(p)) for p in self.phrases[grammar.role_of[name]]]
            return grammar.join[name](phrases, rng)
        if name in self.emotion:
            return self.emotion_word(name)
        inflected = grammar.inflected(name, self.gender)
        if inflected is not None:
            return inflected
        people = grammar.people[self.gender]
        options = people[name] if name in people else grammar.words[name]
        return self.write(parse(options[int(rng.random() * len(options))]))

    def emotion_word(self, kind: str) -> str:
        """A word for the emotion, as strong as it was felt."""
        rng, grammar = self.rng, self.grammar
        options, template = self.emotion[kind], grammar.plain.get(kind, "WORD")
        if rng.random() < self.strength:
            strong = self.emotion.get(f"{kind}+")
            if strong is None or rng.random() < 0.35:
                template = grammar.emphasised.get(kind, template)
            else:
                options, template = strong, "WORD"
        word = options[int(rng.random() * len(options))]
        return self.write(parse(template.replace("WORD", word)))


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
        if level in known and level != "normal":  # which listeners do not remark on
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
