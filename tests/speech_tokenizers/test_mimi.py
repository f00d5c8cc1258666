"""Mimi through transformers, on a small model of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import MimiModel

from aligncap.audio.files import samples_at
from aligncap.errors import DataError
from aligncap.tokenizers.mimi import open_mimi as opened
from aligncap.values import RATE_HZ
from support.speech_tokenizers import noise

FRAME = 1280
"""Samples at 16 kHz to a frame: 12.5 a second."""


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
    assert 0 <= codes.min() <= codes.max() < 64


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


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_fingerprint_depends_on_weights_and_settings(mimi_folder, tmp_path):
    copy = shutil.copytree(mimi_folder, tmp_path / "copy")
    changed_config(copy, transformers_version="5.0.0")
    here = opened(mimi_folder).fingerprint
    assert opened(copy).fingerprint == here
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert opened(copy).fingerprint != here
    shutil.copy(mimi_folder / "model.safetensors", copy)
    changed_config(copy, sliding_window=49)
    assert opened(copy).fingerprint != here


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "other model"])
def test_a_damaged_model_is_one_clear_line(mimi_folder, tmp_path, name):
    folder = shutil.copytree(mimi_folder, tmp_path / "spoilt")
    if name == "other model":
        changed_config(folder, num_filters=8)
    else:
        (folder / name).write_bytes((mimi_folder / name).read_bytes()[:300])
    with pytest.raises(DataError, match="download it again") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
