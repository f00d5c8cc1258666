"""The lower layers of a pretrained Whisper encoder (Radford et al. 2022), as a start for our own.

Weights are read from where users have them: a name on the Hugging Face hub ("openai/whisper-tiny"),
a folder of transformers, or CTranslate2's model.bin. Only what is asked for is kept: convolutions,
positions, and the first layers.

A clip is not padded to 30 seconds: its frames take the first positions.
"""

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from aligncap.errors import DataError, MissingModelError
from aligncap.tokenizers.builtin import LONGEST_FRAMES, WHISPER_MELS

Floats = NDArray[np.float32]


Attention = Callable[[Tensor, int, Tensor], Tensor]


def self_attention(projected: Tensor, heads: int, mask: Tensor) -> Tensor:
    """What each time attends to: `projected` [batch, time, 3 · width] are queries, keys and values,
    `mask` [batch, time] is True within the clip; [batch, time, width]."""
    batch, time, _ = projected.shape
    query, key, value = projected.view(batch, time, 3, heads, -1).permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None, None]
    )
    return attended.transpose(1, 2).reshape(batch, time, -1)


class WhisperLayer(nn.Module):
    """A layer of Whisper's encoder: self-attention and a feed-forward network, norms first."""

    attention: Attention
    """`self_attention`, or the same in another form."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attention = self_attention
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` [batch, time, width], `mask` [batch, time] (True within the clip) → as `x`."""
        projected = self.projections(self.attention_norm(x))
        attended = self.output(self.attention(projected, self.heads, mask))
        x = x + self.dropout(attended)
        inner = self.dropout(functional.gelu(self.wide(self.feedforward_norm(x))))
        added: Tensor = self.dropout(self.narrow(inner))
        return x + added


class WhisperLayers(nn.Module):
    """Whisper's convolutions and its first layers, 50 vectors a second."""

    positions: Tensor

    def __init__(self, width: int, layers: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv1d(WHISPER_MELS, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(LONGEST_FRAMES // 2, width))
        self.layers = nn.ModuleList(WhisperLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, mel: Tensor, mask: Tensor) -> list[Tensor]:
        """`mel` [batch, frames, 80], `mask` [batch, ⌈frames / 2⌉] → after the convolutions and
        after each layer, [batch, ⌈frames / 2⌉, width]."""
        outputs = [self.convolved(mel)]
        for layer in self.layers:
            outputs.append(layer(outputs[-1], mask))
        return outputs

    def convolved(self, mel: Tensor) -> Tensor:
        """What the first layer gets of `mel` [batch, frames, 80], [batch, ⌈frames / 2⌉, width]."""
        x = functional.gelu(self.first(mel.transpose(1, 2)))
        x = functional.gelu(self.second(x)).transpose(1, 2)
        return x + self.positions[: x.shape[1]]


def load_whisper(source: str | Path, layers: int) -> WhisperLayers:
    """The convolutions and the first `layers` of a Whisper encoder, in evaluation mode.

    `source` is a name on the hub, a folder of transformers, or a folder or file of CTranslate2.
    Raises MissingModelError where it is not here, DataError where it is no Whisper or too shallow.
    """
    path = Path(source)
    file = path / "model.bin" if path.is_dir() else path
    if file.suffix == ".bin" and file.is_file() and not (path / "pytorch_model.bin").exists():
        weights = _named(read_ctranslate2(file), file, layers)
    else:
        weights = _from_transformers(str(source), layers)
    width = weights["second.bias"].shape[0]
    model = WhisperLayers(width, layers, width // 64)
    model.load_state_dict(weights)
    return model.eval()


def read_ctranslate2(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float variables of a model.bin of CTranslate2 (version 6), by name; DataError for
    another file, or one that is cut."""
    kinds = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    found: dict[str, NDArray[np.float32]] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        version, spec = _number(file, "I", path), _text(file, path)
        if version != 6 or spec != "WhisperSpec":
            raise DataError(f"{path}: is no Whisper of CTranslate2 (it begins {version}, {spec!r})")
        _number(file, "I", path)  # the revision
        for _ in range(_number(file, "I", path)):
            name, shape = _text(file, path), [0] * _number(file, "B", path)
            shape = [_number(file, "I", path) for _ in shape]
            kind, length = _number(file, "B", path), _number(file, "I", path)
            itemsize = np.dtype(kinds.get(kind, np.int8)).itemsize
            if length > size or (kind in kinds and length != math.prod(shape) * itemsize):
                raise DataError(f"{path}: {name} has {length} bytes; download the file again")
            data = file.read(length)
            if len(data) < length:
                raise DataError(f"{path}: is cut short in {name}; download the file again")
            if kind in (0, 4):
                values = np.frombuffer(data, kinds[kind]).reshape(shape)
                found[name] = values.astype(np.float32)
    return found


def _number(file: BinaryIO, kind: str, path: Path) -> int:
    data = file.read(struct.calcsize("<" + kind))
    if len(data) < struct.calcsize("<" + kind):
        raise DataError(f"{path}: is cut short; download the file again")
    number: int = struct.unpack("<" + kind, data)[0]
    return number


def _text(file: BinaryIO, path: Path) -> str:
    return file.read(_number(file, "H", path)).rstrip(b"\0").decode("utf-8", "replace")


_OF_LAYER = {
    "attention_norm.weight": "self_attention/layer_norm/gamma",
    "attention_norm.bias": "self_attention/layer_norm/beta",
    "projections.weight": "self_attention/linear_0/weight",
    "projections.bias": "self_attention/linear_0/bias",
    "output.weight": "self_attention/linear_1/weight",
    "output.bias": "self_attention/linear_1/bias",
    "feedforward_norm.weight": "ffn/layer_norm/gamma",
    "feedforward_norm.bias": "ffn/layer_norm/beta",
    "wide.weight": "ffn/linear_0/weight",
    "wide.bias": "ffn/linear_0/bias",
    "narrow.weight": "ffn/linear_1/weight",
    "narrow.bias": "ffn/linear_1/bias",
}
_BEFORE_LAYERS = {
    "first.weight": "conv1/weight",
    "first.bias": "conv1/bias",
    "second.weight": "conv2/weight",
    "second.bias": "conv2/bias",
    "positions": "position_encodings/encodings",
}


def _named(found: Mapping[str, Floats], path: Path, layers: int) -> dict[str, Tensor]:
    """CTranslate2's variables by our names."""
    names = {ours: f"encoder/{theirs}" for ours, theirs in _BEFORE_LAYERS.items()}
    for n in range(layers):
        names |= {f"layers.{n}.{o}": f"encoder/layer_{n}/{t}" for o, t in _OF_LAYER.items()}
    for theirs in names.values():
        if theirs not in found:
            raise DataError(f"{path}: has no {theirs}; ask for fewer than {layers} layers")
    return {ours: torch.from_numpy(found[theirs].copy()) for ours, theirs in names.items()}


def _download(source: str) -> str:
    """The command that puts a Whisper where it was looked for: a name on the hub, or a folder."""
    folder, name = Path(source).parent, Path(source).name
    if str(folder) == "openai":
        return f"hf download {source}"
    name = name if name.startswith("whisper-") else "whisper-tiny"
    return f"hf download openai/{name} --local-dir {source}"


def _from_transformers(source: str, layers: int) -> dict[str, Tensor]:
    """The weights of transformers' WhisperEncoder by our names."""
    from transformers import WhisperModel

    try:
        encoder = WhisperModel.from_pretrained(source, local_files_only=True).get_encoder()
    except OSError as error:
        raise MissingModelError(
            f"{source}: no such Whisper here; fetch it with `{_download(source)}`, or give a "
            "folder with model.bin of CTranslate2"
        ) from error
    if len(encoder.layers) < layers:
        raise DataError(f"{source}: has {len(encoder.layers)} layers, not {layers}")
    weights = {
        **{f"first.{k}": v for k, v in encoder.conv1.state_dict().items()},
        **{f"second.{k}": v for k, v in encoder.conv2.state_dict().items()},
        "positions": encoder.embed_positions.weight,
    }
    for n, layer in enumerate(encoder.layers[:layers]):
        attention = layer.self_attn
        bias = (attention.q_proj.bias, torch.zeros_like(attention.q_proj.bias))
        parts: dict[str, Tensor] = {
            "projections.weight": torch.cat(
                [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
            ),
            "projections.bias": torch.cat([*bias, attention.v_proj.bias]),
        }
        for ours, theirs in {
            "attention_norm": layer.self_attn_layer_norm,
            "output": attention.out_proj,
            "feedforward_norm": layer.final_layer_norm,
            "wide": layer.fc1,
            "narrow": layer.fc2,
        }.items():
            parts |= {f"{ours}.{k}": v for k, v in theirs.state_dict().items()}
        weights |= {f"layers.{n}.{name}": value for name, value in parts.items()}
    return {name: value.detach().clone() for name, value in weights.items()}
