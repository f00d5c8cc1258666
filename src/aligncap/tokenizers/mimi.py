"""Mimi (Défossez et al., 2024) through transformers: 12.5 frames a second of up to 32 codebooks.

The first codebook was taught content, as SpeechTokenizer's was; the rest carry the sound. Mimi
reads 24 kHz, so waveforms are resampled.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from transformers import MimiModel

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.storage import fingerprint_of_files
from aligncap.tokenizers.builtin import samples_at
from aligncap.tokenizers.speechtokenizer import exact_inference, open_device
from aligncap.values import SpeechTokens, Waveform

_VERSION = 1
"""Raised when a change here changes codes."""

_CACHES = ("encoder_cache", "encoder_past_key_values", "padding_cache")
"""What one window leaves to the next; the first is called so since transformers 5.24."""

_WINDOW_FRAMES = 250
"""Frames encoded at once (20 s): bounds the memory of long audio."""

_UNSPOKEN = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")
"""Entries of config.json on which no code depends."""

_HOW_TO_GET = (
    "download config.json and model.safetensors (385 MB) of https://huggingface.co/kyutai/mimi "
    "(hf download kyutai/mimi --local-dir FOLDER)"
)


def open_mimi(
    path: str | Path | None = None, *, codebooks: int = 1, device: str = "cpu"
) -> "MimiTokenizer":
    """Mimi from a local folder that holds config.json and model.safetensors.

    `codebooks` is the depth, 1 to the model's own, 32; Moshi uses 8. Raises MissingModelError that
    says what to download, DataError for damaged files, RecipeError for a depth or device out of
    range.
    """
    folder = _find(None if path is None else Path(path))
    try:
        model = MimiModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{folder}: is no Mimi model or damaged ({' '.join(str(error).split())[:200]}); "
            "download it again"
        ) from error
    config = model.config
    if not config.num_semantic_quantizers <= codebooks <= config.num_quantizers:
        raise RecipeError(
            f"codebooks is {codebooks}, must be {config.num_semantic_quantizers} to "
            f"{config.num_quantizers}, the depth of {folder}"
        )
    return MimiTokenizer(model, folder, codebooks=codebooks, device=device)


def _find(path: Path | None) -> Path:
    if path is None:
        raise MissingModelError(
            f"the mimi tokenizer needs its weights: {_HOW_TO_GET} and give FOLDER as its weights"
        )
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise MissingModelError(
            f"{path}: no Mimi model here (config.json and model.safetensors); "
            f"{_HOW_TO_GET} and put both files into {path}"
        )
    return path


class MimiTokenizer:
    """A Mimi model as a `SpeechTokenizer`; its decoder is let go of."""

    def __init__(self, model: MimiModel, folder: Path, *, codebooks: int, device: str) -> None:
        self._device = open_device(device)
        self._codebooks = codebooks
        model.decoder = None
        self.model = model.requires_grad_(False).train(False).to(self._device)
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._fingerprint = fingerprint_of_files(
            {
                "tokenizer": "mimi",
                "version": _VERSION,
                "codebooks": codebooks,
                "config": {key: raw[key] for key in raw if key not in _UNSPOKEN},
            },
            sorted(folder.glob("*.safetensors")),
        )

    @property
    def name(self) -> str:
        """The name it is opened by."""
        return "mimi"

    @property
    def frame_rate_hz(self) -> float:
        """Tokens a second and codebook: 12.5 for the published model."""
        return float(self.model.config.frame_rate)

    @property
    def codebook_size(self) -> int:
        """Entries of one codebook: 2048 for the published model."""
        return int(self.model.config.codebook_size)

    @property
    def codebooks(self) -> int:
        """The depth it was opened with."""
        return self._codebooks

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, the configuration, the depth and this module's version."""
        return self._fingerprint

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The codes of one utterance, [codebooks, ceil(seconds · 12.5)]; no samples, no frames."""
        if not len(waveform.samples):
            return SpeechTokens(np.zeros((self.codebooks, 0), dtype=np.int64))
        signal = self._whole_frames(waveform)
        with exact_inference():
            codes = self._codes(signal)
        return SpeechTokens(codes[0].cpu().numpy().astype(np.int64))

    def _whole_frames(self, waveform: Waveform) -> Tensor:
        """The waveform at Mimi's rate, [1, 1, time], its last frame filled up with silence."""
        config = self.model.config
        signal = torch.from_numpy(samples_at(waveform, config.sampling_rate))
        lack = -len(signal) % config.frame_size
        return functional.pad(signal, (0, lack)).to(self._device)[None, None]

    def _codes(self, signal: Tensor) -> Tensor:
        """Window by window with the model's own streaming caches, which gives what one pass would:
        its memory grows with the square of the length."""
        windows = torch.split(signal, _WINDOW_FRAMES * self.model.config.frame_size, dim=-1)
        caches: dict[str, Any] = {}
        codes = []
        for window in windows:
            encoded = self.model.encode(
                window,
                num_quantizers=self._codebooks,
                use_streaming=len(windows) > 1,
                **caches,
            )
            codes.append(encoded.audio_codes)
            caches = {name: encoded[name] for name in _CACHES if name in encoded}
        return torch.cat(codes, dim=-1)
