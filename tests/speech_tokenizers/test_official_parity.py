"""Our SpeechTokenizer against the authors' own module, on random weights."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aligncap.tokenizers.speechtokenizer import WINDOW_FRAMES
from aligncap.tokenizers.speechtokenizer import open_speechtokenizer as opened
from aligncap.values import RATE_HZ, Waveform
from speech_tokenizers.small import CONFIG, noise, official_model, save_checkpoint


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
def test_frames_and_codes_are_the_official_ones(
    official: Any, official_checkpoint: Path, samples: int
) -> None:
    waveform = noise(samples)
    tokenizer = opened(official_checkpoint, codebooks=8)
    torch.testing.assert_close(
        tokenizer.features(waveform), official_frames(official, waveform), rtol=0, atol=1e-5
    )
    np.testing.assert_array_equal(
        tokenizer.encode(waveform).codes, official_codes(official, waveform)
    )


def test_the_comparison_is_not_of_one_code(official: Any) -> None:
    codes = official_codes(official, noise(8 * RATE_HZ))
    assert all(len(np.unique(codebook)) > 10 for codebook in codes)


@pytest.mark.slow
def test_the_published_size_matches_too(official_module: ModuleType, tmp_path: Path) -> None:
    config = CONFIG | {"n_filters": 64, "dimension": 1024, "semantic_dimension": 768, "n_q": 2}
    model = official_model(official_module, config)
    tokenizer = opened(save_checkpoint(model.state_dict(), tmp_path / "full", config))
    waveform = noise(RATE_HZ // 2)
    difference = tokenizer.features(waveform) - official_frames(model, waveform)
    assert difference.abs().max() <= 1e-5
    np.testing.assert_array_equal(
        tokenizer.encode(waveform).codes[0], official_codes(model, waveform)[0]
    )


def test_the_snake_variant_matches_too(official_module: ModuleType, tmp_path: Path) -> None:
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


def test_long_audio_goes_in_windows_and_comes_out_as_from_one_pass(
    official: Any, official_checkpoint: Path
) -> None:
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


def test_real_speech_uses_many_codes(
    official: Any, official_checkpoint: Path, speech_data: Path
) -> None:
    from aligncap.audio import load

    waveform = load(min((speech_data / "emodb").glob("*.flac")))
    codes = opened(official_checkpoint, codebooks=8).encode(waveform).codes
    np.testing.assert_array_equal(codes, official_codes(official, waveform))
    assert len(np.unique(codes[0])) > 1
