"""Chinese tokenisation, and the table of tokenisers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.errors import UnknownNameError
from aligncap.metrics.tokenise import TOKENISERS, open_tokeniser


def test_chinese_is_cut_into_characters_with_its_punctuation() -> None:
    tokens = open_tokeniser(None, "zh")("他很难过，\n\u3000语速 fast 2。")
    assert tokens == list("他很难过，语速fast2。")


def test_chinese_words_are_jiebas() -> None:
    jieba = pytest.importorskip("jieba")
    text = "男人用低沉的声音缓慢地说话，情绪悲伤。"
    tokens = open_tokeniser("zh-word", "zh")(f" {text} ")
    assert tokens == jieba.lcut(text)
    assert "声音" in tokens


def test_english_is_cut_as_coco_does_by_default() -> None:
    assert open_tokeniser(None, "en").name == "coco-en"


def test_an_unknown_tokenisation_names_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match="zh-char"):
        open_tokeniser("zh-chars", "zh")


@pytest.mark.parametrize("name", TOKENISERS)
@settings(deadline=None)
@given(text=st.text(st.characters(), max_size=40))
def test_any_text_survives(name: str, text: str) -> None:
    if name == "zh-word":
        pytest.importorskip("jieba")
    assert all(isinstance(token, str) and token for token in open_tokeniser(name, "zh")(text))


def test_lone_surrogates_survive() -> None:
    for name in ("coco-en", "zh-char"):
        assert "".join(open_tokeniser(name, "zh")("a\ud800b \udfff")).startswith("a")
