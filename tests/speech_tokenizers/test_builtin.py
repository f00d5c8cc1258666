"""The built-in tokenizer: ONNX beside torch, and the encoder's way to disk and back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aligncap.errors import MissingModelError
from aligncap.tokenizers.builtin import (
    BuiltinTokenizer,
    encoder_input,
    measure_features,
    open_builtin,
    padded,
)
from aligncap.tokenizers.encoder import SpeechEncoder, load_encoder, save_encoder
from aligncap.tokenizers.encoder_training import EncoderExample, make_batch
from aligncap.values import EMOTIONS, RATE_HZ, Waveform
from speech_tokenizers.test_encoder import clip_of, encoder

# Of torch 2.13's exporter: a call that torch itself has deprecated, and a name it does not need.
pytestmark = [
    pytest.mark.slow,  # the export takes most of a minute
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*The axis name.*will not be used:UserWarning"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[SpeechEncoder, Path]:
    """A random encoder, and the folder it was saved in."""
    folder = tmp_path_factory.mktemp("encoder")
    model = encoder()
    save_encoder(folder, model)
    return model, folder


@pytest.fixture(scope="module")
def tokenizer(saved: tuple[SpeechEncoder, Path]) -> BuiltinTokenizer:
    return open_builtin(saved[1])


def voice(seconds: float) -> Waveform:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * 140 * n * time_s) / n for n in range(1, 9))
    beat = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time_s)
    return Waveform((0.2 * beat * sound).astype(np.float32))


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.3, 4.0])
def test_onnx_gives_what_torch_gives(saved, tokenizer, seconds):
    inputs = padded(encoder_input(measure_features(voice(seconds))))
    with torch.no_grad():
        reading = saved[0](*(torch.from_numpy(part)[None] for part in inputs))
    tokens = tokenizer.encode(voice(seconds))
    assert tokens.codes.tolist() == reading.codes[:, : inputs.tokens].tolist()
    emotion = tokens.readout["emotion"]
    assert tuple(emotion) == EMOTIONS
    assert sum(emotion.values()) == pytest.approx(1.0, abs=1e-5)
    expected = reading.emotion.softmax(-1)[0].tolist()
    assert list(emotion.values()) == pytest.approx(expected, abs=1e-4)
    female = 1 / (1 + math.exp(-float(reading.gender)))
    assert tokens.readout["gender"]["female"] == pytest.approx(female, abs=1e-4)
    assert sum(tokens.readout["gender"].values()) == pytest.approx(1.0)
    pace = tokens.readout["pace"]["syllables_per_s"]
    assert pace == pytest.approx(math.exp(float(reading.pace)), rel=1e-3)


def test_a_second_has_twelve_and_a_half_tokens(tokenizer):
    assert tokenizer.frame_rate_hz == 12.5
    assert tokenizer.encode(voice(4.0)).codes.shape[1] == pytest.approx(50, abs=2)


@pytest.mark.parametrize(("frames", "filled"), [(1, 16), (15, 16), (16, 16), (17, 24)])
def test_an_utterance_is_filled_up_to_whole_tokens_as_in_a_training_batch(frames, filled):
    inputs = clip_of(frames, 1)
    more = padded(inputs)
    batch = make_batch([inputs], [EncoderExample("", 0, 0)], [1.0])
    taught = batch.views.shape[2]
    assert more.prosody.shape[0] == more.views.shape[1] == len(more.mask) == filled
    np.testing.assert_array_equal(more.views[:, :taught], batch.views[0])
    np.testing.assert_array_equal(more.prosody[:taught], batch.prosody[0])
    np.testing.assert_array_equal(more.mask[:taught], batch.mask[0])
    assert more.tokens == -(-frames // 8)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 4.0])
def test_no_token_stands_for_what_was_filled_up(tokenizer, seconds):
    frames = len(encoder_input(measure_features(voice(seconds))).prosody)
    assert tokenizer.encode(voice(seconds)).codes.shape == (1, -(-frames // 8))


def test_the_codebook_size_is_the_encoders(saved, tokenizer):
    assert tokenizer.codebook_size == saved[0].config.codebook_size


def test_the_encoder_comes_back_as_it_was(saved):
    model, folder = saved
    back = load_encoder(folder)
    assert back.config == model.config
    assert not back.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_the_fingerprint_is_of_the_weights(saved, tokenizer, tmp_path):
    same = tmp_path / "copy.onnx"
    same.write_bytes((saved[1] / "encoder.onnx").read_bytes())
    assert open_builtin(same).fingerprint == tokenizer.fingerprint
    same.write_bytes(same.read_bytes() + b"\x92\x06\x00")  # a protobuf field nobody knows
    assert open_builtin(same).fingerprint != tokenizer.fingerprint


def test_a_missing_encoder_is_named_with_its_cure(tmp_path):
    with pytest.raises(MissingModelError, match=r"encoder\.onnx.*aligncap train"):
        open_builtin(tmp_path)
    with pytest.raises(MissingModelError, match=r"nowhere.*aligncap train"):
        load_encoder(tmp_path / "nowhere")
