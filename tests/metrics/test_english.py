"""English tokens against COCO's own tokenizer, which is a Java program."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.metrics.tokenise import CocoEnglish
from metrics.pairs import synthetic_pairs

SENTENCES = [
    "The man's voice is high-pitched, slow; he can't, won't, didn't and cannot!",
    "\"Hello,\" she said. 'Hello', he said. It’s “quoted”, we’re ‘single’ and I’m not.",
    "Mr. Smith, Dr. who, Ph.D. and the U.S. at 5 p.m. etc. vs. e.g. this (i.e. that)",
    "and/or [brackets] {braces} <laugh> a & b, AT&T, R&B &amp; more",
    "$5, 5%, 1,000.50 at 10:30: 1/2 or ½ of the 20-year-old, 1990s, '90s, 5th #tag @user £5 €5",
    "wait... well… a -- b — c – d - word- -word, 120Hz, 60-70dB, -3 dB, 3.5",
    "gonna wanna gotta lemme gimme 'tis 'twas o'clock y'all ma'am 'em O'Brien ol' somethin'",
    "what?! really!! no??? she/he, he/she's dogs' James's I'd've shouldn't've",
    "café naïve 日本語 你好，世界。 русский 😀 a😀b ™ © → × ±",
    "a_b a+b a=b *star* ** ~ ^ | \\ `tick` ``x'' ;; :: foo@bar.com www.example.com a.b.c C++",
    "half-hearted re-enter pre- and post-, mid-1990s 19th-century U.S.-based jack-in-the-box",
    "",
    "...",
]


@pytest.fixture(scope="module")
def ptb_folder() -> Path:
    coco = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="the oracle")
    if shutil.which("java") is None:
        pytest.skip("COCO's tokenizer needs java")
    return Path(coco.__file__).parent


def theirs(folder: Path, texts: list[str]) -> list[list[str]]:
    """The tokens of COCO's tokenizer, one caption a line."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    command = ["java", "-Dfile.encoding=UTF-8", "-cp", STANFORD_CORENLP_3_4_1_JAR]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    done = subprocess.run(
        command, cwd=folder, input="\n".join(texts).encode(), capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\n")
    return [[t for t in line.split() if t not in PUNCTUATIONS] for line in lines[: len(texts)]]


def test_cuts_as_coco_does(ptb_folder: Path) -> None:
    synthetic = [
        text for clip in synthetic_pairs("en", 300) for text in (clip.hypothesis, *clip.references)
    ]
    texts = [*SENTENCES, *synthetic]
    tokenise = CocoEnglish()
    assert [tokenise(text) for text in texts] == theirs(ptb_folder, texts)


def test_cuts_real_captions_as_coco_does(ptb_folder: Path, speech_data: Path) -> None:
    captions = speech_data.parent / "captions"
    rows = (captions / "librittsp_style_prompts.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(row)["caption"] for row in rows]
    rows = (captions / "vccm_textrol_style_prompts.jsonl").read_text("utf-8").splitlines()
    texts += [json.loads(row)["style_prompt"] for row in rows]
    tokenise = CocoEnglish()
    assert [tokenise(text) for text in texts] == theirs(ptb_folder, texts)


def test_cuts_read_speech_as_coco_does_but_for_one_in_a_thousand(
    ptb_folder: Path, speech_data: Path
) -> None:
    file = speech_data.parent / "captions" / "vccm_textrol_style_prompts.jsonl"
    texts = sorted({json.loads(row)["txt"] for row in file.read_text("utf-8").splitlines()})
    tokenise = CocoEnglish()
    different = [
        text
        for text, tokens in zip(texts, theirs(ptb_folder, texts), strict=True)
        if tokenise(text) != tokens
    ]
    assert len(different) <= len(texts) / 500, different


@settings(deadline=None)
@given(st.text())
def test_any_text_is_cut_into_tokens_without_white_space(text: str) -> None:
    tokens = CocoEnglish()(text)
    assert all(token and not any(c.isspace() for c in token) for token in tokens)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "slow,", "calm", "man's", "don't", "voice."]), max_size=8))
def test_white_space_does_not_matter(words: list[str]) -> None:
    tokenise = CocoEnglish()
    assert tokenise(" ".join(words)) == tokenise("\n \t".join(["", *words, ""]))
