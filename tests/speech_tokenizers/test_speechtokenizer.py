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

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.speechtokenizer import WINDOW_FRAMES
from aligncap.tokenizers.speechtokenizer import open_speechtokenizer as opened
from aligncap.values import RATE_HZ, Waveform
from support.speech_tokenizers import CONFIG, noise, official_model, save_checkpoint


def official_frames(model: Any, waveform: Waveform) -> torch.Tensor:
    with torch.no_grad():
        frames: torch.Tensor = model.encoder(torch.from_numpy(waveform.samples)[None, None])
    return frames[0].T


def official_codes(model: Any, waveform: Waveform) -> NDArray[np.int64]:
    with torch.no_grad():
        codes: torch.Tensor = model.encode(torch.from_numpy(waveform.samples)[None, None])
    return codes[:, 0].numpy()


# Long; shorter than a frame; around a frame; not a whole number of frames; a single sample.
LENGTHS = [8 * RATE_HZ, 3 * RATE_HZ + 7, 641, 320, 319, 40, 5, 2, 1]


@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_and_codes_are_the_official_ones(official, official_checkpoint, samples):
    waveform = noise(samples)
    tokenizer = opened(official_checkpoint, codebooks=8)
    torch.testing.assert_close(
        tokenizer.features(waveform), official_frames(official, waveform), rtol=0, atol=1e-5
    )
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
    waveform = noise(RATE_HZ)
    torch.testing.assert_close(
        tokenizer.features(waveform), official_frames(model, waveform), rtol=0, atol=1e-5
    )


def test_long_audio_goes_in_windows_and_comes_out_as_from_one_pass(official, official_checkpoint):
    # Two windows and one frame of a third, which ends within its first sample.
    waveform = noise(2 * WINDOW_FRAMES * 320 + 1)
    tokenizer = opened(official_checkpoint)
    frames = tokenizer.features(waveform)
    assert len(frames) == 2 * WINDOW_FRAMES + 1
    torch.testing.assert_close(frames, official_frames(official, waveform), rtol=0, atol=1e-5)
    # Other blocks round otherwise: a code may differ where two entries are equally near, no more.
    ours = tokenizer.encode(waveform).codes[0]
    theirs = official_codes(official, waveform)[0]
    book = tokenizer.quantizer.codebooks[0].double()
    near, nearest = (
        (frames.double() - book[torch.from_numpy(codes)]).square().sum(1)
        for codes in (ours, theirs)
    )
    assert (ours == theirs).mean() > 0.9
    torch.testing.assert_close(near, nearest, rtol=0, atol=1e-5)


def test_real_speech_uses_many_codes(official, official_checkpoint, speech_data):
    from aligncap.audio import load

    waveform = load(min((speech_data / "emodb").glob("*.flac")))
    codes = opened(official_checkpoint, codebooks=8).encode(waveform).codes
    np.testing.assert_array_equal(codes, official_codes(official, waveform))
    assert len(np.unique(codes[0])) > 1


def test_silence_and_nothing_have_codes(checkpoint):
    tokenizer = opened(checkpoint, codebooks=3)
    silence = Waveform(np.zeros(RATE_HZ, np.float32))
    assert tokenizer.encode(silence).codes.shape == (3, 50)
    middle = tokenizer.features(silence)[20:30]  # away from the edges every frame is the same
    assert float((middle - middle[0]).abs().max()) < 1e-4
    assert tokenizer.encode(Waveform(np.zeros(0, np.float32))).codes.shape == (3, 0)


def test_its_properties(checkpoint):
    tokenizer = opened(checkpoint, codebooks=3)
    assert (tokenizer.name, tokenizer.frame_rate_hz) == ("speechtokenizer", 50.0)
    assert (tokenizer.codebook_size, tokenizer.codebooks) == (32, 3)


def test_a_smaller_depth_gives_the_first_codebooks(checkpoint):
    waveform = noise(RATE_HZ)
    deep = opened(checkpoint, codebooks=8).encode(waveform).codes
    np.testing.assert_array_equal(opened(checkpoint).encode(waveform).codes, deep[:1])
    np.testing.assert_array_equal(opened(checkpoint, codebooks=3).encode(waveform).codes, deep[:3])


def test_the_fingerprint_depends_on_weights_and_depth_not_on_the_file(state, checkpoint, tmp_path):
    here = opened(checkpoint).fingerprint
    assert here == opened(checkpoint / "SpeechTokenizer.pt").fingerprint
    assert here != opened(checkpoint, codebooks=2).fingerprint
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(state, tmp_path / "SpeechTokenizer.safetensors")
    assert opened(tmp_path).fingerprint == here
    bias = "encoder.model.0.conv.conv.bias"
    save_file(state | {bias: state[bias] + 1e-3}, tmp_path / "SpeechTokenizer.safetensors")
    assert opened(tmp_path).fingerprint != here


def as_parametrized(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As torch's newer weight norm would name them."""
    new = {"weight_g": "parametrizations.weight.original0"}
    new["weight_v"] = "parametrizations.weight.original1"
    return {
        ".".join([*name.split(".")[:-1], new.get(name.split(".")[-1], name.split(".")[-1])]): tensor
        for name, tensor in state.items()
    }


def as_folded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As they would be with weight norm removed."""
    plain = {name: tensor for name, tensor in state.items() if "weight_g" not in name}
    for name in [name for name in plain if name.endswith("weight_v")]:
        direction = plain.pop(name)
        length = state[name.replace("weight_v", "weight_g")]
        plain[name.replace("weight_v", "weight")] = torch._weight_norm(direction, length, 0)
    return plain


@pytest.mark.parametrize("renamed", [dict, as_parametrized, as_folded])
def test_other_ways_to_keep_the_weights_give_the_same_codes(state, checkpoint, tmp_path, renamed):
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(renamed(state), tmp_path / "model.safetensors")
    waveform = noise(RATE_HZ)
    np.testing.assert_array_equal(
        opened(tmp_path).encode(waveform).codes, opened(checkpoint).encode(waveform).codes
    )


def test_a_checkpoint_is_found_where_the_download_leaves_it(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "speechtokenizer_hubert_avg")
    assert opened(tmp_path).fingerprint == opened(checkpoint).fingerprint


@pytest.mark.parametrize("given", [True, False])
def test_without_a_checkpoint_the_error_says_what_to_download_and_where_to(tmp_path, given):
    with pytest.raises(MissingModelError) as caught:
        open_tokenizer("speechtokenizer", tmp_path / "none" if given else None)
    message = str(caught.value)
    for word in ("fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg", "config.json"):
        assert word in message
    assert "SpeechTokenizer.pt" in message
    assert "\n" not in message
    assert (str(tmp_path / "none") in message) is given


def lose_codebook(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    del state["quantizer.vq.layers.0._codebook.embed"]
    torch.save(state, weights)


WITHOUT_STRIDES = {key: value for key, value in CONFIG.items() if key != "strides"}


@pytest.mark.parametrize(
    ("file", "spoil", "named"),
    [
        ("SpeechTokenizer.pt", lambda path: path.write_bytes(path.read_bytes()[:5000]), r"r\.pt"),
        ("SpeechTokenizer.pt", lambda path: path.write_text("version https://git-lfs"), r"r\.pt"),
        ("SpeechTokenizer.pt", lambda path: torch.save({"model": Path()}, path), r"r\.pt"),
        ("SpeechTokenizer.pt", lose_codebook, "embed"),
        ("config.json", lambda path: path.write_text(json.dumps(WITHOUT_STRIDES)), "strides"),
        (
            "config.json",
            lambda path: path.write_text(json.dumps(CONFIG | {"n_filters": 16})),
            "g.j",
        ),
        ("config.json", lambda path: path.write_text("<html>not found</html>"), r"config\.json"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(checkpoint, tmp_path, file, spoil, named):
    folder = tmp_path / "spoilt"
    shutil.copytree(checkpoint, folder)
    spoil(folder / file)
    with pytest.raises(DataError, match=named) as caught:
        opened(folder)
    assert "download" in str(caught.value) or "take the config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"codebooks": 0}, {"codebooks": 9}, {"device": "toaster"}, {"device": "cuda:99"}]
)
def test_options_out_of_range_are_refused(checkpoint, options):
    with pytest.raises(RecipeError, match=next(iter(options))):
        opened(checkpoint, **options)
