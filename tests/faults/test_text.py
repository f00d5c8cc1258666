"""Captions as other tools write them.

The clues do not depend on spacing, punctuation, case, width or what is invisible; a negation ends
where its clause or its list of adjectives does; the time is linear in the text.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import detect_language, find_clues
from aligncap.clues.grammar import CLAUSE, kinds_of, known_english_words
from aligncap.clues.vocabulary import LONGEST_TEXT
from aligncap.values import LANGUAGES

CAPTIONS = Path(__file__).parents[3] / "shared/data/captions"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e"
BLANKS = " \u00a0\u2009\u202f\u3000\t"


@cache
def shared_captions() -> tuple[str, ...]:
    files = sorted(CAPTIONS.glob("*.jsonl"))
    if not files:
        pytest.skip(f"needs the captions of {CAPTIONS}")
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    texts = [row.get("caption") or row.get("style_prompt") for row in rows]
    return tuple(dict.fromkeys(text for text in texts if isinstance(text, str)))


def treebank(text: str, _: Random) -> str:
    text = re.sub(r"(?<=\w)(n['’]t|['’](?:s|re|ve|ll|d|m))\b", r" \1", text)
    text = re.sub(r"([,;:.!?\"])", r" \1 ", text)
    return text.replace("(", "-LRB- ").replace(")", " -RRB-")


def curly(text: str, random: Random) -> str:
    return text.replace("'", random.choice("’ʼ′‘`´＇")).replace('"', random.choice("“”„«»"))


def upper(text: str, random: Random) -> str:
    return random.choice((str.upper, str.lower, str.swapcase))(text)


def wide(text: str, _: Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def blanks(text: str, random: Random) -> str:
    return "".join(
        random.choice(BLANKS) * random.randint(1, 3) if letter == " " else letter for letter in text
    )


def invisible(text: str, random: Random) -> str:
    return "".join(
        letter + (random.choice(INVISIBLE) if random.random() < 0.1 else "") for letter in text
    )


def spaced_chinese(text: str, random: Random) -> str:
    return re.sub(
        "(?<=[\u4e00-\u9fff，。])(?=[\u4e00-\u9fff，。])",
        lambda _: " " if random.random() < 0.5 else "",
        text,
    )


VARIANTS: tuple[Callable[[str, Random], str], ...] = (
    treebank, curly, upper, wide, blanks, invisible, spaced_chinese
)  # fmt: skip


def variant(text: str, random: Random) -> str:
    for change in random.sample(VARIANTS, random.randint(1, 4)):
        text = change(text, random)
    return text


def assert_same_clues(text: str, random: Random) -> None:
    language = detect_language(text)
    changed = variant(text, random)
    assert find_clues(changed, language) == find_clues(text, language), changed


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_harmless_variants_of_captions_have_the_same_clues(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(shared_captions()))
    assert_same_clues(text, Random(data.draw(st.integers(0, 10_000))))


@pytest.mark.slow
def test_a_harmless_variant_of_every_caption_has_the_same_clues() -> None:
    random = Random(0)
    for text in shared_captions():
        assert_same_clues(text, random)


PIECES = [
    *("n't", "'t", "n", "ca", "wo", "does", "''", "``", "'", "-LRB-", "-rrb-", "--", "'s", "’"),
    *("not", "no", "angry", "man", "low", "voice", "very", "or", ",", ".", "\n", " ", "\u200b"),
    *("不", "没有", "悲伤", "的", "声音", "女", "，", "、", "。", "ａ", "Ⅷ", "\u0301", "…", "😀"),
    *("\x00", "\x1b[31m", "\ud800"),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=20),
    st.sampled_from(["", " "]),
    st.sampled_from([None, *LANGUAGES]),
)
def test_no_text_is_an_error(pieces: list[str], joint: str, language: str | None) -> None:
    for clue in find_clues(joint.join(pieces), language):
        assert clue.word


@pytest.mark.parametrize(
    ("text", "denied", "held"),
    [
        # Set apart as the Penn Treebank does, or by other tokenisers, or without the apostrophe.
        ("She does n't sound happy .", "happy", "female"),
        ("She is n't angry .", "angry", "female"),
        ("He ca n't be sad .", "sad", "male"),
        ("He wo n't shout .", "loud", "male"),
        ("DOES N'T SOUND HAPPY", "happy", ""),
        ("does n’t sound happy", "happy", ""),
        ("doesn ' t sound happy", "happy", ""),
        ("doesnt sound happy", "happy", ""),
        ("n't sad", "sad", ""),
        ("isn´t happy", "happy", ""),
        ("isn`t happy", "happy", ""),
        ("ｉｓｎ＇ｔ　ｈａｐｐｙ", "happy", ""),
        ("she ca n't hide her anger", "", "angry female"),
        ("not happy -LRB- sad -RRB-", "happy", "sad"),
        ("not happy -- sad", "happy", "sad"),
        ("does not sound `` happy ''", "happy", ""),
        ("does not sound “happy”", "happy", ""),
        # Who is described is not denied with the description.
        ("The calm, not angry man", "angry", "neutral male"),
        ("A not angry woman speaks", "angry", "female"),
        ("a sad but not angry young woman", "angry", "sad female"),
        ("hardly angry man", "angry", "male"),
        ("not in his usual loud voice", "loud", "male"),
        ("not angry he speaks softly", "angry", "male quiet"),
        ("she is not sad and the woman is angry", "sad", "female angry"),
        ("nor is he angry", "angry", "male"),
        ("not a man", "male", ""),
        ("neither a man nor a woman", "male female", ""),
        # Ends with the clause or the list.
        ("not only sad but angry", "", "sad angry"),
        ("not just sad, but also angry", "", "sad angry"),
        ("neither happy nor sad, he shouts", "happy sad", "male loud"),
        ("without anger, she whispers", "angry", "female quiet"),
        ("without anger, sadness or fear", "angry sad fearful", ""),
        ("The man is not sad, but he is angry", "sad", "male angry"),
        ("not happy because she is sad", "happy", "sad female"),
        ("不是生气，而是伤心", "angry", "sad"),
        ("不 是 生 气 ， 而 是 伤 心", "angry", "sad"),
        ("并不愤怒，反而平静", "angry", "neutral"),
        ("一个并不愤怒的男人", "angry", "male"),
        ("不生气的女人说话很慢", "angry", "female slow"),
        ("毫无悲伤的平静女声", "sad", "neutral female"),
        ("不是悲伤的哭泣，而是笑", "sad choked", "laughing"),
        ("不带愤怒的平静语气", "angry", "neutral"),
        ("既不悲伤也不愤怒", "sad angry", ""),
        ("不仅悲伤而且愤怒", "", "sad angry"),
        ("不是男声而是女声", "male", "female"),
    ],
)
def test_where_a_negation_ends(text: str, denied: str, held: str) -> None:
    found = find_clues(text)
    assert {c.meaning for c in found if c.negated} == set(denied.split())
    assert {c.meaning for c in found if not c.negated} == set(held.split())


UNITS = (
    "angry ", "low ", "voice ", "pitch, ", "not ", "fierce ", "angry or ", "voice speaking ", "x",
    " ", "'", "悲伤", "不", "声音", "嗯", "的", "á" * 3,
)  # fmt: skip


def lines_run(text: str) -> int:
    """How many lines of Python are run to find the clues of a text: its time, without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_clues(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("unit", UNITS)
def test_the_time_is_linear_in_the_text(unit: str) -> None:
    find_clues(unit)  # the tables are read
    short, long = (lines_run(unit * (length // len(unit))) for length in (1200, 3600))
    assert long < 4 * short + 200


def test_what_is_no_caption_is_read_in_part() -> None:
    text = "x " * (LONGEST_TEXT // 2)
    assert [clue.meaning for clue in find_clues(f"sad {text} angry")] == ["sad"]
    assert lines_run(text * 3) < 1.1 * lines_run(text) + 100


def test_chunks_are_sought_in_a_hundred_words_at_a_time() -> None:
    kinds = kinds_of(known_english_words(["low", "voice", "x"] * 500))
    assert max(len(clause.group()) for clause in CLAUSE.finditer(kinds)) == 100
