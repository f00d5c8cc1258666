"""English captions: how the parts are joined, and what a good sentence must not do."""

import re
from random import Random

from aligncap.corpora.paraphrase.english_emotions import EMOTION_WORDS
from aligncap.corpora.paraphrase.english_frames import FRAMES, WORDS
from aligncap.corpora.paraphrase.english_people import PEOPLE
from aligncap.corpora.paraphrase.english_words import phrases
from aligncap.corpora.paraphrase.grammar import Grammar, styles_of
from aligncap.corpora.paraphrase.meaning import STATED

FEWEST_WORDS, MOST_WORDS = 8, 35

_STYLES = (
    ("split", 0.66, {"voice": 2, "manner": 2, "tail": 2}),
    ("list", 0.19, {"mark": 4}),
    ("fact", 0.15, {"fact": 4}),
)
_MAY_REPEAT = frozenset(
    re.findall(
        r"\w+",
        "a an the and in at of to is as with her his their she he they for from that toward end",
    )
)
_TAILS = {"with": 0, "while": 2}
_VERBS = {"be": ("is", "are"), "say": ("says", "say")}


def grammar() -> Grammar:
    """The English grammar."""
    return Grammar(
        phrases=phrases(),
        styles=styles_of(_STYLES, FRAMES),
        join={
            "voice": lambda words, _rng: ", ".join(words),
            "voice_is": lambda words, _rng: " and ".join(words),
            "manner": _join_manner,
            "tail": _join_tail,
            "marks": lambda words, _rng: _listed(words),
            "facts": _join_facts,
        },
        role_of={
            "voice": "voice",
            "voice_is": "voice",
            "manner": "manner",
            "tail": "tail",
            "marks": "mark",
            "facts": "fact",
        },
        emotions=EMOTION_WORDS,
        people=PEOPLE,
        words=WORDS,
        emphasised={
            "adj": "{very}WORD",
            "noun": "{great}WORD",
        },
        plain={},
        inflected=_inflected,
        finish=_finish,
        reads_well=_reads_well,
        gender_stated=0.94,
        aspect_stated=STATED,
        normal_stated=0.6,
        most_levels=4,
    )


def _inflected(slot: str, gender: str | None) -> str | None:
    """ "she speak" → "she speaks", "he speaks" or "they speak"."""
    if not slot.startswith("she "):
        return None
    verb = slot.removeprefix("she ")
    singular, plural = _VERBS.get(verb, (f"{verb}s", verb))
    return {
        "female": f"she {singular}",
        "male": f"he {singular}",
        None: f"they {plural}",
    }[gender]


def _listed(words: list[str]) -> str:
    """ "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _join_manner(words: list[str], rng: Random) -> str:
    """Adverbs before phrases: "quickly and quietly", "quietly at a fast pace"."""
    ordered = sorted(words, key=lambda word: " " in word)
    phrases = sum(" " in word for word in ordered)
    joint = " " if len(ordered) == 2 and phrases == 1 and rng.random() < 0.5 else " and "
    return joint.join(ordered)


def _join_tail(words: list[str], _rng: Random) -> str:
    """Phrases with "with" first and clauses with "while" last, each word once."""
    ordered = sorted(words, key=lambda word: _TAILS.get(word.split()[0], 1))
    first, *rest = ordered
    if not rest:
        return first
    second = rest[0]
    if second.split()[0] == first.split()[0] and second.split()[0] in _TAILS:
        return f"{first} and {second.split(maxsplit=1)[1]}"
    return f"{first}{', ' if second.startswith('while ') else ' and '}{second}"


def _join_facts(words: list[str], _rng: Random) -> str:
    """ "the pitch is high, the pace slow and the volume low"."""
    (noun, adjective), *rest = (word.split("=") for word in words)
    return _listed([f"the {noun} is {adjective}", *(f"the {n} {a}" for n, a in rest)])


def _finish(text: str) -> str:
    """A sentence: articles that fit, a capital, a full stop."""
    # "a uniform", "a euphoric", but "an uninterested": there un- is a syllable of its own.
    text = re.sub(r"\ba(?= (?!use|usu|uni(?![mn])|eu|one)[aeiou])", "an", text)
    return f"{text[0].upper()}{text[1:]}."


def _reads_well(text: str) -> bool:
    """Long enough, not too long, and no word (nor its cousin) said twice."""
    words = re.findall(r"[a-z'-]+", text.lower())
    if not FEWEST_WORDS <= len(words) <= MOST_WORDS:
        return False
    if "quite quiet" in text:
        return False
    stems = [word[:5] for word in words if word not in _MAY_REPEAT]
    return len(set(stems)) == len(stems)
