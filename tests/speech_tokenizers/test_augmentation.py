"""Augmentation: what is changed changes as said, and nothing else does."""

import numpy as np
import pytest

from aligncap.errors import RecipeError
from aligncap.prosody.measurement import MELS, log_mel
from aligncap.tokenizers.builtin import Features
from aligncap.tokenizers.encoder_training import Augmentation, shift_voice, vary
from aligncap.values import RATE_HZ, Waveform

NOTHING = Augmentation(voice=0.0, pace=0.0, channel=0.0, level=0.0, noise=0.0, cut=0.0)


def features_of(frames: int = 150) -> Features:
    random = np.random.default_rng(3)
    mel = random.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 200, np.float32), np.full(frames, 0.9, np.float32))


def harmonics(hz: float) -> Waveform:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    sound = sum(np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 8))
    return Waveform((0.1 * sound).astype(np.float32))


def test_switched_off_it_gives_the_same_back():
    features = features_of()
    varied = vary(features, NOTHING, np.random.default_rng(0))
    np.testing.assert_allclose(varied.features.mel, features.mel, atol=1e-5)
    assert (varied.voice_ratio, varied.pace_ratio, varied.level_nats) == (1.0, 1.0, 0.0)


def test_the_same_seed_gives_the_same_copy():
    one, other = (vary(features_of(), Augmentation(), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one.features.mel, other.features.mel)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_a_shifted_voice_looks_like_a_sound_played_at_that_frequency(ratio):
    shifted = shift_voice(log_mel(harmonics(400.0)), ratio)[50]
    real, same = log_mel(harmonics(400.0 * ratio))[50], log_mel(harmonics(400.0))[50]
    band = slice(4, 52)  # the lowest partial to the highest
    assert abs(int(shifted[band].argmax()) - int(real[band].argmax())) <= 1
    assert np.corrcoef(shifted[band], real[band])[0, 1] > 0.6
    assert np.corrcoef(same[band], real[band])[0, 1] < 0.4


def test_pitch_duration_and_pace_follow_what_is_reported():
    settings = Augmentation(channel=0.0, level=0.0, noise=0.0, cut=0.0)
    for seed in range(20):
        varied = vary(features_of(), settings, np.random.default_rng(seed))
        assert varied.features.pitch_hz[0] == pytest.approx(200 * varied.voice_ratio, rel=1e-5)
        assert len(varied.features) == pytest.approx(150 / varied.pace_ratio, abs=0.51)


def test_the_level_moves_by_what_is_reported():
    settings = Augmentation(voice=0.0, pace=0.0, channel=0.0, noise=0.0, cut=0.0)
    varied = vary(features_of(), settings, np.random.default_rng(5))
    moved = varied.features.mel - features_of().mel
    np.testing.assert_allclose(moved, varied.level_nats, atol=1e-5)


def test_noise_only_adds():
    settings = Augmentation(voice=0.0, pace=0.0, channel=0.0, level=0.0, noise=1.0, cut=0.0)
    varied = vary(features_of(), settings, np.random.default_rng(2))
    assert (varied.features.mel >= features_of().mel - 1e-5).all()


def test_a_share_beyond_one_is_refused():
    with pytest.raises(RecipeError, match=r"noise is 1\.5"):
        Augmentation(noise=1.5)
