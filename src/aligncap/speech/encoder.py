"""The built-in speech encoder: spectrogram and prosody in, 12.5 discrete tokens a second out.

Convolutions see 200 ms, attention sees the whole utterance, and a vector-quantised bottleneck
with one codebook turns every 80 ms into a token. Its heads read emotion, gender, pace and the
signal itself back from the *quantised* vectors, so that whatever they need has to be in the
tokens: how it is said, not what.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from aligncap.acoustics.frontend import MELS
from aligncap.speech.features import FRAMES_A_TOKEN, PROSODY, VIEWS
from aligncap.speech.quantizer import VectorQuantizer
from aligncap.values import EMOTIONS

_MASKED = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Size of the encoder."""

    width: int = 160
    channels: int = 16
    """Of the first convolution; the third has three times as many."""
    convolutions: int = 3
    """Residual convolutions at 25 Hz."""
    layers: int = 3
    """Transformer layers at 12.5 Hz."""
    heads: int = 4
    codebook_size: int = 512
    code_width: int = 32
    dropout: float = 0.15
    prosody: bool = True
    """Whether the prosody stream is heard."""
    band_view: bool = True
    """Whether the second, per-band normalised view is heard."""


class Reading(NamedTuple):
    """What the encoder makes of a batch; `tokens` is frames / 8, rounded up."""

    codes: Tensor
    """Int64, shape [batch, tokens]."""
    emotion: Tensor
    """Logits, shape [batch, 8]."""
    gender: Tensor
    """Logit of a female voice, shape [batch]."""
    pace: Tensor
    """Logarithm of syllables a second, shape [batch]."""
    signal: Tensor
    """Mean input of each token's frames, shape [batch, tokens, 64 + 6]."""
    heard: Tensor
    """1 for tokens of the utterance, 0 for padding, shape [batch, tokens]."""
    commitment: Tensor
    """Mean squared distance from vectors to their codebook entries, a scalar."""


class ResidualConvolution(nn.Module):
    """A dilated convolution over time with a short cut around it."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.spread = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(width)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """`x` [batch, width, time], `heard` [batch, time] → [batch, width, time]."""
        y = functional.silu(self.norm(self.spread(x * heard[:, None])))
        added: Tensor = self.dropout(self.mix(y))
        return x + added


class TransformerLayer(nn.Module):
    """Self-attention, which may learn to prefer near tokens, and a feed-forward network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        # Some heads begin as local, some as global.
        self.slope = nn.Parameter(torch.linspace(0.0, 0.3, heads))

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """`x` [batch, time, width], `heard` [batch, time] → [batch, time, width]."""
        batch, time, width = x.shape
        shaped = self.projections(self.attention_norm(x)).view(batch, time, 3, self.heads, -1)
        query, key, value = shaped.permute(2, 0, 3, 1, 4)
        place = torch.arange(time, device=x.device, dtype=x.dtype)
        nearness = -(place[:, None] - place).abs() * functional.relu(self.slope)[:, None, None]
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads) + nearness
        weights = (scores + (1.0 - heard[:, None, None]) * _MASKED).softmax(-1)
        attended = (weights @ value).transpose(1, 2).reshape(batch, time, width)
        x = x + self.dropout(self.output(attended))
        added: Tensor = self.dropout(self.feedforward(self.feedforward_norm(x)))
        return x + added


class SpeechEncoder(nn.Module):
    """The built-in tokenizer's network."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.channels
        views = VIEWS if config.band_view else 1
        self.front = nn.ModuleList(
            (
                nn.Conv2d(views, channels, 5, stride=2, padding=2),
                nn.Conv2d(channels, 2 * channels, 3, stride=(1, 2), padding=1),
                nn.Conv2d(2 * channels, 3 * channels, 3, stride=(1, 2), padding=1),
            )
        )
        self.front_norms = nn.ModuleList(nn.BatchNorm2d((n + 1) * channels) for n in range(3))
        self.spectrum = nn.Linear(3 * channels * MELS // 8, width)
        self.prosody = nn.Sequential(
            nn.Conv1d(PROSODY, 48, 9, stride=2, padding=4),
            nn.SiLU(),
            nn.Conv1d(48, width, 5, stride=2, padding=2),
        )
        self.front_dropout = nn.Dropout(config.dropout)
        self.convolutions = nn.ModuleList(
            ResidualConvolution(width, n + 1, config.dropout) for n in range(config.convolutions)
        )
        self.shorten = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.quantizer = VectorQuantizer(width, config.codebook_size, config.code_width)
        self.attend = nn.Linear(width, 1)
        self.summary = nn.Sequential(nn.Linear(2 * width, 128), nn.SiLU(), nn.Dropout(0.2))
        self.emotion = nn.Linear(128, len(EMOTIONS))
        self.gender = nn.Linear(128, 1)
        self.pace = nn.Linear(128, 1)
        self.signal = nn.Sequential(
            nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, MELS + PROSODY)
        )

    def forward(
        self, views: Tensor, prosody: Tensor, frames_heard: Tensor, *, quantize: bool = True
    ) -> Reading:
        """Read a batch: `views` [batch, 2, frames, 64], `prosody` [batch, frames, 6] and
        `frames_heard` [batch, frames] (1 for the utterance, 0 for padding); frames is a multiple
        of 8. Without `quantize` the heads see vectors that are not rounded to the codebook."""
        x = self._listen(views, prosody, frames_heard[:, :: FRAMES_A_TOKEN // 2])
        heard = frames_heard[:, ::FRAMES_A_TOKEN]
        for layer in self.layers:
            x = layer(x, heard)
        x = self.norm(x)
        x, codes, commitment = self.quantizer(x, heard, rounding=quantize)
        summary = self.summary(self._pool(x, heard))
        return Reading(
            codes,
            self.emotion(summary),
            self.gender(summary)[:, 0],
            self.pace(summary)[:, 0],
            self.signal(x),
            heard,
            commitment,
        )

    def _listen(self, views: Tensor, prosody: Tensor, heard: Tensor) -> Tensor:
        """Convolutions from 100 Hz to 12.5 Hz; returns [batch, tokens, width]."""
        # Averaging pairs of frames first halves the cost and loses nothing that was measured.
        x = functional.avg_pool2d(views[:, : self.front[0].in_channels], (2, 1))
        x = x.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.front, self.front_norms, strict=True):
            x = functional.silu(norm(convolution(x)))
        x = self.spectrum(x.permute(0, 2, 1, 3).flatten(2))
        if self.config.prosody:
            x = x + self.prosody(prosody.transpose(1, 2)).transpose(1, 2)
        x = self.front_dropout(x).transpose(1, 2)
        for convolution in self.convolutions:
            x = convolution(x, heard)
        shortened: Tensor = self.shorten(x * heard[:, None]).transpose(1, 2)
        return shortened

    def _pool(self, x: Tensor, heard: Tensor) -> Tensor:
        """Attention-weighted mean and deviation over tokens, shape [batch, 2 · width]."""
        weights = (self.attend(x) + (heard[..., None] - 1.0) * -_MASKED).softmax(1)
        mean = (x * weights).sum(1)
        variance = (x.square() * weights).sum(1) - mean.square()
        return torch.cat((mean, variance.clamp(min=1e-4).sqrt()), dim=1)
