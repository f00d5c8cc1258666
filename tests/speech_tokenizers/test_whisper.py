"""Whisper's lower layers against transformers and CTranslate2, and its spectrogram."""

import re

import ctranslate2
import numpy as np
import pytest
import torch
from ctranslate2.converters.transformers import WhisperLoader
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from aligncap.errors import DataError, MissingModelError
from aligncap.tokenizers.builtin import whisper_log_mel as log_mel
from aligncap.tokenizers.whisper import load_whisper, read_ctranslate2

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("count", [1600, 16000, 20011])
def test_the_spectrogram_is_that_of_transformers(count):
    samples = (0.1 * RANDOM.standard_normal(count)).astype(np.float32)
    theirs = WhisperFeatureExtractor()(
        samples, sampling_rate=16000, padding=False, return_tensors="np"
    )
    np.testing.assert_allclose(log_mel(samples), theirs["input_features"][0].T, atol=2e-4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny Whisper of random weights in transformers' format and in CTranslate2's."""
    config = WhisperConfig(
        d_model=128, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=512, decoder_ffn_dim=64, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(config)
    for parameter in model.parameters():  # norms and biases too
        torch.nn.init.normal_(parameter, std=0.05)
    theirs = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(theirs)
    return theirs, model


def test_layers_are_those_of_transformers(folders):
    folder, model = folders
    mel = torch.from_numpy(RANDOM.standard_normal((2, 3000, 80)).astype(np.float32))
    expected = model.get_encoder().eval()(mel.transpose(1, 2), output_hidden_states=True)
    with torch.no_grad():
        found = load_whisper(folder, 2)(mel, torch.ones(2, 1500, dtype=torch.bool))
    for ours, theirs in zip(found[:2], expected.hidden_states[:2], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    last = model.get_encoder().layer_norm(found[2])
    torch.testing.assert_close(last, expected.last_hidden_state, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def converted(folders, tmp_path_factory):
    """The same as CTranslate2 keeps it."""
    _, model = folders
    spec = WhisperLoader().get_model_spec(model)
    spec.register_vocabulary([f"t{n}" for n in range(60)])
    folder = tmp_path_factory.mktemp("ct2")
    spec.validate()
    spec.optimize(quantization="float16")
    spec.save(str(folder))
    return folder


def test_layers_are_those_of_ctranslate2(folders, converted):
    mel = RANDOM.standard_normal((1, 3000, 80)).astype(np.float32)
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel.transpose(0, 2, 1)))
    runtime = ctranslate2.models.Whisper(str(converted), compute_type="float32")
    expected = torch.from_numpy(np.array(runtime.encode(view)))
    layers = load_whisper(converted, 2)
    with torch.no_grad():
        found = layers(torch.from_numpy(mel), torch.ones(1, 1500, dtype=torch.bool))[-1]
    last = folders[1].get_encoder().layer_norm(found)
    cosine = torch.nn.functional.cosine_similarity(last, expected, dim=-1)
    assert cosine.min() > 0.9999


def test_what_is_no_whisper_is_refused_in_one_line(folders, converted, tmp_path):
    whole = (converted / "model.bin").read_bytes()
    file = tmp_path / "model.bin"
    for data, words in (
        (whole[:-100], "is cut short"),
        (whole[:3], "is cut short"),
        (b"version https://git-lfs", "no Whisper of CTranslate2"),
        (whole.replace(b"WhisperSpec", b"TransformSp"), "no Whisper of CTranslate2"),
    ):
        file.write_bytes(data)
        with pytest.raises(DataError, match=words):
            read_ctranslate2(file)
    with pytest.raises(DataError, match="fewer than 3 layers"):
        load_whisper(converted, 3)
    with pytest.raises(DataError, match="2 layers, not 3"):
        load_whisper(folders[0], 3)


def test_a_whisper_that_is_missing_is_fetched_to_where_it_was_looked_for(tmp_path):
    for source, command in (
        ("openai/whisper-mid.en", "`hf download openai/whisper-mid.en`"),
        (
            "models/whisper-mid",
            "`hf download openai/whisper-mid --local-dir models/whisper-mid`",
        ),
        (f"{tmp_path}/own", f"`hf download openai/whisper-tiny --local-dir {tmp_path}/own`"),
    ):
        with pytest.raises(MissingModelError, match=re.escape(command)):
            load_whisper(source, 1)
