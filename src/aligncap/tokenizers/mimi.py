"""Mimi (Défossez et al., 2024) through transformers: 12.5 frames a second of up to 32 codebooks.

The first codebook was distilled to carry content, as SpeechTokenizer's was; the rest carry the
sound. Mimi works at 24 kHz, so waveforms are resampled.
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

from aligncap.audio.files import samples_at
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.storage import fingerprint_of_files
from aligncap.tokenizers.speechtokenizer import exact_inference, open_device
from aligncap.values import SpeechTokens, Waveform

_VERSION = 1
"""Raised when a change here changes codes."""

_CACHES = ("encoder_cache", "encoder_past_key_values", "padding_cache")
"""What one window leaves to the next; the first is called so since transformers 5.24."""

_WINDOW_FRAMES = 250
"""Frames encoded at once (20 s): bounds the memory of long audio."""

_UNHASHED = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")
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
    if path is None:
        raise MissingModelError(
            f"the mimi tokenizer needs its weights: {_HOW_TO_GET} and give FOLDER as its weights"
        )
    folder = Path(path)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise MissingModelError(
            f"{folder}: no Mimi model here (config.json and model.safetensors); "
            f"{_HOW_TO_GET} and put both files into {folder}"
        )
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


class MimiTokenizer:
    """A Mimi model as a `SpeechTokenizer`; its decoder is dropped."""

    name = "mimi"

    def __init__(self, model: MimiModel, folder: Path, *, codebooks: int, device: str) -> None:
        self._device = open_device(device)
        model.decoder = None
        self.model = model.requires_grad_(False).train(False).to(self._device)
        self.frame_rate_hz = float(model.config.frame_rate)
        self.codebook_size = int(model.config.codebook_size)
        self.codebooks = codebooks
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.fingerprint = fingerprint_of_files(
            {
                "tokenizer": "mimi",
                "version": _VERSION,
                "codebooks": codebooks,
                "config": {key: raw[key] for key in raw if key not in _UNHASHED},
            },
            sorted(folder.glob("*.safetensors")),
        )

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The codes of one utterance, [codebooks, ceil(seconds · 12.5)]; no samples, no frames."""
        if not len(waveform.samples):
            return SpeechTokens(np.zeros((self.codebooks, 0), dtype=np.int64))
        config = self.model.config
        samples = torch.from_numpy(samples_at(waveform, config.sampling_rate)).to(self._device)
        # The last frame is filled up with silence.
        signal = functional.pad(samples, (0, -len(samples) % config.frame_size))[None, None]
        with exact_inference():
            codes = self._codes(signal)
        return SpeechTokens(codes[0].cpu().numpy().astype(np.int64))

    def _codes(self, signal: Tensor) -> Tensor:
        """Codes of a signal [1, 1, time], window by window with the model's streaming caches: the
        result is that of one pass, whose memory would grow with the square of the length."""
        windows = torch.split(signal, _WINDOW_FRAMES * self.model.config.frame_size, dim=-1)
        caches: dict[str, Any] = {}
        codes = []
        for window in windows:
            encoded = self.model.encode(
                window, num_quantizers=self.codebooks, use_streaming=len(windows) > 1, **caches
            )
            codes.append(encoded.audio_codes)
            caches = {name: encoded[name] for name in _CACHES if name in encoded}
        return torch.cat(codes, dim=-1)
