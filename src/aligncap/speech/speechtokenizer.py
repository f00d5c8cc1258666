"""SpeechTokenizer (Zhang et al., 2024), the paper's speech tokenizer (§3.1), from its checkpoint.

50 tokens a second and codebook at 16 kHz. The first codebook was taught content, the seven after it
carry what is left: timbre, pitch, loudness. The paper uses the first alone.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aligncap.errors import DataError, RecipeError
from aligncap.speech.checkpoints import (
    CheckpointConfig,
    Weights,
    codebook_part,
    encoder_part,
    find_checkpoint,
    read_config,
    read_weights,
)
from aligncap.speech.devices import exact_inference, open_device
from aligncap.speech.resampling import samples_at
from aligncap.speech.residual_quantizer import ResidualQuantizer
from aligncap.speech.seanet import SeanetEncoder
from aligncap.storage import fingerprint_of_arrays
from aligncap.values import SpeechTokens, Waveform

_VERSION = 1
"""Raised when a change here changes codes."""


def open_tokenizer(
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

    def __init__(
        self, config: CheckpointConfig, weights: Weights, *, codebooks: int, device: str
    ) -> None:
        self._config = config
        self._device = open_device(device)
        with torch.device("meta"):
            self.encoder = SeanetEncoder(config.shape)
        self.encoder.layers.load_state_dict(encoder_part(weights), assign=True)
        self.encoder.requires_grad_(False).eval().to(self._device)
        self.quantizer = ResidualQuantizer(codebook_part(weights, codebooks=codebooks))
        self.quantizer.to(self._device)
        self._fingerprint = _fingerprint(config, weights, codebooks)

    @property
    def name(self) -> str:
        """The name it is opened by."""
        return "speechtokenizer"

    @property
    def frame_rate_hz(self) -> float:
        """Tokens a second and codebook: 50 for the official checkpoint."""
        return self._config.rate_hz / self._config.shape.hop

    @property
    def codebook_size(self) -> int:
        """Entries of one codebook: 1024 for the official checkpoint."""
        return self._config.codebook_size

    @property
    def codebooks(self) -> int:
        """The RVQ depth it was opened with."""
        return len(self.quantizer.codebooks)

    @property
    def fingerprint(self) -> str:
        """A hash of the encoder, the codebooks in use and this module's version."""
        return self._fingerprint

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The codes of one utterance, [codebooks, ceil(samples / 320)]; no samples, no frames."""
        if not len(waveform.samples):
            return SpeechTokens(np.zeros((self.codebooks, 0), dtype=np.int64))
        with exact_inference():
            codes = self.quantizer(self.features(waveform))
        return SpeechTokens(codes.cpu().numpy())

    def features(self, waveform: Waveform) -> Tensor:
        """What the encoder gives before quantisation: float32 [frames, width]."""
        samples = torch.from_numpy(samples_at(waveform, self._config.rate_hz)).to(self._device)
        with exact_inference():
            frames: Tensor = self.encoder(samples[None, None])[0].T
        return frames


def _fingerprint(config: CheckpointConfig, weights: Weights, codebooks: int) -> str:
    """Over the official tensors, before weight norm is folded: that may round by machine."""
    settings = {"tokenizer": "speechtokenizer", "version": _VERSION, "codebooks": codebooks}
    return fingerprint_of_arrays(
        {**settings, "rate_hz": config.rate_hz, "shape": asdict(config.shape)},
        _arrays_in_use(weights, codebooks),
    )


def _arrays_in_use(weights: Weights, codebooks: int) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for name in sorted(weights):
        if name.startswith("encoder."):
            yield name, weights[name].numpy()
    yield "codebooks", codebook_part(weights, codebooks=codebooks).numpy()
