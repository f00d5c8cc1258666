"""The encoder network of SpeechTokenizer: SEANet, strided convolutions around an LSTM.

Laid out as the official checkpoints are numbered, with the weight norm already folded in (see
`aligncap.speech.checkpoints`), so that reading one is a matter of names.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW_FRAMES = 1000
"""Frames whose convolutions run at once (20 s at 50 Hz): bounds the memory of long audio."""

_EDGE_KERNEL = 7
_ACTIVATIONS = ("ELU", "Snake")


@dataclass(frozen=True, slots=True)
class SeanetShape:
    """The sizes of an encoder, as a checkpoint's config.json gives them."""

    filters: int
    """Channels after the first convolution; every stride doubles them."""
    strides: tuple[int, ...]
    """Largest first, as in the file; the encoder applies the last first."""
    width: int
    """Channels of the output."""
    lstm_layers: int
    bidirectional: bool
    residual_layers: int
    residual_kernel: int
    dilation_base: int
    activation: str
    """"ELU" or "Snake"."""

    def __post_init__(self) -> None:
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, must be one of {_ACTIVATIONS}")
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides are {self.strides}, must be one or more above 0")

    @property
    def hop(self) -> int:
        """Samples to a frame."""
        return math.prod(self.strides)


class PaddedConv1d(nn.Conv1d):
    """A convolution that pads by reflection, so that n samples become ceil(n / stride) frames."""

    @property
    def reach(self) -> int:
        """Samples before its own that a frame sees (never fewer than after)."""
        return math.ceil(self._overlap() / 2)

    def _overlap(self) -> int:
        return (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]

    def forward(self, signal: Tensor) -> Tensor:
        """[batch, channels, time] → [batch, channels, ceil(time / stride)]."""
        left = self.reach
        right = self._overlap() - left + -signal.shape[-1] % self.stride[0]
        return super().forward(_reflect(signal, left, right))


def _reflect(signal: Tensor, left: int, right: int) -> Tensor:
    # Reflection needs more samples than it adds: a shorter signal is continued by zeros first,
    # and as many samples are taken off the end again.
    lack = max(0, max(left, right) + 1 - signal.shape[-1])
    padded = functional.pad(functional.pad(signal, (0, lack)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - lack]


class Snake(nn.Module):
    """x + sin²(αx) / α with one α a channel (Liu et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, signal: Tensor) -> Tensor:
        """[batch, channels, time], shape kept."""
        return signal + torch.sin(self.alpha * signal).square() / (self.alpha + 1e-9)


class ResidualBlock(nn.Module):
    """Two convolutions through half the channels beside a third of kernel 1."""

    def __init__(self, shape: SeanetShape, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        kernel = shape.residual_kernel
        self.block = nn.Sequential(
            _activation(shape, channels),
            PaddedConv1d(channels, half, kernel, dilation=dilation),
            _activation(shape, half),
            PaddedConv1d(half, channels, 1),
        )
        self.shortcut = PaddedConv1d(channels, channels, 1)

    def forward(self, signal: Tensor) -> Tensor:
        """[batch, channels, time], shape kept."""
        out: Tensor = self.shortcut(signal) + self.block(signal)
        return out


class SkipLstm(nn.Module):
    """An LSTM over time with its input added to its output, once for each direction."""

    def __init__(self, channels: int, *, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, signal: Tensor) -> Tensor:
        """[batch, channels, time] → [batch, channels · directions, time]."""
        steps = signal.permute(2, 0, 1)
        out, _ = self.lstm(steps)
        out = out + steps.repeat(1, 1, 2 if self.lstm.bidirectional else 1)
        turned: Tensor = out.permute(1, 2, 0)
        return turned


class SeanetEncoder(nn.Module):
    """Waveform to frames: [batch, 1, samples] → [batch, width, ceil(samples / hop)]."""

    def __init__(self, shape: SeanetShape) -> None:
        super().__init__()
        self.hop = shape.hop
        local = _local_layers(shape)
        self.layers = nn.Sequential(*local, *_global_layers(shape))
        self._local = len(local)
        # One frame more than the convolutions see: no edge of a window is ever kept.
        self._margin = math.ceil(_reach(self.layers[: self._local]) / self.hop) + 1

    def forward(self, signal: Tensor) -> Tensor:
        """Frames of a batch of equally long waveforms.

        Convolutions before the LSTM see a few milliseconds, so they run window by window; the
        LSTM and what follows see the whole utterance. The result is that of one pass.
        """
        frames = math.ceil(signal.shape[-1] / self.hop)
        windows = [
            self._window(signal, start, min(start + WINDOW_FRAMES, frames))
            for start in range(0, frames, WINDOW_FRAMES)
        ]
        out: Tensor = self.layers[self._local :](torch.cat(windows, dim=-1))
        return out

    def _window(self, signal: Tensor, start: int, stop: int) -> Tensor:
        first = max(0, start - self._margin)
        part = signal[..., first * self.hop : (stop + self._margin) * self.hop]
        out: Tensor = self.layers[: self._local](part)
        return out[..., start - first : stop - first]


def _activation(shape: SeanetShape, channels: int) -> nn.Module:
    return nn.ELU() if shape.activation == "ELU" else Snake(channels)


def _local_layers(shape: SeanetShape) -> list[nn.Module]:
    channels = shape.filters
    layers: list[nn.Module] = [PaddedConv1d(1, channels, _EDGE_KERNEL)]
    for stride in reversed(shape.strides):
        layers += [
            ResidualBlock(shape, channels, shape.dilation_base**number)
            for number in range(shape.residual_layers)
        ]
        layers += [
            _activation(shape, channels),
            PaddedConv1d(channels, 2 * channels, 2 * stride, stride),
        ]
        channels *= 2
    return layers


def _global_layers(shape: SeanetShape) -> list[nn.Module]:
    channels = shape.filters * 2 ** len(shape.strides)
    layers: list[nn.Module] = []
    if shape.lstm_layers:
        both = shape.bidirectional
        layers.append(SkipLstm(channels, layers=shape.lstm_layers, bidirectional=both))
        channels *= 1 + both
    layers.append(_activation(shape, channels))
    layers.append(PaddedConv1d(channels, shape.width, _EDGE_KERNEL))
    return layers


def _reach(layers: nn.Module) -> int:
    samples, scale = 0, 1
    for layer in layers.modules():
        if isinstance(layer, PaddedConv1d):
            samples += layer.reach * scale
            scale *= layer.stride[0]
    return samples
