"""The built-in tokenizer: features, ONNX against torch, and the encoder on disk."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import stft

from aligncap.audio import load, speech_activity, utterance
from aligncap.errors import AudioError, DataError, MissingModelError
from aligncap.prosody.measurement import HOP, MELS, hz_to_mel, log_mel, mel_filters, mel_to_hz
from aligncap.tokenizers.builtin import (
    PROSODY,
    VIEWS,
    BuiltinTokenizer,
    EncoderInput,
    Features,
    encoder_input,
    frame_energy,
    measure_features,
    open_builtin,
    padded,
    whisper_log_mel,
)
from aligncap.values import RATE_HZ, Waveform
from support.captioner import WHISPER_ENCODER, write_whisper_encoder
from support.signals import noise, syllables, tone, waveform

OLD_ENCODER = Path(__file__).parents[1] / "golden" / "old" / "exported"


def random_features() -> Features:
    random = np.random.default_rng(0)
    mel = random.normal(-4, 1, (120, MELS)).astype(np.float32)
    pitch = np.where(random.random(120) < 0.6, 180.0, 0.0).astype(np.float32)
    return Features(mel, pitch, random.random(120).astype(np.float32))


def moved(features: Features, nats: np.ndarray | float) -> Features:
    return Features(features.mel + np.float32(nats), features.pitch_hz, features.strength)


@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_the_band_it_lies_in(hz):
    centres = mel_to_hz(np.linspace(hz_to_mel(50.0), hz_to_mel(7800.0), MELS + 2))[1:-1]
    loudest = log_mel(waveform(tone(hz, length_s=1)))[50].argmax()
    assert abs(loudest - np.abs(centres - hz).argmin()) <= 1


def test_mel_power_agrees_with_scipys_short_time_transform():
    sound = waveform(0.1 * noise(1))
    window = np.hanning(400)
    _, _, spectrum = stft(
        sound.samples, window=window, nperseg=400, noverlap=400 - HOP, nfft=512,
        boundary=None, padded=False, scaling="spectrum",
    )  # fmt: skip
    power = np.abs(spectrum.T * window.sum()) ** 2
    expected = np.log(power @ mel_filters() / 400 + 1e-7)
    # Our first frame starts 120 samples before the waveform; 120 samples on, the frames coincide.
    np.testing.assert_allclose(
        log_mel(Waveform(sound.samples[120:]))[1:90], expected[1:90], atol=1e-2
    )
    assert (mel_filters().max(axis=0) >= 0.4).all()  # no band is empty


def test_level_changes_one_channel_only():
    features = random_features()
    one, other = encoder_input(features), encoder_input(moved(features, 1.5))
    np.testing.assert_allclose(one.views, other.views, atol=1e-5)
    np.testing.assert_allclose(other.prosody - one.prosody, [[0, 0, 0, 0, 0, 0.5]] * 120, atol=1e-5)


def test_the_second_view_loses_the_channel_and_the_first_does_not():
    features = random_features()
    one, other = encoder_input(features), encoder_input(moved(features, np.linspace(-1, 1, MELS)))
    # Which frames count as active moves a little with the colour, hence the tolerance.
    assert np.abs(one.views[1] - other.views[1]).mean() < 0.05
    assert np.abs(one.views[0] - other.views[0]).mean() > 0.1


def test_energy_is_the_sum_over_bands():
    mel = random_features().mel
    np.testing.assert_allclose(frame_energy(mel), np.log(np.exp(mel).sum(1)), rtol=1e-5)


def test_silence_at_the_ends_is_cut_and_in_the_middle_kept():
    quiet, loud = np.zeros(RATE_HZ), tone(400.0, length_s=0.5)
    kept = measure_features(waveform(np.concatenate((quiet, loud, quiet, loud, quiet))))
    assert len(kept) == pytest.approx(50 + 100 + 50 + 16, abs=3)
    one_sample = measure_features(waveform(np.zeros(1)))
    assert len(one_sample) == 1
    assert np.isfinite(encoder_input(one_sample).views).all()


@pytest.mark.parametrize(("frames", "padded_frames"), [(1, 16), (15, 16), (16, 16), (17, 24)])
def test_an_utterance_is_padded_to_whole_tokens(frames, padded_frames):
    random = np.random.default_rng(1)
    views = random.normal(size=(VIEWS, frames, MELS)).astype(np.float32)
    prosody = random.normal(size=(frames, PROSODY)).astype(np.float32)
    more = padded(EncoderInput(views, prosody))
    assert more.prosody.shape[0] == more.views.shape[1] == len(more.mask) == padded_frames
    np.testing.assert_array_equal(more.views[:, :frames], views)
    np.testing.assert_array_equal(more.prosody[:frames], prosody)
    assert more.mask.tolist() == [1.0] * frames + [0.0] * (padded_frames - frames)
    assert not more.views[:, frames:].any()
    assert more.tokens == -(-frames // 8)


@pytest.fixture(scope="module")
def tokenizer() -> BuiltinTokenizer:
    return open_builtin(OLD_ENCODER)


class TestFirstEncoder:
    """The one of spectrogram views and pitch, as it was exported."""

    @pytest.mark.parametrize("length_s", [0.01, 0.5, 4.0])
    def test_a_token_is_eight_frames_and_none_stands_for_padding(self, tokenizer, length_s):
        sound = waveform(syllables(rate_hz=4, length_s=length_s, pitch_hz=140.0))
        frames = len(encoder_input(measure_features(sound)).prosody)
        assert frames == pytest.approx(100 * length_s, abs=16)
        found = tokenizer.encode(sound)
        assert found.codes.shape == (1, -(-frames // 8))
        assert sum(found.readout["emotion"].values()) == pytest.approx(1.0, abs=1e-5)
        assert tokenizer.frame_rate_hz == 12.5

    def test_the_fingerprint_is_of_the_weights(self, tokenizer, tmp_path):
        same = tmp_path / "copy.onnx"
        same.write_bytes((OLD_ENCODER / "encoder.onnx").read_bytes())
        assert open_builtin(same).fingerprint == tokenizer.fingerprint
        same.write_bytes(same.read_bytes() + b"\x92\x06\x00")  # a protobuf field nobody knows
        assert open_builtin(same).fingerprint != tokenizer.fingerprint


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> BuiltinTokenizer:
    folder = tmp_path_factory.mktemp("whisper")
    write_whisper_encoder(folder / "encoder.onnx")
    return open_builtin(folder)


class TestWhisperEncoder:
    """An encoder that takes Whisper's spectrogram and a baseline."""

    def test_its_spectrogram_is_that_of_transformers(self):
        from transformers import WhisperFeatureExtractor

        samples = (0.1 * noise(30)).astype(np.float32)
        given = WhisperFeatureExtractor()(samples, sampling_rate=RATE_HZ, return_tensors="np")
        expected = given["input_features"][0].T
        np.testing.assert_allclose(whisper_log_mel(samples), expected, atol=2e-3)

    def test_codes_vector_and_readout_are_the_encoders(self, opened, example_clips):
        clip = load(example_clips[0])
        # It hears the utterance, and 0.3 s of silence before and after it.
        mel = whisper_log_mel(np.pad(utterance(clip).samples, 4800))
        found = opened.encode(clip)
        assert (opened.codebooks, opened.codebook_size) == (2, 80)
        assert found.codes.tolist() == [mel[::8].argmax(1).tolist(), mel[::8].argmin(1).tolist()]
        np.testing.assert_allclose(found.vector, mel[:, :4].mean(0), rtol=1e-5)
        assert found.readout["emotion"]["sad"] == pytest.approx(0.58)
        assert found.readout["gender"] == pytest.approx({"female": 0.25, "male": 0.75})
        assert found.readout["vocalization"]["speech"] == pytest.approx(0.9)
        assert len(found.readout["vocalization"]) == 11
        assert found.readout["novelty"] == {"score": 0.5}
        # Six syllables in the seconds of speech, whatever is silent around them.
        spoken_s = sum(end - start for start, end in speech_activity(clip))
        silence = np.zeros(RATE_HZ, np.float32)
        later = Waveform(np.concatenate([silence, clip.samples, silence]))
        for one in (found, opened.encode(later)):
            assert one.readout["pace"]["syllables_per_s"] == pytest.approx(6 / spoken_s, rel=0.05)
        assert opened.encode(later).codes.tolist() == found.codes.tolist()

    def test_the_baseline_reaches_it_and_none_is_none(self, opened, example_clips):
        clip = load(example_clips[0])
        alone = opened.encode(clip)
        against = opened.encode(clip, np.array([0.1, 0.2, 0.3, 0.4], np.float32))
        assert alone.readout["arousal"] == {"level": 0.0}
        assert against.readout["arousal"]["level"] == pytest.approx(0.25)
        assert against.readout["emotion"]["happy"] == pytest.approx(0.58)
        np.testing.assert_array_equal(against.vector, alone.vector)

    @pytest.mark.parametrize("samples", [0, 1, 100, 30 * RATE_HZ])
    def test_any_length_that_it_has_positions_for(self, opened, samples):
        assert opened.encode(Waveform(np.zeros(samples, np.float32))).codes.shape[1] >= 2
        too_long = Waveform(np.zeros(31 * RATE_HZ, np.float32), "long.wav")
        with pytest.raises(AudioError, match=r"long\.wav: 31 s .* cut it to 30 s"):
            opened.encode(too_long)

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            (" float[1,11] vocalization,", ""),
            ("[0.9, 0.01, 0.01", "[0.9, 0.01"),
            ("= [0.5]> ()", "= [nan]> ()"),
            ("(loudest, faintest)", "(loudest)"),
        ],
    )
    def test_an_encoder_that_gives_something_else_is_refused(self, tmp_path, right, wrong):
        assert right in WHISPER_ENCODER
        write_whisper_encoder(tmp_path / "encoder.onnx", WHISPER_ENCODER.replace(right, wrong))
        with pytest.raises(DataError, match="is damaged"):
            open_builtin(tmp_path)


def test_a_missing_encoder_is_named_with_a_hint(tmp_path):
    with pytest.raises(MissingModelError, match=r"encoder\.onnx.*aligncap train"):
        open_builtin(tmp_path)
