"""Varied waveforms against numpy, and what each variation changes."""

import math

import numpy as np
import pytest
import torch

from aligncap.recipes import as_table
from aligncap.tokenizers.augmentation import (
    Augmentation,
    Recordings,
    at_8_khz,
    log_mel,
    mu_law,
    vary,
)
from aligncap.tokenizers.builtin import SILENCE_S, whisper_log_mel

RATE = 16_000
SILENCE = round(SILENCE_S * RATE)
NOTHING = {name: 0.0 for name in as_table(Augmentation()) if name not in ("speed", "tempo")}


def only(**shares: float) -> Augmentation:
    return Augmentation(**{**NOTHING, **shares})


def recordings(*clips: np.ndarray) -> Recordings:
    ends = torch.tensor(np.cumsum([len(clip) for clip in clips]))
    lengths = torch.tensor([len(clip) for clip in clips])
    samples = np.rint(np.concatenate(clips) * 32767).astype(np.int16)
    return Recordings(torch.from_numpy(samples), ends - lengths, lengths)


def tone(hz: float, seconds: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * math.pi * hz * np.arange(round(RATE * seconds)) / RATE)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.clip(0.1 * random.standard_normal(round(RATE * seconds)), -1, 1)


def peak_band(mel: torch.Tensor, mask: torch.Tensor) -> int:
    return int(mel[mask].mean(0).argmax())


def test_without_any_variation_it_is_whispers_spectrogram():
    clip = noise(1.0)
    store = recordings(clip, noise(2.0, 1))
    found = vary(store, torch.tensor([0, 0]), 2 * RATE, only(), 1.0)
    heard = np.pad((np.rint(clip * 32767) / 32768).astype(np.float32), SILENCE)
    np.testing.assert_allclose(found.mel[0, :160], whisper_log_mel(heard), atol=2e-3)
    assert found.mask.sum(1).tolist() == [160, 160]
    assert found.voice_ratio.tolist() == [1.0, 1.0]
    assert found.whole.tolist() == [True, True]


def test_the_spectrogram_of_a_batch_is_that_of_each():
    clips = np.stack([noise(0.5, seed) for seed in range(3)]).astype(np.float32)
    found = log_mel(torch.from_numpy(clips))
    for one, clip in zip(found, clips, strict=True):
        scaled = (one.maximum(one.amax() - 8.0).T + 4) / 4
        np.testing.assert_allclose(scaled, whisper_log_mel(clip), atol=2e-4)


def test_speed_moves_pitch_and_length_together():
    store = recordings(tone(1000, 2.0))
    found = vary(store, torch.zeros(40, dtype=torch.long), 4 * RATE, only(speed_share=1.0), 1.0)
    length = found.mask.sum(1) / 100
    np.testing.assert_allclose(length, 2.0 / found.voice_ratio + 2 * SILENCE_S, atol=0.02)
    bands = [peak_band(mel, mask) for mel, mask in zip(found.mel, found.mask, strict=True)]
    order = found.voice_ratio.argsort()
    assert sorted(bands) == [bands[n] for n in order]
    assert len(set(bands)) > 3


def test_tempo_moves_the_length_alone():
    store = recordings(tone(1000, 2.0))
    found = vary(store, torch.zeros(40, dtype=torch.long), 4 * RATE, only(tempo_share=1.0), 1.0)
    assert found.voice_ratio.tolist() == [1.0] * 40
    length = found.mask.sum(1) / 100
    assert 1.3 * 1.55 < length.min() < 1.3 * 1.8
    assert 1.3 * 2.2 < length.max() < 1.3 * 2.55
    assert len({peak_band(m, k) for m, k in zip(found.mel, found.mask, strict=True)}) == 1


def test_a_longer_clip_is_cut_and_not_whole():
    store = recordings(noise(3.0), noise(1.0, 1))
    found = vary(store, torch.tensor([0, 1]), 2 * RATE, only(), 1.0)
    assert found.whole.tolist() == [False, True]
    assert found.mask.sum(1).tolist() == [200, 160]
    silence = found.mel.amax(2) == found.mel.amin((1, 2))[:, None]
    assert silence[0].nonzero()[:, 0].tolist() == [*range(29), *range(172, 200)]


def test_silence_around_a_clip_varies_and_nothing_else_is_in_it():
    settings = only(padding=0.8, noise=1.0, room=1.0, response=1.0)
    torch.manual_seed(0)
    found = vary(recordings(noise(1.0)), torch.zeros(40, dtype=torch.long), 3 * RATE, settings, 1.0)
    sound = found.mel.amax(2) > found.mel.amin((1, 2))[:, None]
    lead = sound.float().argmax(1) / 100
    tail = (found.mask.sum(1) - 1 - (sound * torch.arange(300)).argmax(1)) / 100
    for silence in (lead, tail):
        assert 0.17 < silence.min() < 0.25
        assert 0.42 < silence.max() < 0.51
        assert 0 < ((silence - SILENCE_S).abs() < 0.02).sum() < 20


def test_a_telephone_has_no_bass_and_no_treble():
    store = recordings(noise(1.0))
    found = vary(store, torch.zeros(8, dtype=torch.long), 2 * RATE, only(telephone=1.0), 1.0)
    level = found.mel[:, 40:120].mean(1)
    assert (level[:, 20:40].amin(1) - level[:, -4:].amax(1)).min() > 0.3
    assert (level[:, 20:40].amin(1) - level[:, 0]).min() > 0.3


def test_noise_fills_the_pauses():
    torch.manual_seed(0)
    clip = np.concatenate((tone(300, 0.5), np.zeros(RATE // 2)))
    quiet, noisy = (
        vary(recordings(clip, clip), torch.tensor([0, 1] * 8), 2 * RATE, only(noise=share), 1.0)
        for share in (0.0, 1.0)
    )
    filled = noisy.mel[:, 100:120].mean((1, 2)) - quiet.mel[:, 100:120].mean((1, 2))
    assert (filled > 0).all()  # by noise 2 to 30 dB below the clip
    assert filled.mean() > 0.2


def test_strength_is_a_factor_of_every_share():
    store = recordings(tone(500, 1.0))
    found = vary(store, torch.zeros(400, dtype=torch.long), RATE, only(speed_share=0.8), 0.5)
    assert 0.3 < float((found.voice_ratio != 1).float().mean()) < 0.5


def test_the_seed_gives_the_same_views():
    store, chosen = recordings(noise(1.0), noise(0.7, 1)), torch.tensor([0, 1, 1])
    views = []
    for _ in range(2):
        torch.manual_seed(3)
        views.append(vary(store, chosen, RATE, Augmentation(), 1.0))
    for one, other in zip(*views, strict=True):
        assert torch.equal(one, other)


def test_a_line_of_8_khz_keeps_a_low_tone_and_has_nothing_above():
    low, high = (torch.tensor(tone(hz, 0.5), dtype=torch.float32)[None] for hz in (1000, 5000))
    found = at_8_khz(low + high)
    assert float((found - low).square().mean() / low.square().mean()) < 1e-3
    spectrum = torch.fft.rfft(found).abs()
    assert float(spectrum[:, 2001:].max() / spectrum.max()) < 1e-5


@pytest.mark.parametrize(("sample", "code"), [(0.0, 0), (1.0, 128), (-1.0, -128), (0.01, 29)])
def test_mu_law_by_hand(sample, code):
    expected = math.copysign((256 ** (abs(code) / 128) - 1) / 255, code)
    assert float(mu_law(torch.tensor(sample))) == pytest.approx(expected, abs=1e-6)
