"""Captions as other tools write them.

The clues do not depend on spacing, punctuation, case, width or what is invisible; a negation ends
where its clause or its list of adjectives does; the time is linear in the text.
"""

import io
import json
import os
import re
import subprocess
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

from aligncap.alignment.examples import read_rows, write_rows
from aligncap.cli.console import Console, for_terminal, write_any_text
from aligncap.cli.main import main
from aligncap.cli.outputs import format_record
from aligncap.clues import detect_language, find_clues
from aligncap.clues.grammar import CLAUSE, kinds_of, known_english_words
from aligncap.clues.vocabulary import LONGEST_TEXT
from aligncap.data.layouts import read_lines
from aligncap.errors import DataError, RecipeError
from aligncap.recipes import read_toml
from aligncap.values import LANGUAGES
from cli.conftest import Aligncap
from support.rows import SOURCE, tiny_rows

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
    longer = text.replace("x", "y") * 3  # another text: what was read once is not read again
    assert lines_run(longer) < 1.1 * lines_run(text) + 100


def test_chunks_are_sought_in_a_hundred_words_at_a_time() -> None:
    kinds = kinds_of(known_english_words(["low", "voice", "x"] * 500))
    assert max(len(clause.group()) for clause in CLAUSE.finditer(kinds)) == 100


SAD = "一名女性悲伤地低声说话，语速很慢。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("The woman’s voice is soft.", "utf-8"),
        ("The woman’s voice is soft.", "utf-8-sig"),
        ("The woman’s voice is soft.", "utf-16"),
        (SAD, "utf-8"),
        (SAD, "utf-8-sig"),
        (SAD, "utf-16"),
        (SAD, "gb18030"),
        ("悲伤的女声", "gb18030"),
        ("愤怒", "gb18030"),
        ("囧，她很生气", "gb18030"),
        (f"{SAD}\n{SAD}", "gb18030"),
        (f"A sad woman, {SAD}", "gb18030"),
    ],
)
def test_captions_are_read_as_they_were_written(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(text.encode(encoding))
    assert [line for _, line in read_lines(path)] == text.splitlines()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("The woman’s voice is soft.", "cp1252"),
        ("“Angry” voice — loud", "cp1252"),
        ("naïve café", "cp1252"),
        ("Élan; ça m’énerve", "cp1252"),
        ("Müde Stimme, ängstlich", "latin-1"),
        ("¿Qué? ¡Sí! señor", "latin-1"),
        ("Голос женщины грустный и тихий", "cp1251"),
        ("Голос женщины грустный и тихий", "koi8-r"),
        ("여자가 슬픈 목소리로 천천히 말하고 있다. 낮은 음조와 작은 음량", "euc-kr"),
        ("女性が悲しい声でゆっくり話している", "shift-jis"),
        ("女性が悲しい声でゆっくり話している", "euc-jp"),
        ("一名女性悲傷地低聲慢慢說話", "big5"),
        ("A sad woman.", "utf-16-le"),
        ("A sad woman.", "utf-16-be"),
        ("A sad woman.", "utf-32"),
    ],
)
def test_captions_in_another_encoding_are_refused(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match="save it as UTF-8"):
        list(read_lines(path))


def test_a_mark_is_passed_over_in_recipes_and_rows(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_bytes(b"\xef\xbb\xbfkind = 'kd'\r\n")
    assert read_toml(recipe) == {"kind": "kd"}
    recipe.write_bytes("kind = 'café'".encode("cp1252"))
    with pytest.raises(RecipeError, match="is not UTF-8; save it as UTF-8"):
        read_toml(recipe)
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, SOURCE, tiny_rows(2))
    told = rows.read_bytes()
    rows.write_bytes(b"\xef\xbb\xbf" + told.replace(b"\n", b"\r\n"))
    assert len(list(read_rows(rows))) == 2
    rows.write_bytes(told + b'{"id": "\xe9"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:4: not UTF-8; save the rows as UTF-8"):
        list(read_rows(rows))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_paths_is_read_from_standard_input(
    aligncap: Aligncap, example_clips: list[Path], encoding: str, end: str
) -> None:
    paths = "".join(f"{clip}{end}" for clip in example_clips[:2])
    ran = aligncap("caption", "-", "--format", "jsonl", stdin=paths.encode(encoding))
    assert ran.code == 0
    found = [json.loads(line)["file"] for line in ran.out.splitlines()]
    assert found == [str(clip) for clip in example_clips[:2]]


def test_a_manifest_in_another_encoding_is_an_error_in_its_place(
    aligncap: Aligncap, example_clips: list[Path], tmp_path: Path
) -> None:
    manifest = tmp_path / "m.jsonl"
    row = json.dumps({"file": str(example_clips[0])}).encode()
    manifest.write_bytes(b"\xef\xbb\xbf" + row + b'\n{"file": "caf\xe9.wav"}\n' + row + b"\n")
    ran = aligncap("caption", manifest, "--format", "jsonl")
    assert "m.jsonl:2: not UTF-8; save the manifest as UTF-8" in ran.out
    assert ran.code == 1


def test_captions_on_standard_input_are_utf_8(aligncap: Aligncap) -> None:
    ran = aligncap("clues", "-", "--format", "jsonl", stdin=b"\xef\xbb\xbfsad\r\n\n" + SAD.encode())
    assert [json.loads(line)["text"] for line in ran.out.splitlines()] == ["sad", SAD]
    aligncap("clues", "-", stdin=b"caf\xe9").refused("stdin:1: not UTF-8; save the text as UTF-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "gbk", "utf-8"])
@pytest.mark.parametrize("text", [SAD, "✓ – é 😀", "\udcff"])
def test_a_console_that_lacks_a_letter_does_not_end_the_batch(encoding: str, text: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write_any_text(out)
    console = Console(stdout=out, stderr=out)
    assert main(["clues", text, "--format", "jsonl"], console=console) == 0
    assert main(["clues", text], console=console) == 0
    written = out.buffer.getvalue().decode(encoding)
    assert json.loads(written.splitlines()[0])["text"] == text


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LANG": "C"},
    ],
)
def test_the_command_writes_to_any_console(environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "aligncap", "clues", "✓ sad", "--format", "jsonl"],
        capture_output=True,
        env={**os.environ, **environment},
        check=True,
    )
    assert json.loads(ran.stdout)["emotion"] == "sad"


CONTROLS = "\x1b]0;title\x07 \x1b[31mred\x9b2J\rover\x7f\u202edlrow\u2066"


def test_what_steers_a_terminal_is_escaped(aligncap: Aligncap) -> None:
    assert for_terminal("a\tb\nc 悲 é") == "a\tb\nc 悲 é"
    record = {"file": f"{CONTROLS}.wav", "duration_s": 1.0, "caption": CONTROLS, "clues": []}
    record |= {"candidates": [CONTROLS], "certainty": None, "unfamiliar": False}
    shown = [
        for_terminal(CONTROLS),
        format_record(record, "text", evidence=False, colour=False),
        aligncap("clues", CONTROLS).out,
        aligncap("clues", CONTROLS, "--format", "jsonl").out,
        aligncap("measure", f"{CONTROLS}.wav").err,
        aligncap("evaluate", "--hypotheses", CONTROLS, "--references", CONTROLS).err,
    ]
    for text in shown:
        assert "\\u001b" in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]", text)
    assert json.loads(shown[3])["text"] == CONTROLS
