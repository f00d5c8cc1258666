"""The built-in tokenizer: features, ONNX against torch, and the encoder on disk."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import stft

from aligncap.errors import MissingModelError
from aligncap.prosody.measurement import HOP, MELS, hz_to_mel, log_mel, mel_filters, mel_to_hz
from aligncap.tokenizers.builtin import (
    BuiltinTokenizer,
    Features,
    encoder_input,
    frame_energy,
    measure_features,
    nuclei_per_s,
    open_builtin,
    padded,
)
from aligncap.tokenizers.encoder import SpeechEncoder, load_encoder, save_encoder
from aligncap.tokenizers.encoder_training import EncoderExample, make_batch
from aligncap.values import EMOTIONS, RATE_HZ, Waveform
from speech_tokenizers.test_encoder import clip_of, encoder

# Of torch 2.13's exporter: a call that torch itself has deprecated, and a name it does not need.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*The axis name.*will not be used:UserWarning"),
]


def tone(hz: float, seconds: float = 1.0, level: float = 0.3) -> Waveform:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return Waveform((level * np.sin(2 * np.pi * hz * time_s)).astype(np.float32))


def random_features(frames: int = 120, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    mel = random.normal(-4, 1, (frames, MELS)).astype(np.float32)
    pitch = np.where(random.random(frames) < 0.6, 180.0, 0.0).astype(np.float32)
    return Features(mel, pitch, random.random(frames).astype(np.float32))


@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_the_band_it_lies_in(hz):
    centres = mel_to_hz(np.linspace(hz_to_mel(50.0), hz_to_mel(7800.0), MELS + 2))[1:-1]
    loudest = log_mel(tone(hz))[50].argmax()
    assert abs(loudest - np.abs(centres - hz).argmin()) <= 1


def test_mel_power_agrees_with_scipys_short_time_transform():
    random = np.random.default_rng(1)
    waveform = Waveform(random.normal(0, 0.1, RATE_HZ).astype(np.float32))
    window = np.hanning(400)
    _, _, spectrum = stft(
        waveform.samples, window=window, nperseg=400, noverlap=400 - HOP, nfft=512,
        boundary=None, padded=False, scaling="spectrum",
    )  # fmt: skip
    power = np.abs(spectrum.T * window.sum()) ** 2
    expected = np.log(power @ mel_filters() / 400 + 1e-7)
    # Our first frame starts 120 samples before the waveform; 120 samples on, the frames coincide.
    ours = log_mel(Waveform(waveform.samples[120:]))
    np.testing.assert_allclose(ours[1:90], expected[1:90], atol=1e-2)


def test_no_band_is_empty():
    assert (mel_filters().max(axis=0) >= 0.4).all()


def test_level_changes_one_channel_only():
    features = random_features()
    louder = Features(features.mel + np.float32(1.5), features.pitch_hz, features.strength)
    one, other = encoder_input(features), encoder_input(louder)
    np.testing.assert_allclose(one.views, other.views, atol=1e-5)
    np.testing.assert_allclose(one.prosody[:, :5], other.prosody[:, :5], atol=1e-5)
    np.testing.assert_allclose(other.prosody[:, 5] - one.prosody[:, 5], 0.5, atol=1e-5)


def test_the_second_view_loses_the_channel_and_the_first_does_not():
    features = random_features()
    response = np.linspace(-1, 1, MELS, dtype=np.float32)
    coloured = Features(features.mel + response, features.pitch_hz, features.strength)
    one, other = encoder_input(features), encoder_input(coloured)
    # Which frames count as active moves a little with the colour, hence the tolerance.
    assert np.abs(one.views[1] - other.views[1]).mean() < 0.05
    assert np.abs(one.views[0] - other.views[0]).mean() > 0.1


def test_energy_is_the_sum_over_bands():
    mel = random_features().mel
    np.testing.assert_allclose(frame_energy(mel), np.log(np.exp(mel).sum(1)), rtol=1e-5)


def test_silence_at_the_ends_is_cut_and_in_the_middle_kept():
    quiet, loud = np.zeros(RATE_HZ, np.float32), tone(400.0, 0.5).samples
    kept = measure_features(Waveform(np.concatenate((quiet, loud, quiet, loud, quiet))))
    assert len(kept) == pytest.approx(50 + 100 + 50 + 16, abs=3)


def test_one_sample_still_gives_a_frame():
    features = measure_features(Waveform(np.zeros(1, np.float32)))
    assert len(features) == 1
    assert np.isfinite(encoder_input(features).views).all()


@pytest.mark.parametrize("per_second", [3, 5])
def test_syllables_are_counted(per_second):
    frames = 300
    beat = np.sin(np.arange(frames) / 100 * per_second * 2 * np.pi)
    mel = np.repeat((-4 + 2 * beat)[:, None], MELS, 1).astype(np.float32)
    features = Features(mel, np.full(frames, 200.0, np.float32), np.ones(frames, np.float32))
    assert nuclei_per_s(features) == pytest.approx(per_second, abs=0.4)


def test_a_sustained_vowel_has_no_pace():
    frames = 100
    mel = np.full((frames, MELS), -4.0, np.float32)
    features = Features(mel, np.full(frames, 200.0, np.float32), np.ones(frames, np.float32))
    assert math.isnan(nuclei_per_s(features))


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
@pytest.mark.slow
def test_onnx_gives_what_torch_gives(saved, tokenizer, seconds):
    inputs = padded(encoder_input(measure_features(voice(seconds))))
    with torch.no_grad():
        output = saved[0](*(torch.from_numpy(part)[None] for part in inputs))
    tokens = tokenizer.encode(voice(seconds))
    assert tokens.codes.tolist() == output.codes[:, : inputs.tokens].tolist()
    emotion = tokens.readout["emotion"]
    assert tuple(emotion) == EMOTIONS
    assert sum(emotion.values()) == pytest.approx(1.0, abs=1e-5)
    expected = output.emotion.softmax(-1)[0].tolist()
    assert list(emotion.values()) == pytest.approx(expected, abs=1e-4)
    female = 1 / (1 + math.exp(-float(output.gender)))
    assert tokens.readout["gender"]["female"] == pytest.approx(female, abs=1e-4)
    assert sum(tokens.readout["gender"].values()) == pytest.approx(1.0)
    pace = tokens.readout["pace"]["syllables_per_s"]
    assert pace == pytest.approx(math.exp(float(output.pace)), rel=1e-3)


@pytest.mark.slow
def test_a_second_has_twelve_and_a_half_tokens(tokenizer):
    assert tokenizer.frame_rate_hz == 12.5
    assert tokenizer.encode(voice(4.0)).codes.shape[1] == pytest.approx(50, abs=2)


@pytest.mark.parametrize(("frames", "padded_frames"), [(1, 16), (15, 16), (16, 16), (17, 24)])
def test_an_utterance_is_padded_to_whole_tokens_as_in_a_training_batch(frames, padded_frames):
    inputs = clip_of(frames, 1)
    more = padded(inputs)
    batch = make_batch([inputs], [EncoderExample("", 0, 0)], [1.0])
    frames_of_batch = batch.views.shape[2]
    assert more.prosody.shape[0] == more.views.shape[1] == len(more.mask) == padded_frames
    np.testing.assert_array_equal(more.views[:, :frames_of_batch], batch.views[0])
    np.testing.assert_array_equal(more.prosody[:frames_of_batch], batch.prosody[0])
    np.testing.assert_array_equal(more.mask[:frames_of_batch], batch.mask[0])
    assert more.tokens == -(-frames // 8)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 4.0])
@pytest.mark.slow
def test_no_token_stands_for_padding(tokenizer, seconds):
    frames = len(encoder_input(measure_features(voice(seconds))).prosody)
    assert tokenizer.encode(voice(seconds)).codes.shape == (1, -(-frames // 8))


@pytest.mark.slow
def test_the_codebook_size_is_the_encoders(saved, tokenizer):
    assert tokenizer.codebook_size == saved[0].config.codebook_size


@pytest.mark.slow
def test_the_encoder_comes_back_as_it_was(saved):
    model, folder = saved
    back = load_encoder(folder)
    assert back.config == model.config
    assert not back.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


@pytest.mark.slow
def test_the_fingerprint_is_of_the_weights(saved, tokenizer, tmp_path):
    same = tmp_path / "copy.onnx"
    same.write_bytes((saved[1] / "encoder.onnx").read_bytes())
    assert open_builtin(same).fingerprint == tokenizer.fingerprint
    same.write_bytes(same.read_bytes() + b"\x92\x06\x00")  # a protobuf field nobody knows
    assert open_builtin(same).fingerprint != tokenizer.fingerprint


def test_a_missing_encoder_is_named_with_a_hint(tmp_path):
    with pytest.raises(MissingModelError, match=r"encoder\.onnx.*aligncap train"):
        open_builtin(tmp_path)
    with pytest.raises(MissingModelError, match=r"nowhere.*aligncap train"):
        load_encoder(tmp_path / "nowhere")
