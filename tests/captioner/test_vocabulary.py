"""One vocabulary over tokenizers of several kinds: ids, round trips, stop ids."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from aligncap.captioner.vocabulary import (
    SMALLEST,
    STOP_CHARACTERS,
    Vocabulary,
    VocabularyShape,
    train_text_tokenizer,
)
from aligncap.errors import DataError, RecipeError
from aligncap.values import SpeechTokens
from support.captioner import TEXTS, tiny_vocabulary


def byte_characters() -> dict[str, int]:
    """The printable stand-ins of byte-level BPE, from their published definition."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in kept]
    stand_ins = {chr(byte): byte for byte in kept}
    return stand_ins | {chr(256 + number): byte for number, byte in enumerate(moved)}


def gpt2_like() -> Tokenizer:
    """Byte-level with one special token for everything."""
    letters = sorted(byte_characters())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def llama_like() -> Tokenizer:
    """Sentencepiece BPE with bytes to fall back on, and a post-processor that adds <s>."""
    specials = ["<unk>", "<s>", "</s>"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdehilnostuy.,。!"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    bpe = models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(bpe)
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


VOCABULARY = tiny_vocabulary()


@given(st.text())
@example("</s>")
@example("<pad> a")
@example("say <speech> </speech> <s>")
def test_any_text_comes_back_even_the_name_of_a_special_token(text):
    ids = VOCABULARY.encode_text(text)
    assert VOCABULARY.decode(ids) == text
    assert all(0 <= number < VOCABULARY.text_vocab_size for number in ids)
    assert not {VOCABULARY.bos_id, VOCABULARY.eos_id, VOCABULARY.pad_id} & set(ids)


def test_special_and_speech_ids_are_silent():
    speech = VOCABULARY.speech_ids(SpeechTokens(np.array([[0, 15]])))
    silent = [VOCABULARY.bos_id, VOCABULARY.pad_id, VOCABULARY.speech_open_id, *speech]
    ids = [*silent, *VOCABULARY.encode_text("calm"), VOCABULARY.eos_id]
    assert VOCABULARY.decode(ids) == "calm"


def test_speech_ids_are_frame_by_frame():
    vocabulary = tiny_vocabulary(codebooks=2)
    base = vocabulary.text_vocab_size + 2
    tokens = SpeechTokens(np.array([[1, 2, 15], [3, 0, 15]]))
    expected = [base + 1, base + 16 + 3, base + 2, base + 16, base + 15, base + 31]
    assert vocabulary.speech_ids(tokens) == expected
    assert vocabulary.size == base + 32


@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_speech_comes_back(codebooks, frames, seed):
    vocabulary = tiny_vocabulary(codebooks)
    codes = np.random.default_rng(seed).integers(0, 16, (codebooks, frames))
    ids = np.array(vocabulary.speech_ids(SpeechTokens(codes)), dtype=int) - vocabulary.speech_base
    assert all((ids >= 0) & (ids < 16 * codebooks))
    assert np.array_equal(ids.reshape(frames, codebooks).T % 16, codes)


@pytest.mark.parametrize(
    ("codes", "said"),
    [(np.zeros((2, 3), int), "2 codebooks"), ([[0, 16]], "up to 16"), ([[-1]], "below 0")],
)
def test_speech_of_another_tokenizer_is_refused(codes, said):
    with pytest.raises(DataError, match=said):
        VOCABULARY.speech_ids(SpeechTokens(np.array(codes)))


def test_stop_ids_are_the_tokens_whose_bytes_hold_a_stop_character():
    stand_ins = byte_characters()
    expected = {VOCABULARY.eos_id}
    for number, name in enumerate(VOCABULARY.token_names()[: VOCABULARY.text_vocab_size]):
        known = all(character in stand_ins for character in name)
        raw = bytes(stand_ins[c] for c in name) if known else name.encode()
        if set(raw.decode(errors="ignore")) & set(STOP_CHARACTERS):
            expected.add(number)
    assert VOCABULARY.stop_ids() == tuple(sorted(expected))


@pytest.mark.parametrize(("character", "stops"), [*((c, 1) for c in ".。!?！？"), (",", 0)])
def test_every_stop_character_stops(character, stops):
    ids = VOCABULARY.encode_text(f"声音低沉{character} She")
    assert sum(number in VOCABULARY.stop_ids() for number in ids) == stops


def test_one_token_in_three_roles():
    vocabulary = Vocabulary.of(gpt2_like(), codebook_size=8)
    assert vocabulary.bos_id == vocabulary.eos_id == vocabulary.pad_id
    size = vocabulary.text_vocab_size
    assert size == vocabulary.shape.base_size
    assert vocabulary.new_ids == range(size, size + 2 + 8)


def test_a_tokenizer_with_bytes_to_fall_back_on():
    vocabulary = Vocabulary.of(llama_like(), codebook_size=8)
    assert (vocabulary.bos_id, vocabulary.eos_id) == (1, 2)
    ids = vocabulary.encode_text("she is sad。</s>")
    assert not {1, 2} & set(ids)  # the post-processor's <s> is not wanted within a prompt
    assert vocabulary.decode(ids) == "she is sad。</s>"
    names = vocabulary.token_names()
    assert {names[number] for number in vocabulary.stop_ids()} >= {"</s>", ".", "。", "!", "<0x2E>"}


def test_roles_that_are_missing_are_added_as_new_text():
    tokenizer = Tokenizer(models.WordLevel({"calm": 0, "sad": 1}, unk_token="sad"))
    vocabulary = Vocabulary.of(tokenizer, codebook_size=3)
    assert vocabulary.shape.base_size == 2
    assert {vocabulary.bos_id, vocabulary.eos_id, vocabulary.pad_id} == {2, 3, 4}
    assert vocabulary.text_vocab_size == 5
    assert vocabulary.new_ids == range(2, 5 + 2 + 3)
    assert tokenizer.get_vocab_size() == 2  # the one given is as it was
    assert len(set(vocabulary.token_names())) == vocabulary.size == 10


def test_a_tokenizer_with_holes_keeps_its_ids():
    tokenizer = Tokenizer(models.WordLevel({"calm": 0, "</s>": 4}, unk_token="calm"))
    with pytest.raises(DataError, match="leaves ids unused"):
        Vocabulary.of(tokenizer, codebook_size=3, pad="<pad>")
    vocabulary = Vocabulary.of(tokenizer, codebook_size=3)
    assert vocabulary.text_vocab_size == 5
    assert vocabulary.eos_id == vocabulary.pad_id == 4
    assert len(set(vocabulary.token_names())) == vocabulary.size == 10


def test_a_saved_vocabulary_is_the_same_and_another_models_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    for vocabulary in (Vocabulary.of(llama_like(), codebook_size=4), VOCABULARY):
        vocabulary.save(path)
        again = Vocabulary.load(path, vocabulary.shape)
        assert again.token_names() == vocabulary.token_names()
        assert again.encode_text("sad。</s>") == vocabulary.encode_text("sad。</s>")
        assert again.new_ids == vocabulary.new_ids
    with pytest.raises(DataError, match=r"holds \d+ ids"):
        Vocabulary.load(path, VocabularyShape(1, 4, "<s>", "</s>", "<pad>", 9999))


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"{", b"[]", b'{"model": 3}'])
def test_a_damaged_tokenizer_file_is_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json.*save the model again"):
        Vocabulary.load(path, VocabularyShape(1, 4, "<s>", "</s>", "<pad>", 0))


def test_training_keeps_to_its_size_and_gives_the_same_again():
    first, second = (train_text_tokenizer(TEXTS * 4, 300) for _ in range(2))
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() <= 300
    with pytest.raises(RecipeError, match=str(SMALLEST)):
        train_text_tokenizer(TEXTS, SMALLEST - 1)
