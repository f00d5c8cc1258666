"""English tokens against COCO's own tokenizer, which is a Java program, and Chinese tokens."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import UnknownNameError
from aligncap.metrics.tokenise import TOKENISERS, CocoEnglish, open_tokeniser
from metrics.small import synthetic_pairs

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
    clips = synthetic_pairs("en", 300)
    texts = [*SENTENCES, *(text for clip in clips for text in (clip.hypothesis, *clip.references))]
    assert list(map(CocoEnglish(), texts)) == theirs(ptb_folder, texts)


def test_cuts_real_captions_and_all_but_one_in_500_of_read_speech_as_coco_does(
    ptb_folder: Path, speech_data: Path
) -> None:
    def column(file: str, key: str) -> list[str]:
        lines = (speech_data.parent / "captions" / file).read_text("utf-8").splitlines()
        return [json.loads(line)[key] for line in lines]

    texts = column("librittsp_style_prompts.jsonl", "caption")
    texts += column("vccm_textrol_style_prompts.jsonl", "style_prompt")
    assert list(map(CocoEnglish(), texts)) == theirs(ptb_folder, texts)
    texts = sorted(set(column("vccm_textrol_style_prompts.jsonl", "txt")))
    pairs = zip(map(CocoEnglish(), texts), theirs(ptb_folder, texts), strict=True)
    assert sum(ours != tokens for ours, tokens in pairs) <= len(texts) / 500


@given(st.lists(st.sampled_from(["a", "slow,", "calm", "man's", "don't", "voice."]), max_size=8))
def test_white_space_does_not_matter(words: list[str]) -> None:
    tokenise = CocoEnglish()
    assert tokenise(" ".join(words)) == tokenise("\n \t".join(["", *words, ""]))


def test_chinese_is_cut_into_characters_with_its_punctuation_or_jiebas_words() -> None:
    tokens = open_tokeniser(None, "zh")("他很难过，\n\u3000语速 fast 2。")
    assert tokens == list("他很难过，语速fast2。")
    jieba = pytest.importorskip("jieba")
    text = "男人用低沉的声音缓慢地说话，情绪悲伤。"
    tokens = open_tokeniser("zh-word", "zh")(f" {text} ")
    assert tokens == jieba.lcut(text)
    assert "声音" in tokens


def test_an_unknown_tokenisation_names_its_neighbour() -> None:
    assert open_tokeniser(None, "en").name == "coco-en"
    with pytest.raises(UnknownNameError, match="zh-char"):
        open_tokeniser("zh-chars", "zh")


@pytest.mark.parametrize("name", TOKENISERS)
@given(text=st.text(st.characters(), max_size=40) | st.just("a\ud800b \udfff"))
def test_any_text_survives(name: str, text: str) -> None:
    if name == "zh-word":
        pytest.importorskip("jieba")
    tokens = open_tokeniser(name, "zh")(text)
    assert all(tokens)
    if name != "zh-word":
        assert not any(character.isspace() for token in tokens for character in token)
