"""SpeechTokenizer against the authors' own module on random weights, and its checkpoints."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from aligncap.errors import DataError
from aligncap.tokenizers.speechtokenizer import WINDOW_FRAMES
from aligncap.tokenizers.speechtokenizer import open_speechtokenizer as opened
from aligncap.values import RATE_HZ, Waveform
from support.speech_tokenizers import CONFIG, noise, official_model, save_checkpoint


def official_codes(model: Any, waveform: Waveform) -> NDArray[np.int64]:
    with torch.no_grad():
        codes: torch.Tensor = model.encode(torch.from_numpy(waveform.samples)[None, None])
    return codes[:, 0].numpy()


def assert_official_frames(model: Any, frames: torch.Tensor, waveform: Waveform) -> None:
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy(waveform.samples)[None, None])[0].T
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)


# Long; shorter than a frame; around a frame; not a whole number of frames; a single sample.
LENGTHS = [8 * RATE_HZ, 3 * RATE_HZ + 7, 641, 320, 319, 40, 5, 2, 1]


@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_and_codes_are_the_official_ones(official, checkpoint, samples):
    waveform = noise(samples)
    tokenizer = opened(checkpoint, codebooks=8)
    assert_official_frames(official, tokenizer.features(waveform), waveform)
    expected = official_codes(official, waveform)
    np.testing.assert_array_equal(tokenizer.encode(waveform).codes, expected)
    if samples == LENGTHS[0]:
        assert all(len(np.unique(codebook)) > 10 for codebook in expected)


def test_the_snake_variant_matches_too(official_module, tmp_path):
    config = CONFIG | {"activation": "Snake", "n_residual_layers": 2}
    model = official_model(official_module, config)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    tokenizer = opened(save_checkpoint(model.state_dict(), tmp_path / "snake", config))
    assert_official_frames(model, tokenizer.features(noise(RATE_HZ)), noise(RATE_HZ))


def test_long_audio_goes_in_windows_and_comes_out_as_from_one_pass(official, checkpoint):
    # Two windows and one frame of a third, which ends within its first sample.
    waveform = noise(2 * WINDOW_FRAMES * 320 + 1)
    tokenizer = opened(checkpoint)
    frames = tokenizer.features(waveform)
    assert len(frames) == 2 * WINDOW_FRAMES + 1
    assert_official_frames(official, frames, waveform)
    # Other blocks round otherwise: a code may differ where two entries are equally near, no more.
    ours, theirs = tokenizer.encode(waveform).codes[0], official_codes(official, waveform)[0]
    book = tokenizer.quantizer.codebooks[0].double()
    near, nearest = (
        (frames.double() - book[torch.from_numpy(codes)]).square().sum(1)
        for codes in (ours, theirs)
    )
    assert (ours == theirs).mean() > 0.9
    torch.testing.assert_close(near, nearest, rtol=0, atol=1e-5)


def test_away_from_the_edges_every_frame_of_silence_is_the_same(checkpoint):
    middle = opened(checkpoint).features(Waveform(np.zeros(RATE_HZ, np.float32)))[20:30]
    assert float((middle - middle[0]).abs().max()) < 1e-4


def test_the_fingerprint_depends_on_weights_not_on_the_file(state, checkpoint, tmp_path):
    here = opened(checkpoint).fingerprint
    assert here == opened(checkpoint / "SpeechTokenizer.pt").fingerprint
    shutil.copytree(checkpoint, tmp_path / "download" / "speechtokenizer_hubert_avg")
    assert opened(tmp_path / "download").fingerprint == here
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(state, tmp_path / "SpeechTokenizer.safetensors")
    assert opened(tmp_path).fingerprint == here
    bias = "encoder.model.0.conv.conv.bias"
    save_file(state | {bias: state[bias] + 1e-3}, tmp_path / "SpeechTokenizer.safetensors")
    assert opened(tmp_path).fingerprint != here


def as_parametrized(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As torch's newer weight norm would name them."""
    new = {"weight_g": "original0", "weight_v": "original1"}
    parts = {name: name.rpartition(".") for name in state}
    return {
        f"{module}.parametrizations.weight.{new[last]}" if last in new else name: state[name]
        for name, (module, _, last) in parts.items()
    }


def as_folded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As they would be with weight norm removed."""
    plain = {name: tensor for name, tensor in state.items() if "weight_g" not in name}
    for name in [name for name in plain if name.endswith("weight_v")]:
        length = state[name.replace("weight_v", "weight_g")]
        weight = torch._weight_norm(plain.pop(name), length, 0)
        plain[name.replace("weight_v", "weight")] = weight
    return plain


@pytest.mark.parametrize("renamed", [dict, as_parametrized, as_folded])
def test_other_ways_to_keep_the_weights_give_the_same_codes(state, checkpoint, tmp_path, renamed):
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(renamed(state), tmp_path / "model.safetensors")
    ours, theirs = (opened(folder).encode(noise(RATE_HZ)) for folder in (tmp_path, checkpoint))
    np.testing.assert_array_equal(ours.codes, theirs.codes)


def lose_codebook(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    del state["quantizer.vq.layers.0._codebook.embed"]
    torch.save(state, weights)


def config_of(**changes: object) -> Any:
    kept = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    return lambda path: path.write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("file", "spoil", "named"),
    [
        ("SpeechTokenizer.pt", lambda path: path.write_bytes(path.read_bytes()[:5000]), r"r\.pt"),
        ("SpeechTokenizer.pt", lambda path: path.write_text("version https://git-lfs"), r"r\.pt"),
        ("SpeechTokenizer.pt", lambda path: torch.save({"model": Path()}, path), r"r\.pt"),
        ("SpeechTokenizer.pt", lose_codebook, "embed"),
        ("config.json", config_of(strides=None), "strides"),
        ("config.json", config_of(n_filters=16), r"g\.json"),
        ("config.json", lambda path: path.write_text("<html>not found</html>"), r"config\.json"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(checkpoint, tmp_path, file, spoil, named):
    folder = shutil.copytree(checkpoint, tmp_path / "spoilt")
    spoil(folder / file)
    with pytest.raises(DataError, match=named) as caught:
        opened(folder)
    assert "download" in str(caught.value) or "take the config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
