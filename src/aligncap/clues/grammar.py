"""From the text of a caption to its emotional clues and to the acoustic prompt (§3.1, Eq. 1).

`find_clues` is the paper's G_Parser. A sentence becomes a string of word kinds (one letter a word,
see `vocabulary`): English by tokens, lemmas and phrases, Chinese by the better of two longest-match
segmentations. Chunk patterns over the kinds tie adjectives to their heads ("a low, rich voice",
"his pitch and volume are low", "低沉的声音", "语速有些快"), as NLTK's RegexpParser does over tags,
and what precedes a clue negates or strengthens it. `acoustic_prompt` writes the clues as P_act;
`clues.emotion` maps them to a category and to the circumplex.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

from aligncap.clues.vocabulary import (
    LONGEST_TEXT,
    ClueVocabulary,
    Sense,
    Word,
    meanings,
    plain_text,
    vocabulary,
)
from aligncap.errors import UnknownNameError
from aligncap.values import LANGUAGES, Clue

AND = "(?:&|,&)"
JOIN = "(?:,|&|,&)"
MORE = f"(?:{JOIN}?[ND]*[ACa])*"

# English: "low, rich voice"; "raises his voice"; "low in pitch". Further heads share the adjective
# only in a list that ends in "and" ("high pitch, speed and volume"), and not when they have a
# predicate of their own ("high pitch and the volume is low").
EN_HEADS = "H+(?:id?f?H+)?f*"
EN_MORE = f"(?:(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS}(?!o?b[NDd]*[AC]))?"
EN_ATTRIBUTE = re.compile(f"(?P<adjectives>[AC]{MORE})[fd]*(?P<heads>{EN_HEADS}{EN_MORE})")
EN_INVERSE = re.compile(f"(?P<adjectives>[AC])i(?P<heads>{EN_HEADS}{EN_MORE})")
EN_SHARED_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS}(?:,d?f*{EN_HEADS})*{AND}d?f*{EN_HEADS})o?b+[NDdfb]*"
    f"(?P<adjectives>[ACa](?:{JOIN}?b?[ND]*[ACa])*)(?![fd]*H)"
)
EN_PREDICATE = re.compile(
    f"(?P<heads>{EN_HEADS})o?[NDdfbi]*(?P<adjectives>[ACa](?:{JOIN}?b?[ND]*[ACa])*)(?![fd]*H)"
)
# "Her voice, low and rich, …"; but "of normal pace, rising and loud" is a list of clues.
EN_APPOSITION = re.compile(
    f"(?<![Aai])(?P<heads>{EN_HEADS}),[ND]*(?P<adjectives>[AC](?:{JOIN}?[ND]*[AC])*)(?=[,;]|$)"
)
# Chinese: the predicate comes first, for it needs no copula ("语速快"), then "低沉的声音".
ZH_HEADS = "H(?:[if]*H)*"
ZH_PREDICATE = re.compile(
    f"(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)[if]*o?[NDdfbi]*"
    f"(?P<adjectives>[AC](?:{JOIN}?[NDbi]*[AC])*)"
)
ZH_ATTRIBUTE = re.compile(
    f"(?P<adjectives>[AC]{MORE})(?:i[fd]*)?(?P<heads>{ZH_HEADS}(?:&{ZH_HEADS})*)"
)
PATTERNS = {
    "en": (EN_ATTRIBUTE, EN_INVERSE, EN_SHARED_PREDICATE, EN_PREDICATE, EN_APPOSITION),
    "zh": (ZH_PREDICATE, ZH_ATTRIBUTE),
}
HEAD_GROUP = re.compile("H(?:[ifd]*H)*")
CLAUSE = re.compile("[^;np]{1,100}")
"""No chunk reaches over these kinds; without them one hundred words at a time are searched, so
that the time is linear in the text."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Adjectives and what they are said of, as positions in the sentence."""

    adjectives: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    """One entry a head: the positions it may stand at in a compound, the likeliest first."""


def chunks_of(kinds: str, language: str) -> Iterator[Chunk]:
    """The chunks of a sentence; of two that claim the same adjective the first is right."""
    for clause in CLAUSE.finditer(kinds):
        if "H" not in clause.group():
            continue
        for pattern in PATTERNS[language]:
            for match in pattern.finditer(kinds, *clause.span()):
                adjectives = [at for at in range(*match.span("adjectives")) if kinds[at] == "A"]
                yield Chunk(tuple(adjectives), heads_in(kinds, *match.span("heads"), language))


def heads_in(kinds: str, start: int, end: int, language: str) -> tuple[tuple[int, ...], ...]:
    """The heads between two positions.

    In "voice volume" and 声音的音量 the last noun is the head, in "tone of voice" the first run.
    """
    heads = []
    for group in HEAD_GROUP.finditer(kinds, start, end):
        text = group.group()
        run = len(text) if language == "zh" else len(text) - len(text.lstrip("H"))
        positions = [group.start() + n for n in range(run - 1, -1, -1) if text[n] == "H"]
        heads.append(tuple(positions))
    return tuple(heads)


CHINESE_SPACE = re.compile(r" (?=[\u3000-\u9fff])|(?<=[\u3000-\u9fff]) ")

ENGLISH_TOKEN = re.compile(r"[^\W\d_]+|'(?:s|re|t)\b|[,;:.!?()—–…\n]|\d+")

SUFFIXES = (
    ("iness", "y"), ("ness", ""), ("ically", "ic"), ("ably", "able"), ("ibly", "ible"),
    ("ily", "y"), ("fully", "ful"), ("ly", ""), ("ly", "le"), ("ly", "l"),
    ("ies", "y"), ("ied", "y"), ("ier", "y"), ("iest", "y"),
    ("es", ""), ("es", "e"), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("er", ""), ("er", "e"), ("est", ""), ("est", "e"),
)  # fmt: skip
"""Endings that inflection and derivation put in place of another, the most telling first."""

COMPARATIVES = {"er", "est"}

ENDINGS = (
    (("ly",), "RB"),
    (("ful", "ous", "ish", "ive", "less", "able", "ible", "like"), "JJ"),
    (("ing",), "VBG"),
    (("ed",), "VBD"),
    (("s",), "NNS"),
)
KINDS = {"RB": "D", "JJ": "a"}
"""Unknown adverbs and adjectives may stand inside a chunk; other unknown words end it."""

ENGLISH_COMMA = Word(text=",", kind=",")
ENGLISH_STOP = Word(text=".", kind=";")


def english_words(text: str) -> list[Word]:
    """The words of an English sentence; what the vocabulary does not know is of kind "o"."""
    return known_english_words(_english_tokens(text))


def known_english_words(tokens: list[str]) -> list[Word]:
    """Lower-case tokens as words of the vocabulary, phrases joined."""
    return list(_match(tokens, vocabulary("en")))


def _english_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for form in ENGLISH_TOKEN.findall(text.lower()):
        if form == "'t" and tokens and tokens[-1].endswith("n"):
            stem = tokens.pop()[:-1]
            # "can't" is "ca" + "n't": put back the letter that the contraction swallowed.
            tokens += [{"ca": "can", "wo": "will"}.get(stem, stem)] if stem else []
            tokens.append("n't")
        else:
            tokens.append(form)
    return tokens


def _match(tokens: list[str], known: ClueVocabulary) -> Iterator[Word]:
    at = 0
    while at < len(tokens):
        token = tokens[at]
        for phrase in known.phrases.get(token, ()):
            if _begins(tokens, at, phrase):
                yield known.words[" ".join(phrase)]
                at += len(phrase)
                break
        else:
            yield _english_word(token)
            at += 1


def _begins(tokens: list[str], at: int, phrase: tuple[str, ...]) -> bool:
    if at + len(phrase) > len(tokens):
        return False
    return all(
        tokens[at + n] == part or tokens[at + n] == part + "s" for n, part in enumerate(phrase) if n
    )


@lru_cache(maxsize=20_000)
def _english_word(form: str) -> Word:
    if form == ",":
        return ENGLISH_COMMA
    if not form[0].isalnum() and form[0] != "'":
        return ENGLISH_STOP
    words = vocabulary("en").words
    for lemma in lemmas(form):
        if lemma in words:
            return words[lemma]
    return Word(text=form, kind=KINDS.get(english_tag(form), "o"))


def english_tag(form: str) -> str:
    """The part of speech (Penn Treebank) of a word that the vocabulary lacks, by its ending."""
    for endings, name in ENDINGS:
        if len(form) > 5 and form.endswith(endings):
            return name
    return "NN"


def lemmas(token: str) -> Iterator[str]:
    """The forms that `token` may be inflected or derived from, itself first.

    Rules instead of WordNet: a wrong guess does no harm, since only words of the vocabulary count.
    """
    yield token
    words = vocabulary("en").words
    for ending, instead in SUFFIXES:
        if token.endswith(ending) and len(token) - len(ending) >= 3:
            stem = token[: -len(ending)]
            lemma = stem + instead
            # "speaker" is no more than "speak": only what can be compared has a comparative.
            if ending in COMPARATIVES and lemma in words and words[lemma].kind not in "AC":
                continue
            yield lemma
            if not instead and len(stem) > 3 and stem[-1] == stem[-2]:
                yield stem[:-1]


CHINESE_PIECE = re.compile(
    r"[，,]|[。；;！!？?：:.…\n（）()“”\"—]+|[^，,。；;！!？?：:.…\n（）()“”\"—]+"
)
COMMAS = frozenset("，,")
STOPS = frozenset('。；;！!？?：:.…\n（）()“”"—')
CHINESE_COMMA = Word(text="，", kind=",")
CHINESE_STOP = Word(text="。", kind=";")
CHINESE_OTHER = Word(text="")


def chinese_words(text: str) -> list[Word]:
    """The words of a Chinese sentence; a run of unknown characters is one word of kind "o"."""
    known = vocabulary("zh")
    words: list[Word] = []
    for piece in CHINESE_PIECE.findall(CHINESE_SPACE.sub("", text)):
        if piece[0] in COMMAS:
            words.append(CHINESE_COMMA)
        elif piece[0] in STOPS:
            words.append(CHINESE_STOP)
        else:
            words += _split(piece, known)
    return words


def _split(piece: str, known: ClueVocabulary) -> list[Word]:
    """The better of two splits: fewer characters left over, then fewer words.

    Where they are equally good the one from the end is right more often: 和 | 缓慢, not 和缓 | 慢.
    """

    def cost(words: list[Word]) -> tuple[int, int]:
        return sum(word is CHINESE_OTHER for word in words), len(words)

    forward = list(_forward(piece, known))
    backward = list(_backward(piece, known))[::-1]
    best = forward if cost(forward) < cost(backward) else backward
    return list(_joined(best))


def _forward(piece: str, known: ClueVocabulary) -> Iterator[Word]:
    at = 0
    while at < len(piece):
        for length in range(min(known.first.get(piece[at], 0), len(piece) - at), 0, -1):
            word = known.words.get(piece[at : at + length])
            if word is not None:
                yield word
                at += length
                break
        else:
            yield CHINESE_OTHER
            at += 1


def _backward(piece: str, known: ClueVocabulary) -> Iterator[Word]:
    end = len(piece)
    while end > 0:
        for length in range(min(known.last.get(piece[end - 1], 0), end), 0, -1):
            word = known.words.get(piece[end - length : end])
            if word is not None:
                yield word
                end -= length
                break
        else:
            yield CHINESE_OTHER
            end -= 1


def _joined(words: list[Word]) -> Iterator[Word]:
    """Runs of unknown characters as one word."""
    previous: Word | None = None
    for word in words:
        if word is not CHINESE_OTHER or previous is not CHINESE_OTHER:
            yield word
        previous = word


PRONOUNS = {
    "her": "she",
    "hers": "she",
    "herself": "she",
    "his": "he",
    "him": "he",
    "himself": "he",
}
"""The lemma of each English pronoun."""

REACH = {"en": 3, "zh": 1}
"""How many unknown words may stand between a negator and what it negates."""

BETWEEN = 6
"""Words between two emotions that are weighed against each other, at most."""

FARTHEST = 40
"""Words between a clue and what negates or strengthens it, at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """A clue where it stands: the position of its word, and what it says there."""

    at: int
    word: str
    sense: Sense


def kinds_of(words: Sequence[Word]) -> str:
    """A sentence as a string of kinds, one letter a word."""
    return "".join(word.kind for word in words)


def clues_in(words: Sequence[Word], chunks: Iterable[Chunk], language: str) -> list[Clue]:
    """The clues of a text, in the order of their words, each as often as it is there."""
    kinds = kinds_of(words)
    clues = []
    before: Found | None = None  # the emotion named last
    for found in _found(words, kinds, chunks, language):
        sense = found.sense
        alternative = before is not None and _weighed(words, kinds, before, found)
        if sense.trait == "emotion":
            before = found
        degree = sense.degree * _factor(words, kinds, found.at)
        clues.append(
            Clue(
                word=found.word,
                trait=sense.trait,
                meaning=sense.meaning,
                polarity=meanings()[sense.trait, sense.meaning].polarity,
                degree=min(1.5, max(0.25, degree)),
                negated=_negated(words, kinds, found.at, language),
                alternative=alternative,
            )
        )
    return clues


def _weighed(words: Sequence[Word], kinds: str, one: Found, other: Found) -> bool:
    """Whether two emotions of one clause are weighed against each other: "sad or angry", "between
    calm and sad", "又像生气又像难过"."""
    if other.sense.trait != "emotion" or one.sense.meaning == other.sense.meaning:
        return False
    between = range(one.at + 1, other.at)
    if len(between) > BETWEEN or any(kinds[at] == ";" for at in between):
        return False
    near = range(max(0, one.at - BETWEEN), one.at)
    return any(words[at].joins for at in between) or any(
        words[at].weighs for at in (*near, *between)
    )


def _found(
    words: Sequence[Word], kinds: str, chunks: Iterable[Chunk], language: str
) -> Iterable[Found]:
    read, described = _readings(words, chunks, language)
    genders = {s.meaning for w in words for s in w.senses if s.trait == "gender"}
    for at, word in enumerate(words):
        if at in read:
            yield from read[at]
        elif word.kind in "ACH" and at not in described and not _strengthens(words, kinds, at):
            yield from (Found(at, word.text, sense) for sense in word.senses)
        elif word.gender and word.gender not in genders:
            yield Found(at, PRONOUNS.get(word.text, word.text), Sense("gender", word.gender))


def _readings(
    words: Sequence[Word], chunks: Iterable[Chunk], language: str
) -> tuple[dict[int, list[Found]], set[int]]:
    """What each adjective says of the heads its chunk gives it; the heads that are described so."""
    read: dict[int, list[Found]] = {}
    described: set[int] = set()
    for chunk in chunks:
        for at, found in _chunk(words, chunk, language):
            if at not in read:
                read[at] = found
                described.update(position for group in chunk.heads for position in group)
    return read, described


def _chunk(words: Sequence[Word], chunk: Chunk, language: str) -> list[tuple[int, list[Found]]]:
    """The adjectives of one chunk that say something of its heads.

    "A steady, low pitch" is low: what puts a trait in the middle yields to what does not.
    """
    read = [(at, _read(words, at, chunk.heads, language)) for at in chunk.adjectives]
    sided = {f.sense.trait for _, found in read for f in found if f.sense.meaning != "normal"}
    return [
        (at, [f for f in found if f.sense.meaning != "normal" or f.sense.trait not in sided])
        for at, found in read
        if found
    ]


def _read(
    words: Sequence[Word], at: int, heads: Sequence[Sequence[int]], language: str
) -> list[Found]:
    adjective = words[at]
    defaults = {(sense.trait, sense.meaning) for sense in adjective.senses}
    found = []
    for group in heads:
        head = next((h for h in group if words[h].head in adjective.readings), None)
        if head is None:
            continue
        sense = adjective.readings[words[head].head]
        degrees = [s.degree for s in adjective.senses if s.trait == sense.trait] or [1.0]
        pair = (words[head].text, adjective.text)
        text = " ".join(reversed(pair)) if language == "en" else "".join(pair)
        if (sense.trait, sense.meaning) in defaults:
            text = adjective.text
        found.append(Found(at, text, Sense(sense.trait, sense.meaning, degrees[0])))
    return found


def _strengthens(words: Sequence[Word], kinds: str, at: int) -> bool:
    """Whether a word that is also a degree is used as one: "deep sadness", "fierce anger"."""
    if words[at].factor is None or kinds[at + 1 : at + 2] not in ("A", "C"):
        return False
    return any(sense.trait in ("emotion", "tone") for sense in words[at + 1].senses)


def _factor(words: Sequence[Word], kinds: str, at: int) -> float:
    """The product of the degrees that stand beside a clue."""
    factor = 1.0
    before = at - 1
    while before >= max(0, at - FARTHEST) and (
        kinds[before] in "Ddif" or _strengthens(words, kinds, before)
    ):
        if words[before].factor is not None and not words[before].after:
            factor *= words[before].factor or 1.0
        before -= 1
    if at + 1 < len(words) and words[at + 1].after:
        factor *= words[at + 1].factor or 1.0
    return factor


def _negated(words: Sequence[Word], kinds: str, at: int, language: str) -> bool:
    """Whether an odd number of negators reaches the clue; "cannot hide her anger" has none.

    Who is described is not denied with the description: "the calm, not angry man".
    """
    if words[at].gender:
        return False
    is_person = _is_person(words[at])
    attributive = False  # a clue with 的 between here and the clue
    count = unknown = 0
    near = True  # nothing but modifiers between here and the clue
    joined = False  # an "and" between here and the clue
    alternatives = any(w.joins for w in words[at + 1 : at + 4])
    for before in range(at - 1, max(-1, at - 1 - FARTHEST), -1):
        kind = kinds[before]
        if kind == "n":
            return False
        if is_person and kind in "ACH" and not _is_person(words[before]):
            break
        if language == "zh" and kind in "AC" and kinds[before + 1] == "i":
            attributive = True
        if count and kind not in "NDdb":
            break  # "not fast and not slow": the further negator has its own clue
        if kind == "N":
            if words[before].text == "less" and _has_more(words[before:at]):
                break  # "less angry and more relaxed"
            if attributive and words[before].text[-1] not in "是非":
                break  # 毫无悲伤的平静语气 is calm; 不是悲伤的哭泣 is no crying
            count += 1
        elif kind == "o":
            unknown += 1
            near = False
            # "does not understand and is angry": the negator has its own verb.
            if unknown > REACH[language] or joined:
                break
        elif kind == ";" or (kind in "ACH" and not near):
            break
        elif kind == "&":
            alternatives = alternatives or words[before].joins
            if not (near or words[before].joins):
                break
            joined = joined or not words[before].joins
        elif kind == "," and not alternatives:
            break
        elif kind in "bfp":
            near = False
    return count % 2 == 1


def _has_more(words: Iterable[Word]) -> bool:
    return any(word.text in ("more", "much more") for word in words)


def _is_person(word: Word) -> bool:
    return any(sense.trait == "gender" for sense in word.senses)


def without_repeats(clues: Iterable[Clue]) -> list[Clue]:
    """The clues in their order; the same word for the same meaning once."""
    seen: dict[tuple[str, str, str, bool], Clue] = {}
    for clue in clues:
        seen.setdefault((clue.word, clue.trait, clue.meaning, clue.negated), clue)
    return list(seen.values())


HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
LATIN_WORD = re.compile(r"[A-Za-z]+")
LEXERS = {"en": english_words, "zh": chinese_words}


def detect_language(text: str) -> str:
    """ "zh" where Chinese characters are at least as many as Latin words, else "en"."""
    if text.isascii():
        return "en"
    text = plain_text(text[:LONGEST_TEXT])
    han = len(HAN.findall(text))
    return "zh" if han and han >= len(LATIN_WORD.findall(text)) else "en"


def find_clues(
    text: str, language: str | None = None, *, repeats: bool = False
) -> tuple[Clue, ...]:
    """The emotional clues of a caption in their order (e_1 … e_n of Eq. 1).

    The same word for the same meaning counts once, unless `repeats` are asked for. `language` is
    "en", "zh" or None (detected); any other is an UnknownNameError. Text of any kind is read
    without error, up to LONGEST_TEXT characters; what the vocabulary does not know is no clue.
    """
    chosen = language or detect_language(text)
    if chosen not in LEXERS:
        raise UnknownNameError("caption language", chosen, LANGUAGES)
    found = _every_clue(text[:LONGEST_TEXT], chosen)
    return found if repeats else tuple(without_repeats(found))


@lru_cache(maxsize=256)
def _every_clue(text: str, language: str) -> tuple[Clue, ...]:
    """The clues of a text, each as often as it is there; kept, since a caption is read when it is
    ranked, held to the record and written into it."""
    words = LEXERS[language](plain_text(text))
    return tuple(clues_in(words, chunks_of(kinds_of(words), language), language))


PARSERS = {
    "own": "aligncap.clues.grammar:find_clues",
    "nltk": "aligncap.clues.toolkit:find_clues_with_toolkit",
}
"""The grammar parsers (decision 6): ours, and the paper's on NLTK, by module and function."""


def open_parser(name: str) -> Callable[[str, str], tuple[Clue, ...]]:
    """The function of a grammar parser: a text and its language to clues. UnknownNameError."""
    if name not in PARSERS:
        raise UnknownNameError("grammar parser", name, PARSERS)
    module, _, function = PARSERS[name].partition(":")
    parser: Callable[[str, str], tuple[Clue, ...]] = getattr(import_module(module), function)
    return parser


def acoustic_prompt(clues: Sequence[Clue], language: str = "en") -> str:
    """The clues as P_act of Eq. 1: "Feeling e1, e2, … and en", "感到e1、e2和en", "" for no clue.

    Negated clues are left out: the template has no place for "not". A pronoun, and a clue found in
    the other language, is written with the usual word for its meaning.
    """
    if language not in LANGUAGES:
        raise UnknownNameError("caption language", language, LANGUAGES)
    words = list(dict.fromkeys(_prompt_word(clue, language) for clue in clues if not clue.negated))
    if not words:
        return ""
    *most, last = words
    if language == "zh":
        return f"感到{'、'.join(most)}{'和' if most else ''}{last}"
    if not most:
        return f"Feeling {last}"
    return f"Feeling {', '.join(most)}{',' if len(most) > 1 else ''} and {last}"


def _prompt_word(clue: Clue, language: str) -> str:
    known = vocabulary(language).words.get(clue.word)
    if detect_language(clue.word) == language and not (known and known.gender):
        return clue.word
    meaning = meanings().get((clue.trait, clue.meaning))
    if meaning is None:
        return clue.word
    return meaning.zh if language == "zh" else meaning.en
