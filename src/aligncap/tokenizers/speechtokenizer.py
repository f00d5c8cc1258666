"""SpeechTokenizer (Zhang et al., 2024), the paper's speech tokenizer (§3.1), from its checkpoint.

50 tokens a second and codebook at 16 kHz. The first codebook was distilled from HuBERT to carry
content; the seven after it carry the rest: timbre, pitch, loudness. The paper uses the first alone.
Only the encoder (SEANet: strided convolutions around an LSTM) and the codebooks are read. Layers
are laid out as official checkpoints number them, so that reading one is a matter of names.
"""

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from aligncap.audio.files import samples_at
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.storage import fingerprint_of_arrays
from aligncap.values import SpeechTokens, Waveform


def open_device(name: str) -> torch.device:
    """The device of that name, "cpu" or "cuda"; RecipeError if this machine has none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"device is {name!r}, which torch does not have on this machine; use 'cpu'"
        ) from error
    return device


@contextmanager
def exact_inference() -> Iterator[None]:
    """No gradients and no TF32, whose ten-bit mantissa would move codes between CPU and GPU."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


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
    """Two convolutions through half the channels, and a shortcut convolution of kernel 1."""

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
        channels = shape.filters
        layers: list[nn.Module] = [PaddedConv1d(1, channels, _EDGE_KERNEL)]
        for stride in reversed(shape.strides):
            dilations = [shape.dilation_base**number for number in range(shape.residual_layers)]
            layers += [ResidualBlock(shape, channels, dilation) for dilation in dilations]
            layers.append(_activation(shape, channels))
            layers.append(PaddedConv1d(channels, 2 * channels, 2 * stride, stride))
            channels *= 2
        self._local = len(layers)
        reach, scale = 0, 1
        for layer in nn.Sequential(*layers).modules():
            if isinstance(layer, PaddedConv1d):
                reach += layer.reach * scale
                scale *= layer.stride[0]
        # One frame more than the convolutions see: no edge of a window is ever kept.
        self._margin = math.ceil(reach / self.hop) + 1
        if shape.lstm_layers:
            both = shape.bidirectional
            layers.append(SkipLstm(channels, layers=shape.lstm_layers, bidirectional=both))
            channels *= 1 + both
        layers.append(_activation(shape, channels))
        layers.append(PaddedConv1d(channels, shape.width, _EDGE_KERNEL))
        self.layers = nn.Sequential(*layers)

    def forward(self, signal: Tensor) -> Tensor:
        """Frames of a batch of equally long waveforms.

        Convolutions before the LSTM see a few milliseconds, so they run window by window, which
        bounds memory; the LSTM and what follows see the whole utterance. The result is that of one
        pass.
        """
        frames = math.ceil(signal.shape[-1] / self.hop)
        windows = []
        for start in range(0, frames, WINDOW_FRAMES):
            stop = min(start + WINDOW_FRAMES, frames)
            first = max(0, start - self._margin)
            part = signal[..., first * self.hop : (stop + self._margin) * self.hop]
            windows.append(self.layers[: self._local](part)[..., start - first : stop - first])
        out: Tensor = self.layers[self._local :](torch.cat(windows, dim=-1))
        return out


def _activation(shape: SeanetShape, channels: int) -> nn.Module:
    return nn.ELU() if shape.activation == "ELU" else Snake(channels)


_BLOCK_FRAMES = 4096


class ResidualQuantizer(nn.Module):
    """Residual vector quantisation: codebooks [depth, entries, width], each of the residual left by
    those before it."""

    codebooks: Tensor

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        self.register_buffer("codebooks", codebooks)

    def forward(self, features: Tensor) -> Tensor:
        """[frames, width] → int64 [depth, frames]: in each codebook the nearest entry."""
        # In blocks, since frames × entries distances of an hour of speech would take a gigabyte.
        blocks = [self._codes(block) for block in torch.split(features, _BLOCK_FRAMES)]
        return torch.cat(blocks, dim=1)

    def _codes(self, residual: Tensor) -> Tensor:
        codes = []
        for codebook in self.codebooks:
            nearest = squared_distances(residual, codebook).argmin(dim=1)
            residual = residual - functional.embedding(nearest, codebook)
            codes.append(nearest)
        return torch.stack(codes)


def squared_distances(points: Tensor, entries: Tensor) -> Tensor:
    """‖point − entry‖² for points [n, width] and entries [m, width]: [n, m]."""
    # Expanded and summed in this order, a near tie rounds as it does in the official module.
    return (
        points.square().sum(1, keepdim=True)
        - 2 * points @ entries.T
        + entries.square().sum(1)[None, :]
    )


WEIGHTS = ("SpeechTokenizer.safetensors", "model.safetensors", "SpeechTokenizer.pt", "ckpt.dev")
"""File names of weights, in the order they are looked for."""

FOLDER = "speechtokenizer_hubert_avg"
"""The folder of the official checkpoint; found inside the folder that is given, too."""

_HOW_TO_GET = (
    f"download config.json and SpeechTokenizer.pt (482 MB) of the folder {FOLDER} of "
    "https://huggingface.co/fnlp/SpeechTokenizer (hf download fnlp/SpeechTokenizer "
    f'--include "{FOLDER}/*" --local-dir FOLDER)'
)

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """The encoder and its quantiser as config.json describes them."""

    shape: SeanetShape
    rate_hz: int
    depth: int
    """Codebooks the checkpoint has."""
    codebook_size: int


def find_checkpoint(path: Path | None) -> tuple[Path, Path]:
    """Its config.json and its weights: `path` is their folder or the weights file itself.

    Raises MissingModelError that says what to download and where to put it.
    """
    if path is None:
        raise MissingModelError(
            f"the speechtokenizer tokenizer needs its weights: {_HOW_TO_GET} "
            "and give FOLDER as its weights"
        )
    candidates = [folder / name for folder in (path, path / FOLDER) for name in WEIGHTS]
    for weights in (path, *candidates):
        config = weights.parent / "config.json"
        if weights.is_file() and config.is_file():
            return config, weights
    raise MissingModelError(
        f"{path}: no SpeechTokenizer checkpoint here (config.json beside one of "
        f"{', '.join(WEIGHTS)}); {_HOW_TO_GET} and put both files into {path}"
    )


def read_config(path: Path) -> CheckpointConfig:
    """The config.json of a checkpoint; DataError where it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return CheckpointConfig(
            shape=SeanetShape(
                filters=int(raw["n_filters"]),
                strides=tuple(int(stride) for stride in raw["strides"]),
                width=int(raw["dimension"]),
                lstm_layers=int(raw["lstm_layers"]),
                bidirectional=bool(raw["bidirectional"]),
                residual_layers=int(raw["n_residual_layers"]),
                residual_kernel=int(raw["residual_kernel_size"]),
                dilation_base=int(raw["dilation_base"]),
                activation=str(raw["activation"]),
            ),
            rate_hz=int(raw["sample_rate"]),
            depth=int(raw["n_q"]),
            codebook_size=int(raw["codebook_size"]),
        )
    except KeyError as error:
        raise DataError(
            f"{path}: has no {error.args[0]}; take the config.json that came with the weights"
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is no SpeechTokenizer configuration ({error}); download it again"
        ) from error


def read_weights(path: Path) -> Weights:
    """Every tensor of a checkpoint by its official name, on the CPU; no code in it is run.

    Raises DataError for a file that is cut off or is something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as a checkpoint ({reason}); download it again"
        ) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise DataError(f"{path}: holds no table of tensors; download SpeechTokenizer.pt again")
    return dict(loaded)


# Both ways torch has named the length and the direction of a normed weight.
_LENGTH = re.compile(r"^(.*)\.(?:weight_g|parametrizations\.weight\.original0)$")
_DIRECTION = re.compile(r"^(.*)\.(?:weight_v|parametrizations\.weight\.original1)$")


def encoder_part(weights: Weights) -> Weights:
    """The encoder's tensors under the names of `SeanetEncoder.layers`, weight norm folded in."""
    part = {
        name.removeprefix("encoder.model.").replace(".conv.conv.", "."): tensor
        for name, tensor in weights.items()
        if name.startswith("encoder.model.")
    }
    lengths = {match[1]: part[name] for name in part if (match := _LENGTH.match(name))}
    plain = {}
    for name, tensor in part.items():
        if match := _DIRECTION.match(name):
            layer = match[1]
            # w = g · v / ‖v‖, one norm an output channel (Salimans and Kingma, 2016). Written out
            # it would not round as torch's own kernel does, and near ties would change codes.
            plain[f"{layer}.weight"] = torch._weight_norm(tensor, lengths[layer], 0)
        elif not _LENGTH.match(name):
            plain[name] = tensor
    return plain


def codebook_part(weights: Weights, *, codebooks: int) -> Tensor:
    """The first `codebooks` codebooks: [codebooks, entries, width]; KeyError if one is missing."""
    return torch.stack(
        [weights[f"quantizer.vq.layers.{number}._codebook.embed"] for number in range(codebooks)]
    )


_VERSION = 1
"""Raised when a change here changes codes."""


def open_speechtokenizer(
    path: str | Path | None = None, *, codebooks: int = 1, device: str = "cpu"
) -> "CheckpointTokenizer":
    """The tokenizer of a checkpoint: `path` is the folder of config.json and SpeechTokenizer.pt.

    `codebooks` is the RVQ depth, 1 (the paper) to the checkpoint's own, 8. Raises
    MissingModelError, DataError for damaged files, RecipeError for a depth or device out of range.
    """
    config_file, weights_file = find_checkpoint(None if path is None else Path(path))
    config = read_config(config_file)
    if not 1 <= codebooks <= config.depth:
        raise RecipeError(
            f"codebooks is {codebooks}, must be 1 to {config.depth}, the depth of {weights_file}"
        )
    weights = read_weights(weights_file)
    try:
        return CheckpointTokenizer(config, weights, codebooks=codebooks, device=device)
    except (KeyError, RuntimeError) as error:
        raise DataError(
            f"{weights_file}: does not fit {config_file.name} beside it "
            f"({' '.join(str(error).split())[:200]}); download both files again"
        ) from error


class CheckpointTokenizer:
    """A SpeechTokenizer checkpoint as a `SpeechTokenizer`; its decoder is left out."""

    name = "speechtokenizer"

    def __init__(
        self, config: CheckpointConfig, weights: Weights, *, codebooks: int, device: str
    ) -> None:
        self._rate_hz = config.rate_hz
        self._device = open_device(device)
        with torch.device("meta"):
            self.encoder = SeanetEncoder(config.shape)
        self.encoder.layers.load_state_dict(encoder_part(weights), assign=True)
        self.encoder.requires_grad_(False).eval().to(self._device)
        self.quantizer = ResidualQuantizer(codebook_part(weights, codebooks=codebooks))
        self.quantizer.to(self._device)
        self.frame_rate_hz = config.rate_hz / config.shape.hop
        self.codebook_size = config.codebook_size
        self.codebooks = codebooks
        # Over the official tensors: folding in the weight norm may round by machine.
        used = [(n, weights[n].numpy()) for n in sorted(weights) if n.startswith("encoder.")]
        used.append(("codebooks", self.quantizer.codebooks.cpu().numpy()))
        settings = {"tokenizer": self.name, "version": _VERSION, "codebooks": codebooks}
        self.fingerprint = fingerprint_of_arrays(
            {**settings, "rate_hz": config.rate_hz, "shape": asdict(config.shape)}, used
        )

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The codes of one utterance, [codebooks, ceil(samples / 320)]; no samples, no frames."""
        if not len(waveform.samples):
            return SpeechTokens(np.zeros((self.codebooks, 0), dtype=np.int64))
        with exact_inference():
            codes = self.quantizer(self.features(waveform))
        return SpeechTokens(codes.cpu().numpy())

    def features(self, waveform: Waveform) -> Tensor:
        """The encoder's output before quantisation: float32 [frames, width]."""
        samples = torch.from_numpy(samples_at(waveform, self._rate_hz)).to(self._device)
        with exact_inference():
            frames: Tensor = self.encoder(samples[None, None])[0].T
        return frames
