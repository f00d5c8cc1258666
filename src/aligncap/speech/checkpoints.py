"""Reading SpeechTokenizer checkpoints: the official .pt file or the same tensors as safetensors."""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aligncap.errors import DataError, MissingModelError
from aligncap.speech.seanet import SeanetShape

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
    """What config.json says of the encoder and its quantiser."""

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


def encoder_part(weights: Weights) -> Weights:
    """The encoder's tensors under the names of `SeanetEncoder.layers`, weight norm folded in."""
    part = {
        name.removeprefix("encoder.model.").replace(".conv.conv.", "."): tensor
        for name, tensor in weights.items()
        if name.startswith("encoder.model.")
    }
    return _without_weight_norm(part)


def codebook_part(weights: Weights, *, codebooks: int) -> Tensor:
    """The first `codebooks` codebooks: [codebooks, entries, width]; KeyError if one is missing."""
    return torch.stack(
        [weights[f"quantizer.vq.layers.{number}._codebook.embed"] for number in range(codebooks)]
    )


# Both ways torch has named the length and the direction of a normed weight.
_LENGTH = re.compile(r"^(.*)\.(?:weight_g|parametrizations\.weight\.original0)$")
_DIRECTION = re.compile(r"^(.*)\.(?:weight_v|parametrizations\.weight\.original1)$")


def _without_weight_norm(part: Weights) -> Weights:
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
