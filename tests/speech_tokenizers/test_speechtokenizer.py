"""SpeechTokenizer checkpoints: what is read, what is refused, what the tokens hang on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.speechtokenizer import open_speechtokenizer as opened
from aligncap.values import RATE_HZ, Waveform
from speech_tokenizers.small import CONFIG, noise


def test_silence_and_nothing_have_codes(checkpoint: Path) -> None:
    tokenizer = opened(checkpoint, codebooks=3)
    silence = Waveform(np.zeros(RATE_HZ, np.float32))
    assert tokenizer.encode(silence).codes.shape == (3, 50)
    middle = tokenizer.features(silence)[20:30]  # away from the edges every frame is the same
    assert float((middle - middle[0]).abs().max()) < 1e-4
    assert tokenizer.encode(Waveform(np.zeros(0, np.float32))).codes.shape == (3, 0)


def test_it_says_what_it_is(checkpoint: Path) -> None:
    tokenizer = opened(checkpoint, codebooks=3)
    assert (tokenizer.name, tokenizer.frame_rate_hz) == ("speechtokenizer", 50.0)
    assert (tokenizer.codebook_size, tokenizer.codebooks) == (32, 3)


def test_a_smaller_depth_gives_the_first_codebooks(checkpoint: Path) -> None:
    waveform = noise(RATE_HZ)
    deep = opened(checkpoint, codebooks=8).encode(waveform).codes
    np.testing.assert_array_equal(opened(checkpoint).encode(waveform).codes, deep[:1])
    np.testing.assert_array_equal(opened(checkpoint, codebooks=3).encode(waveform).codes, deep[:3])


def test_the_fingerprint_hangs_on_weights_and_depth_not_on_the_file(
    state: dict[str, torch.Tensor], checkpoint: Path, tmp_path: Path
) -> None:
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
def test_other_ways_to_keep_the_weights_give_the_same_codes(
    state: dict[str, torch.Tensor], checkpoint: Path, tmp_path: Path, renamed: Any
) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(renamed(state), tmp_path / "model.safetensors")
    waveform = noise(RATE_HZ)
    np.testing.assert_array_equal(
        opened(tmp_path).encode(waveform).codes, opened(checkpoint).encode(waveform).codes
    )


def test_a_checkpoint_is_found_where_the_download_leaves_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "speechtokenizer_hubert_avg")
    assert opened(tmp_path).fingerprint == opened(checkpoint).fingerprint


@pytest.mark.parametrize("given", [True, False])
def test_without_a_checkpoint_the_error_says_what_to_download_and_where_to(
    tmp_path: Path, given: bool
) -> None:
    with pytest.raises(MissingModelError) as caught:
        open_tokenizer("speechtokenizer", tmp_path / "none" if given else None)
    message = str(caught.value)
    for word in ("fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg", "config.json"):
        assert word in message
    assert "SpeechTokenizer.pt" in message
    assert "\n" not in message
    assert (str(tmp_path / "none") in message) is given


def _truncate(folder: Path) -> None:
    weights = folder / "SpeechTokenizer.pt"
    weights.write_bytes(weights.read_bytes()[:5000])


def _make_text(folder: Path) -> None:
    (folder / "SpeechTokenizer.pt").write_text("version https://git-lfs.github.com/spec/v1")


def _make_code(folder: Path) -> None:
    torch.save({"model": Path("somewhere")}, folder / "SpeechTokenizer.pt")


def _lose_setting(folder: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "strides"}
    (folder / "config.json").write_text(json.dumps(config))


def _contradict(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"n_filters": 16}))


def _lose_codebook(folder: Path) -> None:
    state = torch.load(folder / "SpeechTokenizer.pt", weights_only=True)
    del state["quantizer.vq.layers.0._codebook.embed"]
    torch.save(state, folder / "SpeechTokenizer.pt")


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("<html>not found</html>")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_truncate, "SpeechTokenizer.pt"),
        (_make_text, "SpeechTokenizer.pt"),
        (_make_code, "SpeechTokenizer.pt"),
        (_lose_setting, "strides"),
        (_contradict, "config.json"),
        (_lose_codebook, "embed"),
        (_no_json, "config.json"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(
    checkpoint: Path, tmp_path: Path, spoil: Any, named: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    with pytest.raises(DataError, match=named) as caught:
        opened(folder)
    assert "download" in str(caught.value) or "take the config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"codebooks": 0}, {"codebooks": 9}, {"device": "toaster"}, {"device": "cuda:99"}]
)
def test_options_out_of_range_are_refused(checkpoint: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        opened(checkpoint, **options)
