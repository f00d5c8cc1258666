"""Whisper's frozen lower layers as a speech encoder, and codes of their vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from transformers import WhisperConfig, WhisperModel

from aligncap.errors import AudioError, DataError, MissingModelError
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.builtin import whisper_log_mel
from aligncap.tokenizers.frozen import (
    Codebooks,
    learn_codebooks,
    open_encoder,
    residual_codes,
    save_encoder,
)
from aligncap.values import Waveform

RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Whisper of random weights in transformers' format."""
    config = WhisperConfig(
        d_model=64, encoder_layers=3, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=256, decoder_ffn_dim=64, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(2)
    model = WhisperModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    return folder


def speech(seconds: float, silence: float = 0.0) -> Waveform:
    samples = 0.1 * RANDOM.standard_normal(round(16000 * seconds)).astype(np.float32)
    return Waveform(np.pad(samples, round(16000 * silence)), source="made")


def test_vectors_are_what_whispers_next_layer_reads(whisper: Path) -> None:
    waveform = speech(1.6)
    tokenizer = open_tokenizer("frozen-features", whisper, layers=2)
    tokens = tokenizer.encode(waveform)
    assert tokens.features is not None
    encoder = WhisperModel.from_pretrained(whisper).get_encoder().eval()
    mel = whisper_log_mel(waveform.samples)
    seen: list[torch.Tensor] = []
    third = encoder.layers[2].self_attn_layer_norm
    third.register_forward_hook(lambda *given: seen.append(given[2]))
    states = torch.nn.functional.gelu(encoder.conv1(torch.from_numpy(mel[None]).mT))
    states = (
        torch.nn.functional.gelu(encoder.conv2(states)).mT + encoder.embed_positions.weight[:80]
    )
    with torch.no_grad():
        for layer in encoder.layers[:3]:
            out = layer(states, attention_mask=None)
            states = out[0] if isinstance(out, tuple) else out
    expected = seen[0][0].reshape(20, 4, -1).mean(1).numpy()
    np.testing.assert_allclose(tokens.features.read(), expected, atol=5e-3)
    assert tokens.codes.shape == (1, 20)


def test_silence_around_the_speech_is_left_out(whisper: Path) -> None:
    encoder = open_encoder(whisper, layers=1)
    assert len(encoder.vectors(speech(0.8, silence=0.8))) in (10, 11)
    assert len(encoder.vectors(Waveform(np.zeros(4000, np.float32), source="still"))) == 3
    assert len(encoder.vectors(speech(0.01))) >= 1
    with pytest.raises(AudioError, match="too long"):
        encoder.vectors(speech(31))


def test_kmeans_is_as_good_as_that_of_scikit_learn() -> None:
    vectors = RANDOM.standard_normal((600, 4)).astype(np.float32)
    (book,) = learn_codebooks(vectors, codebooks=1, size=8, seed=0)
    ours = np.square(vectors - book[residual_codes(vectors, book[None])[0]]).sum()
    theirs = KMeans(8, n_init=10, random_state=0).fit(vectors).inertia_
    assert ours < 1.1 * theirs
    with pytest.raises(DataError, match="too few"):
        learn_codebooks(vectors[:5], codebooks=1, size=8, seed=0)


def test_each_codebook_is_of_what_the_one_before_left() -> None:
    entries = np.array([[[0, 0], [10, 10]], [[0, 0], [1, -1]]], np.float32)
    vectors = np.array([[10.9, 9.2], [0.2, 0.1], [9.8, 10.3]], np.float32)
    np.testing.assert_array_equal(residual_codes(vectors, entries), [[1, 0, 1], [1, 0, 0]])


def test_a_folder_gives_the_same_codes_and_says_what_is_missing(
    whisper: Path, tmp_path: Path
) -> None:
    encoder, waveform = open_encoder(whisper, layers=2), speech(2)
    vectors = encoder.vectors(waveform)
    learnt = Codebooks.of(vectors, codebooks=2, size=6, seed=1)
    save_encoder(tmp_path / "encoder", encoder, learnt)
    opened = open_tokenizer("frozen-codes", tmp_path / "encoder")
    np.testing.assert_array_equal(
        opened.encode(waveform).codes,
        residual_codes((vectors - vectors.mean(0)) / vectors.std(0), learnt.entries),
    )
    assert 0 < learnt.kept(vectors) < 1
    again = open_tokenizer("frozen-features", tmp_path / "encoder")
    assert again.fingerprint == encoder.fingerprint != opened.fingerprint
    with pytest.raises(MissingModelError, match="codebook"):
        open_tokenizer("frozen-codes", whisper)
    file = tmp_path / "encoder" / "codebooks.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match="codebooks"):
        open_tokenizer("frozen-codes", tmp_path / "encoder")
