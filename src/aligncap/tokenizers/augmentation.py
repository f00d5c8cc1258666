"""Waveforms varied as other speakers, rooms, microphones and lines would have given them.

A whole batch is varied at once, on the device that trains. Speed changes pitch, formants and pace
together (Ko et al. 2015), tempo the pace alone; a smooth frequency response stands for microphone
and distance, decaying noise for a room, a band with µ-law for a telephone, a raised floor for a
codec that drops what is faint; bands and spans of time are masked (Park et al. 2019).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aligncap.recipes import Share, recipe_section
from aligncap.tokenizers.builtin import (
    SILENCE_S,
    WHISPER_HOP,
    WHISPER_MELS,
    WHISPER_WINDOW,
    whisper_mel_filters,
)
from aligncap.values import RATE_HZ

_REVERBERATION = RATE_HZ // 2
_DYNAMIC = 8.0
"""Decades below the loudest band at which Whisper's spectrogram ends."""


@recipe_section
class Augmentation:
    """How often and how strongly waveforms are varied; 0 switches a variation off."""

    speed: float = 0.1
    """Standard deviation of the logarithm of the ratio of speeds."""
    speed_share: Share = 0.7
    tempo: float = 0.22
    """Largest logarithm of the ratio of paces, uniform."""
    tempo_share: Share = 0.4
    response: Share = 0.65
    """Share of clips that get another frequency response."""
    room: Share = 0.35
    telephone: Share = 0.25
    """Share of clips that are cut to a telephone's band, most of them with 8-bit µ-law."""
    low_pass: Share = 0.25
    noise: Share = 0.5
    """Share of clips with noise, white, pink or babble, 2 to 30 dB below them."""
    level: Share = 0.7
    """Share of clips that get another level, 25 dB down to 3 dB over full scale."""
    floor: Share = 0.2
    """Share of clips that lose what is more than 30 to 60 dB below the loudest band."""
    padding: Share = 0.4
    """Share of clips with more or less silence before and after them than they are heard with
    (`SILENCE_S`), 0.2 to 0.5 s."""
    masks: Share = 0.5
    """Share of clips with a masked band, and with a masked span of time; twice each."""


class Recordings(NamedTuple):
    """The samples of many clips, one after another, on a device."""

    samples: Tensor
    """Int16, [total]."""
    starts: Tensor
    """Int64, [clips]."""
    lengths: Tensor
    """Int64, [clips], 2 or more."""


class Views(NamedTuple):
    """Varied clips as the encoder takes them."""

    mel: Tensor
    """[batch, frames, 80]"""
    mask: Tensor
    """True for frames of the clip, [batch, frames]."""
    voice_ratio: Tensor
    """Frequencies of the copy over those of the clip, [batch]."""
    whole: Tensor
    """Whether all of the clip is in the view, [batch]."""


def vary(
    recordings: Recordings, chosen: Tensor, samples: int, settings: Augmentation, strength: float
) -> Views:
    """A varied copy of each of the `chosen` clips [batch], at most `samples` long; every share is
    multiplied by `strength`. Random numbers come from torch's generator of the device."""
    draw = _Draws(len(chosen), samples, chosen.device, strength)
    x, inside, heard, ratio, whole = _read(recordings, chosen, draw, settings)
    x, telephone = _through_channel(x, draw, settings)
    x = _with_noise(x, inside, draw, settings)
    peak = x.abs().amax(1).clamp(min=1e-4)
    gain = 10 ** ((draw.uniform() * 28 - 25) / 20) / peak
    x = torch.where(draw.share(settings.level)[:, None], x * gain[:, None], x)
    coded = telephone & (draw.uniform() < 0.8)
    x = torch.where(coded[:, None], at_8_khz(x), x.clamp(-1, 1)) * inside
    mel, mask, kept = _as_spectrogram(x, heard, draw, settings)
    return Views(mel.transpose(1, 2), mask, ratio, whole & kept)


class _Draws:
    """Random numbers of a batch."""

    def __init__(self, batch: int, samples: int, device: torch.device, strength: float) -> None:
        self.batch, self.samples, self.device, self.strength = batch, samples, device, strength

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)

    def share(self, share: float) -> Tensor:
        """True with this probability times the strength, [batch]."""
        return self.uniform() < share * self.strength

    def axis(self, length: int) -> Tensor:
        return torch.arange(length, device=self.device, dtype=torch.float32)


def _read(
    recordings: Recordings, chosen: Tensor, draw: _Draws, settings: Augmentation
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Samples at another speed, from a random place where the clip is longer than the view:
    [batch, samples]; where the clip is, and where it is with the silence around it; the ratio;
    whether all of it is there."""
    starts, lengths = recordings.starts[chosen], recordings.lengths[chosen].float()
    ones = torch.ones_like(lengths)
    spread = (draw.normal() * settings.speed).clamp(-2.6 * settings.speed, 2.6 * settings.speed)
    ratio = torch.where(draw.share(settings.speed_share), spread.exp(), ones)
    lead, tail = (
        (RATE_HZ * (0.2 + 0.3 * draw.uniform(2)))
        .where(draw.share(settings.padding)[:, None], torch.tensor(RATE_HZ * SILENCE_S))
        .unbind(1)
    )
    spare = lengths / ratio - (draw.samples - lead - tail)
    begin = draw.uniform() * spare.clamp(min=0) * ratio
    axis = draw.axis(draw.samples)[None]
    places = begin[:, None] + (axis - lead[:, None]) * ratio[:, None]
    end = draw.samples - tail - spare.neg().clamp(min=0)
    heard = axis < (end + tail)[:, None]
    inside = (axis >= lead[:, None]) & (axis < end[:, None])
    places = places.clamp(min=0).minimum(lengths[:, None] - 1)
    below = places.floor().minimum(lengths[:, None] - 2)
    between = places - below
    index = below.long() + starts[:, None]
    left, right = recordings.samples[index].float(), recordings.samples[index + 1].float()
    x = (left * (1 - between) + right * between) / 32768 * inside
    return x, inside, heard, ratio, spare <= 0


def _through_channel(x: Tensor, draw: _Draws, settings: Augmentation) -> tuple[Tensor, Tensor]:
    """Through a frequency response, a room and a band; and which clips are by telephone."""
    size = draw.samples + _REVERBERATION
    axis = torch.linspace(0, 1, size // 2 + 1, device=draw.device)
    waves = torch.tensor((0.5, 1, 2, 3, 5), device=draw.device)
    sizes = draw.normal(5) * 0.4 * draw.share(settings.response)[:, None]
    phases = math.pi * waves[:, None] * axis + 2 * math.pi * draw.uniform(5, 1)
    spectrum = torch.fft.rfft(x, size) * (sizes[..., None] * phases.cos()).sum(1).exp()
    t60 = 0.1 + 0.7 * draw.uniform()
    decay = torch.exp(-6.9 * draw.axis(_REVERBERATION) / (t60[:, None] * RATE_HZ))
    echo = draw.normal(_REVERBERATION) * decay
    gain = 10 ** (-(1 + 13 * draw.uniform()) / 20) * draw.share(settings.room)
    echo = echo * gain[:, None] / (echo.square().sum(1, keepdim=True).sqrt() + 1e-6)
    echo[:, 0] += 1
    spectrum = spectrum * torch.fft.rfft(echo, size)
    telephone = draw.share(settings.telephone)
    low_pass = draw.share(settings.low_pass) & ~telephone
    hz = axis * RATE_HZ / 2
    everything = torch.full((draw.batch,), float(RATE_HZ), device=draw.device)
    upper = torch.where(low_pass, 3500 + 4000 * draw.uniform(), everything)
    upper = torch.where(telephone, 3200 + 700 * draw.uniform(), upper)
    lower = torch.where(telephone, 100 + 250 * draw.uniform(), 0 * upper)
    band = (hz[None] < upper[:, None]) & (hz[None] >= lower[:, None])
    return torch.fft.irfft(spectrum * band, size)[:, : draw.samples], telephone


def _with_noise(x: Tensor, inside: Tensor, draw: _Draws, settings: Augmentation) -> Tensor:
    """With white or pink noise or the babble of four other clips, 2 to 30 dB below the clip."""
    level = (x.square().sum(1) / inside.sum(1).clamp(min=1) + 1e-10).sqrt()
    white = draw.normal(draw.samples)
    falling = (draw.axis(draw.samples // 2 + 1) + 1).rsqrt()
    pink = torch.fft.irfft(torch.fft.rfft(draw.normal(draw.samples)) * falling, draw.samples)
    voices = x / level[:, None]
    babble = torch.zeros_like(x)
    for _ in range(4):
        others = torch.randperm(draw.batch, device=draw.device)
        shift = int(torch.randint(draw.samples, ()))
        babble = babble + voices[others].roll(shift, 1)
    kinds = torch.stack((white, pink, babble))
    kind = torch.randint(len(kinds), (draw.batch,), device=draw.device)
    noise = kinds[kind, torch.arange(draw.batch, device=draw.device)]
    noise = noise / (noise.square().mean(1, keepdim=True).sqrt() + 1e-6)
    gain = level * 10 ** (-(2 + 28 * draw.uniform()) / 20) * draw.share(settings.noise)
    return x + noise * gain[:, None]


def mu_law(x: Tensor) -> Tensor:
    """Samples after 8-bit µ-law (G.711's curve with µ = 255)."""
    x = x.clamp(-1, 1)
    compressed = x.sign() * torch.log1p(255 * x.abs()) / math.log(256)
    rounded = torch.round(compressed * 128) / 128
    return rounded.sign() * (torch.pow(256.0, rounded.abs()) - 1) / 255


def at_8_khz(x: Tensor) -> Tensor:
    """Samples [batch, samples], a multiple of four, after a line of 8 kHz with 8-bit µ-law."""
    size = x.shape[1]
    narrow = torch.fft.irfft(torch.fft.rfft(x)[:, : size // 4 + 1], size // 2) / 2
    found: Tensor = torch.fft.irfft(torch.fft.rfft(mu_law(narrow)), size) * 2
    return found


def log_mel(x: Tensor) -> Tensor:
    """Whisper's spectrogram of samples [batch, samples] before its floor and scale, in decades,
    [batch, 80, samples / 160]."""
    window = torch.hann_window(WHISPER_WINDOW, device=x.device)
    spectrum = torch.stft(x, WHISPER_WINDOW, WHISPER_HOP, window=window, return_complex=True)
    filters = torch.from_numpy(whisper_mel_filters()).to(x.device)
    return (filters @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()


def _as_spectrogram(
    x: Tensor, heard: Tensor, draw: _Draws, settings: Augmentation
) -> tuple[Tensor, Tensor, Tensor]:
    """Whisper's spectrogram at another tempo and with masks, [batch, 80, frames]; the frames up to
    the clip's end; whether its end is within them."""
    mel = log_mel(x)
    frames = draw.axis(mel.shape[2])[None]
    top = mel.amax((1, 2), keepdim=True)
    mel = mel.maximum(top - _DYNAMIC)
    threshold = top - (3 + 3 * draw.uniform(1, 1))
    faint = draw.share(settings.floor)[:, None, None] & (mel < threshold)
    mel = torch.where(faint, top - _DYNAMIC, mel)
    last = (frames * heard[:, ::WHISPER_HOP][:, : mel.shape[2]]).amax(1)
    spread = ((2 * draw.uniform() - 1) * settings.tempo).exp()
    tempo = torch.where(draw.share(settings.tempo_share), spread, torch.ones_like(spread))
    places = frames * tempo[:, None]
    below = places.floor().long().clamp(max=mel.shape[2] - 2)[:, None].expand(-1, WHISPER_MELS, -1)
    between = (places[:, None] - below).clamp(0, 1)
    mel = mel.gather(2, below) * (1 - between) + mel.gather(2, below + 1) * between
    mask = places <= last[:, None]
    mel = torch.where(mask[:, None], mel, top - _DYNAMIC)
    for _ in range(2):
        mel = _masked(mel, 1, 12, draw, settings.masks)
        mel = _masked(mel, 2, 20, draw, settings.masks)
    return (mel + 4) / 4, mask, last / tempo < mel.shape[2]


def _masked(mel: Tensor, dimension: int, widest: int, draw: _Draws, share: float) -> Tensor:
    """With the mean in place of a stretch of one dimension."""
    size = mel.shape[dimension]
    start = (draw.uniform() * (size - widest)).floor()
    end = start + (draw.uniform() * widest).floor() * draw.share(share)
    place = draw.axis(size)[None]
    hidden = (place >= start[:, None]) & (place < end[:, None])
    return torch.where(hidden.unsqueeze(3 - dimension), mel.mean((1, 2), keepdim=True), mel)
