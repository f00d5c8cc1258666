"""Captions by plan: what of a meaning a plan says, where it says it, and in which words.

The same meaning and plan give the same caption. Of the levels a sentence says two or three, of
different traits; which ones, and each of its words, depends on the number of the wording.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, islice
from math import hypot
from random import Random
from types import MappingProxyType

from aligncap.clues import HeardEmotion, find_clues, heard_in_prompt
from aligncap.clues.vocabulary import meanings
from aligncap.data.grammar import (
    ASPECTS,
    CONTENT,
    PRIMARY,
    TRAIT_OF,
    WORDINGS,
    Frame,
    Grammar,
    Item,
    Meaning,
    Plan,
    Words,
    open_grammar,
    parse,
)
from aligncap.errors import DataError

MOST_LEVELS: Mapping[str, tuple[int, ...]] = {"full": (3, 2), "short": (2,), "tts": (4, 3)}
"""How many levels a caption of a style says at most, by wording in turn."""

LEAST_LEVELS: Mapping[str, int] = {"full": 1, "short": 1, "tts": 2}
"""How many it says at least, where the meaning has so many."""


ASPECT_OF: Mapping[tuple[str, str], str] = MappingProxyType(
    {(TRAIT_OF[aspect], level): aspect for aspect, known in ASPECTS.items() for level in known}
)
"""The aspect that a measured clue is of, by its trait and meaning."""


@lru_cache(maxsize=1024)
def meaning_of_prompt(prompt: str, language: str) -> Meaning:
    """What a P_act says, as a meaning; without an emotion it is neutral."""
    heard, intensity = heard_in_prompt(prompt, language)
    heard = heard or HeardEmotion("neutral")
    said = {(clue.trait, clue.meaning) for clue in find_clues(prompt, language)}
    return Meaning(
        emotion=heard.first,
        intensity=intensity,
        gender=next((meaning for trait, meaning in sorted(said) if trait == "gender"), None),
        levels=MappingProxyType(
            {ASPECT_OF[one]: one[1] for one in sorted(said) if one in ASPECT_OF}
        ),
        certainty=heard.certainty,
        second=heard.second,
    )


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption and what of its meaning it says."""

    text: str
    gender: str | None
    levels: Mapping[str, str]


def sentence_of(meaning: Meaning, plan: Plan, language: str) -> Sentence:
    """The caption of a meaning by a plan; DataError where the plan is not one of `plans_for`."""
    sentence = _sentence(open_grammar(language), meaning, plan)
    if sentence is None:
        raise DataError(f"plan {plan}: does not fit {meaning} in {language}; see plans_for")
    return sentence


def plans_for(meaning: Meaning, style: str, language: str) -> tuple[Plan, ...]:
    """The plans of a style by which a meaning can be said, in their order."""
    grammar = open_grammar(language)
    return tuple(plan for plan in _plans(grammar, style) if _sentence(grammar, meaning, plan))


def plan_for(meaning: Meaning, style: str, language: str, number: int) -> Plan:
    """One of `plans_for`, by the number: as good as random, and the same each time."""
    grammar = open_grammar(language)
    plans = _plans(grammar, style)
    rng = Random(number)
    drawn = (plans[int(rng.random() * len(plans))] for _ in range(len(plans)))
    for plan in chain(drawn, plans):
        if _sentence(grammar, meaning, plan):
            return plan
    raise DataError(f"{meaning}: no caption of style {style} in {language}")


@cache
def _plans(grammar: Grammar, style: str) -> tuple[Plan, ...]:
    # Plan makes the message for an unknown style.
    frames = len(grammar.frames.get(style, (0,)))
    return tuple(Plan(style, frame, one) for frame in range(frames) for one in range(WORDINGS))


def _sentence(grammar: Grammar, meaning: Meaning, plan: Plan) -> Sentence | None:
    """The caption, or None where the frame does not fit the meaning or does not read well."""
    frames = grammar.frames[plan.style]
    if plan.frame >= len(frames) or meaning.hedge not in frames[plan.frame].hedges:
        return None
    frame = frames[plan.frame]
    if frame.gendered and meaning.gender is None:
        return None
    if frame.moved and "neutral" in (meaning.emotion, meaning.second):
        return None
    stated = stated_levels(meaning, plan)
    placed = _placed(grammar, frame, stated, plan)
    said = sum(map(len, placed.values()))
    needed = frame.template.needs & CONTENT
    if not needed <= placed.keys() or said < min(LEAST_LEVELS[plan.style], len(stated)):
        return None
    if frame.evidence and frame.evidence != evidence_of(meaning, list(chain(*placed.values()))):
        return None
    speaker = _Speaker(grammar, meaning, placed, plan)
    text = grammar.finish(frame.template.render(speaker.pick, placed, plan.wording))
    if not grammar.reads_well(text):
        return None
    gender = meaning.gender if speaker.gender_said else None
    return Sentence(text, gender, dict(item for items in placed.values() for item in items))


CLEARLY = 0.22
"""How far a level has to bear on an emotion to be a sign of it, or to speak against it."""


def evidence_of(meaning: Meaning, said: Sequence[Item]) -> str:
    """Whether levels are together a "sign" of a meaning's emotions, a "contrast" to them, or "".

    By the circumplex: a loud voice, which is aroused, is a sign of anger and speaks against sorrow.
    A high or deep voice is the speaker's own and speaks against no emotion, and fear may be hushed.
    """
    emotions = [meaning.emotion, *filter(None, [meaning.second])]
    bearings = [_bearing(item, emotion) for item in said for emotion in emotions]
    if not bearings or any(level == "normal" for _, level in said):
        return ""
    if max(bearings) > CLEARLY and min(bearings) > -CLEARLY:
        return "sign"
    own = "fearful" in emotions or any(aspect == "pitch" for aspect, _ in said)
    return "contrast" if max(bearings) < -CLEARLY and not own else ""


def _bearing(item: Item, emotion: str) -> float:
    """The part of a level's arousal and valence that lies in the direction of the emotion's."""
    aspect, level = item
    place, way = meanings()[TRAIT_OF[aspect], level], meanings()["emotion", emotion]
    arousal, valence = way.arousal or 0.0, way.valence or 0.0
    along = (place.arousal or 0.0) * arousal + (place.valence or 0.0) * valence
    return along / hypot(arousal, valence)


def stated_levels(meaning: Meaning, plan: Plan) -> list[Item]:
    """What a plan would say of a meaning's levels: one of each trait, what stands out first."""
    by_trait: dict[str, list[Item]] = {}
    for aspect, level in meaning.levels.items():
        by_trait.setdefault(TRAIT_OF[aspect], []).append((aspect, level))
    notable, ordinary = [], []
    for items in by_trait.values():
        standing_out = [item for item in items if item[1] != "normal"]
        # Three times in four the high, low, loud … itself rather than how it moves.
        first = [item for item in standing_out if item[0] in PRIMARY]
        pool = first if first and plan.wording % 4 else standing_out
        if pool:
            notable.append(pool[plan.wording // 4 % len(pool)])
        else:
            ordinary.append(items[0])
    turn = plan.wording % max(1, len(notable))
    most = MOST_LEVELS[plan.style]
    # What nobody remarks on ("of normal volume") is said where there is little else to say.
    told = [*notable[turn:], *notable[:turn], *ordinary[: max(0, 2 - len(notable))]]
    return told[: most[plan.wording % len(most)]]


def _placed(
    grammar: Grammar, frame: Frame, stated: Sequence[Item], plan: Plan
) -> dict[str, list[Item]]:
    """Content slot → what is said in it: first what slots cannot do without, then what has room."""
    slots = [slot for slot in dict.fromkeys(frame.template.holds) if slot in CONTENT]
    placed: dict[str, list[Item]] = {}
    left = list(stated)

    def offers(item: Item, slot: str) -> bool:
        role, most = grammar.room[slot]
        return len(placed.get(slot, ())) < most and role in grammar.phrases[item]

    for slot in slots:
        if slot in frame.template.needs:
            item = next((item for item in left if offers(item, slot)), None)
            if item is not None:
                placed.setdefault(slot, []).append(item)
                left.remove(item)
    turn = plan.wording % max(1, len(slots))
    for item in left:
        free = (slot for slot in (*slots[turn:], *slots[:turn]) if offers(item, slot))
        for slot in islice(free, 1):
            placed.setdefault(slot, []).append(item)
    order = list(TRAIT_OF)
    return {slot: sorted(items, key=lambda i: order.index(i[0])) for slot, items in placed.items()}


class _Speaker:
    """Fills the slots of one caption."""

    def __init__(
        self, grammar: Grammar, meaning: Meaning, placed: Mapping[str, Sequence[Item]], plan: Plan
    ) -> None:
        self.grammar, self.meaning, self.placed = grammar, meaning, placed
        self.number = plan.wording
        self.gender_said = False

    def write(self, source: str) -> str:
        return parse(source).render(self.pick, self.placed, self.number)

    def pick(self, name: str) -> str:
        """The text of a slot."""
        grammar, gender = self.grammar, self.meaning.gender
        if name in CONTENT:
            return self.content(name)
        if name in grammar.hedges:
            return self.write(self.one_of(self.hedged(grammar.hedges[name])))
        emotion = self.emotion(name)
        if emotion is not None:
            return emotion
        inflected = grammar.inflected(name, gender)
        people = grammar.people[gender]
        if inflected is not None:
            self.gender_said = self.gender_said or name.startswith("she ")
            return inflected
        if name in people:
            self.gender_said = True
            return self.write(self.one_of(people[name]))
        return self.write(self.one_of(grammar.words[name]))

    def hedged(self, by_hedge: Words) -> Sequence[str]:
        """How an emotion is said that is as certain, and where it is sure as strong, as this."""
        kinds = [self.meaning.hedge]
        if self.meaning.hedge == "sure":
            neutral = self.meaning.emotion == "neutral"
            kinds = ["neutral" if neutral else self.meaning.intensity or "normal", *kinds]
        return next(by_hedge[kind] for kind in kinds if kind in by_hedge)

    def one_of(self, options: Sequence[str]) -> str:
        return options[self.number % len(options)]

    def content(self, slot: str) -> str:
        """The phrases of a content slot as one."""
        role = self.grammar.room[slot][0]
        sources = [self.one_of(self.grammar.phrases[item][role]) for item in self.placed[slot]]
        if slot.startswith("first_"):
            sources[0] = self.introduced(sources[0])
        return self.grammar.join[slot]([self.write(source) for source in sources])

    def introduced(self, source: str) -> str:
        """A clause that says who speaks, where it is the first: "the woman's voice shakes"."""
        if not source.startswith("{she "):
            return source.replace("{her}", "{womans}", 1)
        return re.sub(r"\{she (\w+)\}", r"{the_woman} {one \1}", source, count=1)

    def emotion(self, name: str) -> str | None:
        """A word for the emotion, as strong as it is; "adj2" is one for the second emotion."""
        kind, meaning = name.removesuffix("2"), self.meaning
        emotion = meaning.second if name.endswith("2") and meaning.second else meaning.emotion
        calm = meaning.calm and emotion == "neutral"
        words = self.grammar.emotions["calm" if calm else emotion]
        if kind not in words:
            return None
        options = words[kind]
        if meaning.hedge == "sure" and meaning.intensity in ("weak", "strong"):
            options = words.get(f"{kind} {meaning.intensity}", options)
        elif meaning.hedge != "sure":
            options = words.get(f"{kind} hedged", options)
        # Of two emotions the words are not of one number, or "calm" and "sad" would always meet.
        return self.write(options[(self.number + 5 * name.endswith("2")) % len(options)])


def sentences(meaning: Meaning, style: str, language: str) -> Iterator[tuple[Plan, Sentence]]:
    """Every caption of a meaning in a style, with its plan."""
    grammar = open_grammar(language)
    for plan in _plans(grammar, style):
        sentence = _sentence(grammar, meaning, plan)
        if sentence is not None:
            yield plan, sentence
