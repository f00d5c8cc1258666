"""English words as the COCO evaluation cuts them: Penn Treebank rules, without Java.

COCO hands captions to Stanford's PTBTokenizer, lower-cased, and drops a list of punctuation marks.
What is here was written from the Treebank's rules and from what that program answers; the tests
hold the two to the same tokens. It keeps its ways, odd ones included: brackets stay as "-lrb-"
(COCO's list spells them in capitals), "!!" stays where "!" goes, "€" becomes "$", and characters
beyond the first plane of Unicode vanish. Not kept is what hangs on the word after ("No. 5" against
"no. Five") and what no caption holds (words glued to each other, markup with white space in it).
"""

import re
from functools import lru_cache

DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""COCO's punctuation marks, as far as the lower-cased output of the tokenizer can hold them."""

WRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "£": "#", "€": "$", "₠": "$", "¤": "$", "¢": "cents",
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
}  # fmt: skip
"""What the tokenizer writes otherwise."""

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
RAISED = "²³¹⁰-₟¼-¾⅐-⅟"
"""Figures that stand by themselves, though Unicode counts them as numbers."""
WORD = rf"(?:(?![{RAISED}])\w)"
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

BEYOND = re.compile("[\U00010000-\U0010ffff]+")
"""Characters that the tokenizer cannot read."""

CLITICS = frozenset({"s", "d", "m", "ll", "re", "ve"})

UNWRITTEN = frozenset('"“”«»‘’‛‹›–—―…') | {"&quot;", "&nbsp;"} | DROPPED
"""What leaves no token: COCO's marks, and what the tokenizer turns into one of them."""


class CocoEnglish:
    """English captions to COCO's tokens; words seen before cost a look-up."""

    name = "coco-en"

    def __init__(self) -> None:
        self._token = re.compile("|".join(PATTERNS))
        self._of_chunk = lru_cache(maxsize=1 << 16)(self._cut)

    def __call__(self, text: str) -> list[str]:
        """The tokens of one caption."""
        # No token holds white space, so a caption is cut where it is and each piece alone.
        return [token for chunk in text.split() for token in self._of_chunk(chunk)]

    def _cut(self, chunk: str) -> tuple[str, ...]:
        readable = BEYOND.sub(" ", chunk)
        found = (token for token in self._token.findall(readable) if token not in UNWRITTEN)
        return tuple(_written(token) for token in found if token.strip("-"))


def _written(token: str) -> str:
    if token[-1] == ")" and len(token) > 1:
        return f"{token[:-1]}-rrb-"
    if (token[:1] == "’" and token[1:].lower() in CLITICS) or token[-2:].lower() == "’t":
        token = token.replace("’", "'")
    return WRITTEN.get(token, token).lower()
