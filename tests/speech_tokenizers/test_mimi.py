"""Mimi through transformers, on a small model of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import MimiModel

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.mimi import open_mimi as opened
from aligncap.tokenizers.speechtokenizer import samples_at
from aligncap.values import RATE_HZ, Waveform
from support.speech_tokenizers import noise

FRAME = 1280
"""Samples at 16 kHz to a frame: 12.5 a second."""


def test_its_properties(mimi_folder):
    tokenizer = open_tokenizer("mimi", mimi_folder, codebooks=3)
    assert (tokenizer.name, tokenizer.frame_rate_hz) == ("mimi", 12.5)
    assert (tokenizer.codebook_size, tokenizer.codebooks) == (64, 3)


def test_whole_frames_get_the_codes_of_transformers(mimi_folder):
    soxr = pytest.importorskip("soxr")
    waveform = noise(25 * FRAME)
    samples = soxr.resample(waveform.samples, RATE_HZ, 24_000)
    model = MimiModel.from_pretrained(mimi_folder)
    with torch.no_grad():
        expected = model.encode(torch.from_numpy(samples)[None, None]).audio_codes[0].numpy()
    assert all(len(np.unique(codebook)) > 5 for codebook in expected)
    np.testing.assert_array_equal(opened(mimi_folder, codebooks=8).encode(waveform).codes, expected)


@pytest.mark.parametrize("samples", [1, 2, 100, FRAME - 1, FRAME, FRAME + 1, 3 * RATE_HZ + 7])
def test_there_is_a_frame_for_every_part_of_80_ms(mimi_folder, samples):
    codes = opened(mimi_folder, codebooks=2).encode(noise(samples)).codes
    assert codes.shape == (2, -(-samples // FRAME))
    assert codes.min() >= 0
    assert codes.max() < 64


def test_silence_and_nothing_have_codes(mimi_folder):
    tokenizer = opened(mimi_folder, codebooks=2)
    silence = tokenizer.encode(Waveform(np.zeros(3 * RATE_HZ, np.float32))).codes
    assert silence.shape == (2, 38)
    assert tokenizer.encode(Waveform(np.zeros(0, np.float32))).codes.shape == (2, 0)


def test_long_audio_goes_in_windows_and_comes_out_as_from_one_pass(mimi_folder):
    waveform = noise(600 * FRAME + 5)  # two windows and a part of a third
    tokenizer = opened(mimi_folder, codebooks=4)
    codes = tokenizer.encode(waveform).codes
    with torch.inference_mode():
        signal = torch.from_numpy(samples_at(waveform, 24_000))
        signal = torch.nn.functional.pad(signal, (0, 601 * 1920 - len(signal)))[None, None]
        expected = tokenizer.model.encode(signal, num_quantizers=4).audio_codes[0].numpy()
    assert codes.shape == (4, 601)
    # The arithmetic is the same but for rounding, and of noise a few frames nearly tie.
    assert (codes == expected).mean() > 0.99


def test_a_smaller_depth_gives_the_first_codebooks(mimi_folder):
    waveform = noise(RATE_HZ)
    deep = opened(mimi_folder, codebooks=8).encode(waveform).codes
    np.testing.assert_array_equal(opened(mimi_folder).encode(waveform).codes, deep[:1])
    np.testing.assert_array_equal(opened(mimi_folder, codebooks=3).encode(waveform).codes, deep[:3])


def test_the_fingerprint_depends_on_weights_settings_and_depth(mimi_folder, tmp_path):
    here = opened(mimi_folder).fingerprint
    assert here != opened(mimi_folder, codebooks=2).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(mimi_folder, copy)
    assert opened(copy).fingerprint == here
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "5.0.0"}))
    assert opened(copy).fingerprint == here
    (copy / "config.json").write_text(json.dumps(config | {"sliding_window": 49}))
    assert opened(copy).fingerprint != here
    (copy / "config.json").write_text(json.dumps(config))
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert opened(copy).fingerprint != here


@pytest.mark.parametrize("given", [True, False])
def test_without_a_model_the_error_says_what_to_download_and_where_to(tmp_path, given):
    with pytest.raises(MissingModelError) as caught:
        open_tokenizer("mimi", tmp_path if given else None)
    message = str(caught.value)
    assert "kyutai/mimi" in message
    assert "config.json" in message
    assert "model.safetensors" in message
    assert "\n" not in message
    assert (str(tmp_path) in message) is given


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "other model"])
def test_a_damaged_model_is_one_clear_line(mimi_folder, tmp_path, name):
    folder = tmp_path / "spoilt"
    shutil.copytree(mimi_folder, folder)
    if name == "other model":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_filters": 8}))
    else:
        (folder / name).write_bytes((mimi_folder / name).read_bytes()[:300])
    with pytest.raises(DataError, match="download it again") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"codebooks": 0}, {"codebooks": 9}, {"device": "toaster"}])
def test_options_out_of_range_are_refused(mimi_folder, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        opened(mimi_folder, **options)
