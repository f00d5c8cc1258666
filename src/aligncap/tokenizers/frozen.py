"""Whisper's lower layers as they were published, frozen: vectors of speech, and codes of them.

The start that systems of other makers and ours share where they are compared at a small size.
Nothing of it met an emotion's label. `FrozenFeatures` gives the vectors, for connectors;
`FrozenCodes` their codes, by residual k-means over the clips of a run, for prompts of ids.

Vectors are those that Whisper's next layer reads, after its norm, averaged to 12.5 a second;
silence before and after the speech is left out. A folder (recipes of kind "codebook"):

    config.json             {"frozen_whisper": 1, "layers": 2}
    encoder.safetensors     of Whisper the convolutions, positions and layers, in half precision
    codebooks.safetensors   "entries" [codebooks, size, width] of vectors less "mean" [width] over
                            "scale" [width]: a few numbers vary much more than the others
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.errors import AudioError, DataError, MissingModelError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.storage import atomic_folder, fingerprint_of_arrays
from aligncap.tokenizers.builtin import (
    FRAMES_A_TOKEN,
    LONGEST_FRAMES,
    SHORTEST_SAMPLES,
    whisper_log_mel,
)
from aligncap.tokenizers.features import feature_tokens
from aligncap.tokenizers.speechtokenizer import exact_inference
from aligncap.tokenizers.whisper import WhisperLayers, load_whisper
from aligncap.values import SpeechTokens, Waveform

CONFIG_FILE, ENCODER_FILE, CODEBOOKS_FILE = (
    "config.json",
    "encoder.safetensors",
    "codebooks.safetensors",
)
FORMAT = "frozen_whisper"
"""The key of config.json that says what it is of, and its layout."""

LAYERS = 2
"""Of Whisper tiny, those whose mean vectors tell emotions best (docs/lab-notes.md)."""

TRIM_DB = 35.0
"""Frames so far below the loudest one are silence, before and after the speech."""

Vectors = NDArray[np.float32]


class FrozenWhisper(nn.Module):
    """Whisper's first layers, and the norm with which the next one begins."""

    def __init__(self, whisper: WhisperLayers, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.whisper, self.norm = whisper, norm
        self.width = int(norm.normalized_shape[0])
        for weight in self.state_dict().values():  # as a file keeps them
            weight.copy_(weight.half())
        self.requires_grad_(requires_grad=False).eval()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        arrays = [(name, one.numpy()) for name, one in sorted(self.state_dict().items())]
        return fingerprint_of_arrays({FORMAT: 1, "trim_db": TRIM_DB}, arrays)

    def vectors(self, waveform: Waveform) -> Vectors:
        """[tokens, width], rounded to half precision, as a cache keeps them. AudioError where the
        waveform is longer than Whisper has positions for."""
        missing = max(0, SHORTEST_SAMPLES - len(waveform.samples))
        mel = whisper_log_mel(np.pad(waveform.samples, (0, missing)))
        mel = mel[: len(mel) // FRAMES_A_TOKEN * FRAMES_A_TOKEN]
        if len(mel) > LONGEST_FRAMES:
            raise AudioError(
                f"{waveform.source}: {waveform.duration_s:.0f} s are too long for Whisper; cut it "
                f"to {LONGEST_FRAMES // 100} s"
            )
        with exact_inference():
            mask = torch.ones(1, len(mel) // 2, dtype=torch.bool)
            read = self.norm(self.whisper(torch.from_numpy(mel)[None], mask)[-1][0])
            means: Tensor = read.unflatten(0, (-1, FRAMES_A_TOKEN // 2)).mean(1)
        found: Vectors = means.half().float().numpy()[spoken(mel)]
        return found


def spoken(mel: Vectors) -> slice:
    """The tokens between the first and the last that are not silence; `mel` [frames, 80] as Whisper
    has it."""
    power = (10.0 ** (4.0 * mel.astype(np.float64))).mean(1).reshape(-1, FRAMES_A_TOKEN).mean(1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-TRIM_DB / 10))
    return slice(int(loud[0]), int(loud[-1]) + 1)


class FrozenFeatures:
    """The vectors, as a speech encoder that gives vectors."""

    name = "frozen-features"
    codebooks = codebook_size = 1
    frame_rate_hz = 100 / FRAMES_A_TOKEN

    def __init__(self, encoder: FrozenWhisper) -> None:
        self._encoder = encoder
        self.feature_width = encoder.width
        self.fingerprint = encoder.fingerprint

    def keep(self, folder: Path) -> None:
        """Write the encoder into a folder."""
        save_encoder(folder, self._encoder)

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """One vector a token."""
        return feature_tokens(self._encoder.vectors(waveform))


class FrozenCodes:
    """Codes of the vectors, as a speech tokenizer."""

    name = "frozen-codes"
    frame_rate_hz = 100 / FRAMES_A_TOKEN

    def __init__(self, encoder: FrozenWhisper, codebooks: "Codebooks") -> None:
        self._encoder, self.learnt = encoder, codebooks
        self.codebooks, self.codebook_size = codebooks.entries.shape[:2]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the encoder and the codebooks."""
        arrays = asdict(self.learnt).items()
        return fingerprint_of_arrays({"encoder": self._encoder.fingerprint}, arrays)

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """One code a token and codebook."""
        return SpeechTokens(self.learnt.codes(self._encoder.vectors(waveform)))


@dataclass(frozen=True, slots=True)
class Codebooks:
    """Entries of vectors whose numbers all vary alike."""

    mean: Vectors
    """[width]"""
    scale: Vectors
    """[width]"""
    entries: Vectors
    """[codebooks, size, width]"""

    @classmethod
    def of(cls, vectors: Vectors, *, codebooks: int, size: int, seed: int) -> "Codebooks":
        """Those of vectors [n, width], by residual k-means; DataError for too few."""
        mean, scale = vectors.mean(0), np.maximum(vectors.std(0), 1e-6)
        scaled = (vectors - mean) / scale
        return cls(mean, scale, learn_codebooks(scaled, codebooks=codebooks, size=size, seed=seed))

    def codes(self, vectors: Vectors) -> NDArray[np.int64]:
        """Of vectors [n, width], [codebooks, n]."""
        return residual_codes((vectors - self.mean) / self.scale, self.entries)

    def kept(self, vectors: Vectors) -> float:
        """The share of the variance of vectors [n, width], all numbers alike, that codes keep."""
        left = (vectors - self.mean) / self.scale
        codes = residual_codes(left, self.entries)
        left = left - sum(book[own] for book, own in zip(self.entries, codes, strict=True))
        return float(1 - left.var(0).mean())


def residual_codes(vectors: Vectors, entries: Vectors) -> NDArray[np.int64]:
    """Of vectors [n, width] the nearest entries of each codebook [codebooks, size, width] to what
    the earlier ones have left, [codebooks, n]."""
    left, codes = vectors.copy(), []
    for book in entries:
        codes.append(nearest(left, book))
        left -= book[codes[-1]]
    return np.stack(codes)


def nearest(vectors: Vectors, book: Vectors) -> NDArray[np.int64]:
    """The entry [size, width] nearest to each vector [n, width], [n]."""
    found: NDArray[np.int64] = (np.square(book).sum(1) - 2 * vectors @ book.T).argmin(1)
    return found


def learn_codebooks(
    vectors: Vectors, *, codebooks: int, size: int, seed: int, rounds: int = 20
) -> Vectors:
    """Residual k-means of vectors [n, width]: entries [codebooks, size, width].

    DataError for fewer vectors than entries.
    """
    if len(vectors) < size:
        raise DataError(
            f"{len(vectors)} vectors are too few for {size} entries; give more clips or set entries"
        )
    from sklearn.cluster import KMeans

    left, books = vectors.copy(), []
    for level in range(codebooks):
        means = KMeans(size, init="random", n_init=1, max_iter=rounds, random_state=seed + level)
        book = np.asarray(means.fit(left).cluster_centers_, np.float32)
        books.append(book)
        left -= book[nearest(left, book)]
    return np.stack(books)


def open_encoder(source: str | Path | None = None, *, layers: int = LAYERS) -> FrozenWhisper:
    """The encoder of a folder of ours, or of a Whisper as `whisper.load_whisper` takes it.

    MissingModelError where it is not here, DataError where it is damaged.
    """
    source = source or "openai/whisper-tiny"
    config = Path(source) / CONFIG_FILE
    table = read_table(config, hint=AGAIN) if config.is_file() else {}
    if table.get(FORMAT) != 1:
        whisper = load_whisper(source, layers + 1)
        norm: Any = whisper.layers[layers].attention_norm
        del whisper.layers[layers:]
        return FrozenWhisper(whisper, norm)
    path = Path(source) / ENCODER_FILE
    check_tensors(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        weights, layers = load_file(path), int(table["layers"])
        width = len(weights["norm.bias"])
        whisper = WhisperLayers(width, layers, width // 64)
        encoder = FrozenWhisper(whisper, nn.LayerNorm(width))
        encoder.load_state_dict(weights)
    return encoder


def fingerprints_of(folder: Path) -> list[str]:
    """Of an encoder's folder the fingerprint of the vectors, and of the codes where it has any;
    none for another folder."""
    config = folder / CONFIG_FILE
    if not config.is_file() or read_table(config, hint=AGAIN).get(FORMAT) != 1:
        return []
    codes = (folder / CODEBOOKS_FILE).is_file()
    found = [open_encoder(folder).fingerprint]
    return [*found, open_frozen_codes(folder).fingerprint] if codes else found


def save_encoder(folder: Path, encoder: FrozenWhisper, codebooks: Codebooks | None = None) -> None:
    """Write the folder of an encoder, and of its codebooks; it appears whole or not at all."""
    with atomic_folder(folder) as partial:
        table = {FORMAT: 1, "layers": len(encoder.whisper.layers)}
        (partial / CONFIG_FILE).write_text(json.dumps(table) + "\n", encoding="utf-8")
        weights = {name: one.half().contiguous() for name, one in encoder.state_dict().items()}
        save_file(weights, partial / ENCODER_FILE)
        if codebooks is not None:
            learnt = {name: torch.from_numpy(one) for name, one in asdict(codebooks).items()}
            save_file(learnt, partial / CODEBOOKS_FILE)


def open_frozen_features(path: str | Path | None = None, *, layers: int = LAYERS) -> FrozenFeatures:
    """The vectors of a frozen Whisper: a name on the hub, or a folder of it or of ours."""
    return FrozenFeatures(open_encoder(path, layers=layers))


def open_frozen_codes(path: str | Path | None = None) -> FrozenCodes:
    """Codes by the folder of a run of kind "codebook"; MissingModelError where it is not here."""
    folder = Path(path or "encoder")
    file = folder / CODEBOOKS_FILE
    if not file.is_file():
        raise MissingModelError(
            f"{folder}: holds no codebooks of frozen vectors; make them with a recipe of kind "
            "'codebook'"
        )
    check_tensors(file, hint=AGAIN)
    encoder = open_encoder(folder)
    with reading(file, hint=AGAIN):
        codebooks = Codebooks(**{name: one.numpy() for name, one in load_file(file).items()})
        shapes = codebooks.mean.shape, codebooks.scale.shape, codebooks.entries.shape[2:]
        if codebooks.entries.ndim != 3 or set(shapes) != {(encoder.width,)}:
            raise ValueError(f"its entries have the shape {codebooks.entries.shape}")
    return FrozenCodes(encoder, codebooks)
