"""Tokenisations of captions, and captions as tokens and as counted n-grams.

coco-en   English as the COCO evaluation tokenises it
zh-char   every character a token: Chinese characters, punctuation, and the letters and digits of
          foreign words and numbers alike; only white space is dropped
zh-word   the words of jieba, punctuation among them; white space is dropped

COCO hands captions to Stanford's PTBTokenizer, lower-cased, and drops a list of punctuation marks.
`CocoEnglish` was written from the Penn Treebank's rules and that program's output, and the tests
hold both to the same tokens. It keeps its oddities: brackets stay as "-lrb-" (COCO's list spells
them in capitals), "!!" stays where "!" goes, "€" becomes "$", and characters beyond the first
plane of Unicode vanish. Not kept is what depends on the word after ("No. 5" against "no. Five")
and what no caption holds (words glued to each other, markup with white space in it).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import MissingModelError, UnknownNameError

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""COCO's punctuation marks, as far as the tokenizer's lower-cased output has them."""

REPLACED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "£": "#", "€": "$", "₠": "$", "¤": "$", "¢": "cents",
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
}  # fmt: skip
"""Tokens that the tokenizer writes another way."""

ABBREVIATIONS = (
    "mr mrs ms dr prof profs drs sr jr st mt ft gen col maj capt lt sgt cpl pvt cmdr adm gov govs "
    "sen sens rep reps pres rev hon messrs msgr supt insp det brig atty mme mlle jan feb mar apr "
    "jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri inc corp co cos ltd bros plc "
    "cie assn univ dept est ave blvd rd sq ste bldg etc vs al cf tel ext natl elec mfg treas pte "
    "bhd pty intl sys bancorp mo rt ph ph.d calif va ind fla ga ariz colo conn kan ky md mich minn "
    "mont neb nev okla penn tenn vt wis wyo"
)
"""They keep their full stop however they are written."""

CAPITAL_ABBREVIATIONS = "Mass Pa Ill Tex Ark Del La Miss Ore Wash Ala"
"""They keep it where they are capitalised: otherwise they are words."""

APOSTROPHE = "['’]"
LETTER = r"[^\W\d_]"
SUPERSCRIPTS = "²³¹⁰-₟¼-¾⅐-⅟"
"""Figures that stand by themselves, though Unicode counts them as numbers."""
WORD = rf"(?:(?![{SUPERSCRIPTS}])\w)"
SOLID = rf"(?!_){WORD}(?:{WORD}*(?!_){WORD})?"

PATTERNS = (
    # Markup, references, addresses.
    r"</?[A-Za-z!?][^<>]*>",
    r"&(?:amp|lt|gt|quot|nbsp);",
    r"https?://[^\s<>\"]+|www\.[^\s<>\"]*\w|[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    # Words that the Treebank takes apart: "can|not", "gon|na".
    r"(?<!\w)(?i:can(?=not(?!\w))|gon(?=na(?!\w))|wan(?=na(?!\w))|got(?=ta(?!\w))"
    r"|lem(?=me(?!\w))|gim(?=me(?!\w)))",
    # Words with an apostrophe of their own.
    r"(?<!\w)[Cc](?:\+\+|#)(?!\w)|(?<!\w)(?:US|A|C)\$",
    rf"(?<!\w)(?i:[dlo]{APOSTROPHE}{LETTER}{{2,}}|ma{APOSTROPHE}am|c'mon|cap{APOSTROPHE}n"
    rf"|ne{APOSTROPHE}er|y{APOSTROPHE}(?=\w)|(?:something|nothing|somethin|ol){APOSTROPHE})",
    rf"{APOSTROPHE}n{APOSTROPHE}?(?!\w)|(?<!\w)(?:{APOSTROPHE}(?:(?i:em)|\d0s)|'(?i:till?|cause)|'\d\d)(?!\w)",
    r"(?<!\w)'(?i:t)(?=(?i:is|was))|(?<=['’][Tt])(?i:is|was)(?=n['’]t)",
    # Initials and abbreviations keep their stops.
    rf"(?<!\w){LETTER}(?:\.{LETTER})*\.(?!\w|-\w)",
    rf"(?<!\w)(?:(?i:{'|'.join(ABBREVIATIONS.split())})|{'|'.join(CAPITAL_ABBREVIATIONS.split())})"
    r"\.(?![\w])",
    # "do|n't", then what hangs on a word.
    r"\w+?(?=(?i:n['’‘`]t)(?!\w))|(?i:n['’‘`]t)(?!\w)",
    rf"{APOSTROPHE}(?i:s|d|m|ll|re|ve)(?!\w)",
    # Compounds, then numbers, then words.
    rf"(?:\d+(?:[.,]\d+)+|{SOLID}(?:[.,]{LETTER}+)*\.?)(?:-{SOLID})+(?:/{LETTER}\w*(?:-{SOLID})*)*",
    r"(?<!\w)[A-Z]+(?:&[A-Z]+)+(?!\w)",
    rf"{LETTER}\w*(?:[./]{LETTER}(?:[\w-]*[^\W_])?)+|{LETTER}+[!?]{LETTER}+|\d{{1,4}}/\d{{1,4}}(?!\w)",
    r"[-+]?\d+(?:[.,:]\d+)+|(?<![\w])[-+]\d+|[.,]\d+",
    rf"#+{LETTER}\w*|@{LETTER}\w*|{LETTER}+@{LETTER}+",
    SOLID,
    # Marks: some in runs, the rest one by one.
    r"\.\.\.|--+|##+|__+|[!?]{2,}|\*+|``|''|[:;=][-o]?[)(DP](?!\w)",
    r"[!-/:-@\[-`{-~\u00a1-\u00ac\u00ae-\u2bff\u3001-\u303f\u30fb\uff01-\uff65\uffe0-\uffe6]",
)
"""What a token looks like; at each place the first pattern that fits is taken."""

ASTRAL = re.compile("[\U00010000-\U0010ffff]+")
"""Characters that the tokenizer cannot read."""

CLITICS = frozenset({"s", "d", "m", "ll", "re", "ve"})

REMOVED = frozenset('"“”«»‘’‛‹›–—―…') | {"&quot;", "&nbsp;"} | PUNCTUATION
"""Tokens that are left out: COCO's marks, and what the tokenizer turns into one of them."""


class CocoEnglish:
    """English captions to COCO's tokens; chunks seen before are looked up."""

    name = "coco-en"

    def __init__(self) -> None:
        self._token = re.compile("|".join(PATTERNS))
        self._cached = lru_cache(maxsize=1 << 16)(self._tokenise_chunk)

    def __call__(self, text: str) -> list[str]:
        """The tokens of one caption."""
        # No token holds white space, so a caption is cut where it is and each piece alone.
        return [token for chunk in text.split() for token in self._cached(chunk)]

    def _tokenise_chunk(self, chunk: str) -> tuple[str, ...]:
        readable = ASTRAL.sub(" ", chunk)
        found = (token for token in self._token.findall(readable) if token not in REMOVED)
        return tuple(_as_written(token) for token in found if token.strip("-"))


def _as_written(token: str) -> str:
    if token[-1] == ")" and len(token) > 1:
        return f"{token[:-1]}-rrb-"
    if (token[:1] == "’" and token[1:].lower() in CLITICS) or token[-2:].lower() == "’t":
        token = token.replace("’", "'")
    return REPLACED.get(token, token).lower()


DEFAULT_TOKENISATIONS: Mapping[str, str] = {"en": "coco-en", "zh": "zh-char"}
"""Language → its tokenisation where none is named."""


class Tokeniser(Protocol):
    """Cuts captions into tokens; any Unicode text has some, or none."""

    @property
    def name(self) -> str:
        """As it stands in a signature."""

    def __call__(self, text: str) -> list[str]:
        """The tokens of one caption."""


class ChineseCharacters:
    """Every character is a token."""

    name = "zh-char"

    def __call__(self, text: str) -> list[str]:
        """The characters of one caption that are not white space."""
        return [character for character in text if not character.isspace()]


class ChineseWords:
    """The words of jieba."""

    name = "zh-word"

    def __init__(self) -> None:
        try:
            jieba: Any = import_module("jieba")
        except ModuleNotFoundError as error:
            raise MissingModelError("zh-word needs jieba: pip install 'aligncap[zh]'") from error
        jieba.setLogLevel("ERROR")  # it reports the loading of its dictionary
        self._cut: Callable[[str], list[str]] = jieba.lcut

    def __call__(self, text: str) -> list[str]:
        """The words of one caption that are not white space."""
        return [word for word in self._cut(text) if not word.isspace()]


TOKENISERS: Mapping[str, Callable[[], Tokeniser]] = {
    "coco-en": CocoEnglish,
    "zh-char": ChineseCharacters,
    "zh-word": ChineseWords,
}


def open_tokeniser(name: str | None, language: str) -> Tokeniser:
    """The tokeniser of that name, or the language's own; MissingModelError without its library."""
    name = name or DEFAULT_TOKENISATIONS[language]
    if name not in TOKENISERS:
        raise UnknownNameError("tokenisation", name, TOKENISERS)
    return TOKENISERS[name]()


Ints = NDArray[np.int64]

Column = NDArray[np.int32]
"""There are many of these, and they are long."""

MAX_ORDER = 4
"""BLEU and CIDEr count n-grams of one to four tokens."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """Some sentences, one after the other."""

    tokens: list[list[str]]
    clip: Ints
    """The clip that each belongs to, ascending; shape [sentences]."""

    @property
    def lengths(self) -> Ints:
        """Tokens of each; shape [sentences]."""
        return np.fromiter(map(len, self.tokens), np.int64, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each n-gram of one order occurs in each sentence.

    The columns have one entry for each pair that occurs and are sorted by sentence, then n-gram.
    """

    sentence: Column
    gram: Column
    count: Column
    grams: int
    """Different n-grams of this order, in hypotheses and references together."""

    def keys(self, owner: Ints) -> Ints:
        """One number for owner and n-gram; `owner`, shape [sentences], may be the clip."""
        return owner[self.sentence] * self.grams + self.gram


class TokenisedClips:
    """The clips' tokens, and their n-grams once they are asked for.

    Tokens are numbered, and an n-gram is the number of its first n - 1 tokens with the number of
    its last, numbered again: counting and comparing are sorts of whole columns, and pairs of clips
    are never looped over.
    """

    def __init__(
        self,
        hypotheses: Sequence[str],
        references: Sequence[Sequence[str]],
        tokeniser: Tokeniser,
    ) -> None:
        """A hypothesis and at least one reference for each clip."""
        self.clips = len(hypotheses)
        self.tokenisation = tokeniser.name
        self.hypotheses = Sentences(list(map(tokeniser, hypotheses)), np.arange(self.clips))
        self.references = Sentences(
            [tokeniser(text) for texts in references for text in texts],
            np.repeat(np.arange(self.clips), [len(texts) for texts in references]),
        )

    @cached_property
    def bounds(self) -> Ints:
        """Where each clip's references begin, and the end; shape [clips + 1]."""
        return np.searchsorted(self.references.clip, np.arange(self.clips + 1))

    @cached_property
    def counts(self) -> tuple[tuple[Counts, Counts], ...]:
        """For each order the counts of the hypotheses and of the references."""
        return tuple(_count_ngrams(self.hypotheses, self.references))

    @cached_property
    def clipped_matches(self) -> tuple[Ints, ...]:
        """For each order the n-grams of each hypothesis that its references have, each counted up
        to its maximum in one reference; shape [clips]."""
        found = []
        for hypotheses, references in self.counts:
            keys = references.keys(self.references.clip)
            order = np.argsort(keys, kind="stable")
            known, first = np.unique(keys[order], return_index=True)
            most = np.maximum.reduceat(references.count[order], first) if len(first) else first
            which, place = matching(hypotheses.keys(np.arange(self.clips)), known)
            clipped = np.minimum(hypotheses.count[which], most[place])
            sums = np.bincount(hypotheses.sentence[which], clipped, self.clips)
            found.append(sums.astype(np.int64))
        return tuple(found)


def matching(keys: Ints, known: Ints) -> tuple[Ints, Ints]:
    """Which of the keys are among the known ones, and where those are; `known` is sorted."""
    place = np.searchsorted(known, keys)
    place[place == len(known)] = 0
    found = np.flatnonzero(known[place] == keys) if len(known) else np.empty(0, np.int64)
    return found, place[found]


def _count_ngrams(hypotheses: Sentences, references: Sentences) -> Iterator[tuple[Counts, Counts]]:
    sentences = len(hypotheses.tokens)
    lengths = np.concatenate([hypotheses.lengths, references.lengths])
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    left = np.arange(len(sentence)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    left = np.repeat(lengths, lengths) - left  # tokens from here to the end of the sentence
    tokens = list(chain.from_iterable([*hypotheses.tokens, *references.tokens]))
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    token = np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
    gram, start = token, np.arange(len(token))
    for order in range(1, MAX_ORDER + 1):
        if order > 1:
            fits = left[start] >= order
            start = start[fits]
            pair = gram[fits] * (len(token) + 1) + token[start + order - 1]
            gram = np.unique(pair, return_inverse=True)[1]
        grams = int(gram.max(initial=-1)) + 1
        key, count = np.unique(sentence[start] * max(grams, 1) + gram, return_counts=True)
        owner, which = (part.astype(np.int32) for part in np.divmod(key, max(grams, 1)))
        count = count.astype(np.int32)
        cut = int(np.searchsorted(owner, sentences))
        yield (
            Counts(owner[:cut], which[:cut], count[:cut], grams),
            Counts(owner[cut:] - sentences, which[cut:], count[cut:], grams),
        )
