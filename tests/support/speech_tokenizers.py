"""Small models, a fake tokenizer and made-up sound for the tests of speech tokens."""

import hashlib
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from aligncap.values import RATE_HZ, SpeechTokens, Waveform

CONFIG = {
    "n_filters": 8,
    "strides": [8, 5, 4, 2],
    "dimension": 64,
    "semantic_dimension": 48,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 32,
    "n_q": 8,
    "sample_rate": 16000,
}
"""The official configuration with an eighth of the channels."""


def noise(samples: int, seed: int = 0) -> Waveform:
    """Noise at a tenth of full scale, its loudness varying as in speech."""
    rng = np.random.default_rng(seed)
    swell = 0.1 * (1.1 + np.sin(np.arange(samples) / 2000))
    return Waveform((swell * rng.standard_normal(samples)).clip(-1, 1).astype(np.float32))


@dataclass
class FakeTokenizer:
    """Names every 320 samples by a hash of them, and counts how often it is asked."""

    name: str = "fake"
    frame_rate_hz: float = 50.0
    codebook_size: int = 1024
    codebooks: int = 2
    fingerprint: str = "f" * 64
    asked: list[str] = field(default_factory=list)

    def encode(self, waveform: Waveform) -> SpeechTokens:
        self.asked.append(waveform.source)

        def code(book: int, start: int) -> int:
            frame = waveform.samples[start : start + 320].tobytes()
            drawn = hashlib.sha256(bytes([book]) + frame).digest()[:4]
            return int.from_bytes(drawn) % self.codebook_size

        starts = range(0, len(waveform.samples), 320)
        codes = [[code(book, start) for start in starts] for book in range(self.codebooks)]
        readout = {"emotion": {"sad": 0.75, "angry": 0.25}}
        return SpeechTokens(np.array(codes, dtype=np.int64).reshape(self.codebooks, -1), readout)


@dataclass(frozen=True)
class Clip:
    """The least that a cache asks of an utterance."""

    id: str
    path: Path


def official_model(
    module: ModuleType, config: dict[str, Any], state: dict[str, Any] | None = None
) -> Any:
    """The official model, of random weights or with the encoder and codebooks of `state`."""
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.nn.utils.weight_norm is an old way
        model = module.SpeechTokenizer(config).eval()
    if state:
        known = {name: tensor for name, tensor in state.items() if "decoder" not in name}
        missing, unexpected = model.load_state_dict(known, strict=False)
        assert not unexpected
        assert not any("encoder" in name for name in missing)
    return model


def draw_codebooks(frames: Any, *, depth: int, entries: int) -> Any:
    """Codebooks [depth, entries, width] out of what frames [n, width] leave over.

    Random codebooks would not do: a random encoder moves so little that one entry would be nearest
    to every frame.
    """
    import torch

    books = []
    for _ in range(depth):
        order = torch.randperm(len(frames))
        books.append(frames[order[:entries]])
        # What became an entry leaves nothing over: the next codebook is drawn from the others.
        frames = frames[order[entries:]]
        frames = frames - books[-1][torch.cdist(frames, books[-1]).argmin(1)]
    return torch.stack(books)


def official_state(config: dict[str, Any], *, noise_s: int = 6) -> dict[str, Any]:
    """The encoder and codebooks of a checkpoint of random weights, as their authors name them.

    Made without their package, so that only the comparison with it needs it. The codebooks are
    drawn from what the encoder gives of `noise_s` of noise.
    """
    import torch

    from aligncap.tokenizers.speechtokenizer import PaddedConv1d, SeanetEncoder

    torch.manual_seed(0)
    encoder = SeanetEncoder(shape_of(config))
    state = {}
    for name, layer in encoder.layers.named_modules():
        if isinstance(layer, PaddedConv1d):
            place = f"encoder.model.{name}.conv.conv"
            state[f"{place}.weight_g"] = layer.weight.detach().flatten(1).norm(dim=1)[:, None, None]
            state[f"{place}.weight_v"] = 3 * layer.weight.detach()  # its length says nothing
            state[f"{place}.bias"] = layer.bias.detach()
        elif isinstance(layer, torch.nn.LSTM):
            state |= {f"encoder.model.{name}.{key}": v for key, v in layer.state_dict().items()}
    with torch.no_grad():
        frames = encoder(torch.from_numpy(noise(noise_s * RATE_HZ, 99).samples)[None, None])[0].T
    books = draw_codebooks(frames, depth=config["n_q"], entries=config["codebook_size"])
    for number, book in enumerate(books):
        state[f"quantizer.vq.layers.{number}._codebook.embed"] = book.clone()
    state["decoder.model.0.conv.conv.bias"] = torch.zeros(4)
    return state


def shape_of(config: dict[str, Any]) -> Any:
    """The encoder sizes of a configuration."""
    from aligncap.tokenizers.speechtokenizer import SeanetShape

    return SeanetShape(
        filters=config["n_filters"],
        strides=tuple(config["strides"]),
        width=config["dimension"],
        lstm_layers=config["lstm_layers"],
        bidirectional=config["bidirectional"],
        residual_layers=config["n_residual_layers"],
        residual_kernel=config["residual_kernel_size"],
        dilation_base=config["dilation_base"],
        activation=config["activation"],
    )


def save_checkpoint(state: dict[str, Any], folder: Path, config: dict[str, Any]) -> Path:
    """A checkpoint as its authors publish it; returns its folder."""
    import torch

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "SpeechTokenizer.pt")
    return folder


def save_whisper(folder: Path, *, layers: int = 1, seed: int = 0) -> Path:
    """The folder of a small Whisper of random weights, always the same for a seed."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    config = WhisperConfig(
        d_model=64, encoder_layers=layers, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=256, decoder_ffn_dim=16, vocab_size=40,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder
