"""The joint speech-text space (§2): two towers onto one sphere.

The speech tower reads what the frozen speech encoder gives, its tokens: their embeddings are pooled
by attention, as the encoder's own readout does. The text tower is a small transformer over
captions. `joint` trains the two; `clap` reads pretrained spaces of the same use.

A folder of a space:

    config.json         sizes, and the speech tokenizer whose codes it reads
    tokenizer.json      of the text
    model.safetensors
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from aligncap.alignment.examples import SpeechSource
from aligncap.captioner.vocabulary import read_tokenizer
from aligncap.errors import DataError, MissingModelError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.storage import atomic_folder, fingerprint_of_files
from aligncap.tokenizers.whisper import WhisperLayer
from aligncap.training.loop import evaluating
from aligncap.values import SpeechTokens

CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE = "config.json", "tokenizer.json", "model.safetensors"
FORMAT = "joint_space"
"""The key of config.json that says what it is of, and its layout."""

FIRST_SCALE, LARGEST_SCALE = float(np.log(1 / 0.07)), float(np.log(100))
"""Of the logarithm of one over the temperature: where it begins, and what it is held below
(Radford et al. 2021)."""

LONGEST_TEXT = 96
"""Text tokens that are read."""

MOST_AT_ONCE = 64
"""Texts or clips that are embedded together."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceShape:
    """What the towers' weights do not say."""

    width: int
    hidden: int
    layers: int
    heads: int
    texts: int
    """Ids of the text tokenizer."""
    source: SpeechSource
    """Whose codes the speech tower reads."""


class SpeechTower(nn.Module):
    """Speech tokens → one vector of unit length."""

    def __init__(self, shape: SpaceShape, dropout: float) -> None:
        super().__init__()
        source, pooled = shape.source, 2 * shape.hidden
        self.sizes = source.codebooks, source.codebook_size
        self.entries = nn.Embedding(source.codebooks * source.codebook_size, shape.hidden)
        self.attend = nn.Linear(shape.hidden, 1)
        self.norm = nn.LayerNorm(pooled)
        self.inner = nn.Linear(pooled, pooled)
        self.out = nn.Linear(pooled, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, codes: Tensor, mask: Tensor) -> Tensor:
        """`codes` [batch, codebooks, frames], `mask` [batch, frames] (True within the clip) →
        [batch, width]."""
        books, size = self.sizes
        starts = size * torch.arange(books, device=codes.device)
        x = self.entries(codes + starts[:, None]).mean(1)
        weights = self.attend(x)[..., 0].masked_fill(~mask, -1e4).softmax(1)[..., None]
        even = (mask.to(x) / mask.sum(1, keepdim=True))[..., None]
        centre = (x * even).sum(1, keepdim=True)
        spread = ((x - centre).square() * even).sum(1).clamp(min=1e-5).sqrt()
        x = self.dropout(self.norm(torch.cat(((x * weights).sum(1), spread), 1)))
        return functional.normalize(self.out(self.dropout(functional.silu(self.inner(x)))), dim=1)


class TextTower(nn.Module):
    """Text tokens → one vector of unit length."""

    def __init__(self, shape: SpaceShape, dropout: float) -> None:
        super().__init__()
        width = shape.hidden
        self.entries = nn.Embedding(shape.texts, width)
        self.positions = nn.Parameter(0.02 * torch.randn(LONGEST_TEXT, width))
        self.layers = nn.ModuleList(
            WhisperLayer(width, shape.heads, dropout) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, shape.width)
        nn.init.normal_(self.entries.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`ids` [batch, tokens], `mask` [batch, tokens] (True within the text) → [batch, width]."""
        x = self.entries(ids) + self.positions[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        even = (mask.to(x) / mask.sum(1, keepdim=True))[..., None]
        return functional.normalize(self.out((self.norm(x) * even).sum(1)), dim=1)


class TrainedSpace(nn.Module, ABC):
    """What is trained to bring clips near to their texts, and its temperature."""

    def __init__(self, width: int) -> None:
        """`width` is how many numbers a vector has."""
        super().__init__()
        self.width = width
        self.log_scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.log_scale.device

    @abstractmethod
    def hear(self, clips: Sequence[SpeechTokens]) -> Tensor:
        """Vectors of clips from their speech tokens, [clips, width], each of unit length."""

    @abstractmethod
    def read(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, [texts, width], each of unit length."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learnt; the folder appears whole or not at all."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """`read` in evaluation mode, of any number of texts."""
        return self._embed(texts, self.read)

    def embed_speech(self, clips: Sequence[SpeechTokens]) -> Vectors:
        """`hear` in evaluation mode, of any number of clips."""
        return self._embed(clips, self.hear)

    def _embed(self, given: Sequence[Any], embed: Callable[[Sequence[Any]], Tensor]) -> Vectors:
        with evaluating(self):
            parts = [
                embed(given[start : start + MOST_AT_ONCE]).float().cpu().numpy()
                for start in range(0, len(given), MOST_AT_ONCE)
            ]
        return np.concatenate([np.empty((0, self.width), np.float32), *parts])


class JointSpace(TrainedSpace):
    """The two towers."""

    def __init__(self, shape: SpaceShape, tokenizer: Tokenizer, *, dropout: float = 0.0) -> None:
        super().__init__(shape.width)
        self.shape, self.tokenizer = shape, tokenizer
        self.speech = SpeechTower(shape, dropout)
        self.text = TextTower(shape, dropout)

    def hear(self, clips: Sequence[SpeechTokens]) -> Tensor:
        """By the speech tower."""
        found: Tensor = self.speech(*self.read_codes([clip.codes for clip in clips]))
        return found

    def read(self, texts: Sequence[str]) -> Tensor:
        """By the text tower."""
        found: Tensor = self.text(*self.read_texts(texts))
        return found

    def save(self, folder: Path) -> None:
        """As `load_space` reads it."""
        save_space(folder, self)

    def read_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts, [batch, tokens]; of a long one its beginning."""
        found = [
            self.tokenizer.encode(text, add_special_tokens=False).ids[:LONGEST_TEXT] or [0]
            for text in texts
        ]
        return self._padded([np.array(ids)[None] for ids in found], lambda ids: ids[:, 0])

    def read_codes(self, clips: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
        """Codes and mask of clips, each [codebooks, frames]; DataError where they are not those of
        the tokenizer that the space was trained with."""
        books, size = self.speech.sizes
        for codes in clips:
            if len(codes) != books or not codes.size or not 0 <= codes.min() <= codes.max() < size:
                raise DataError(
                    f"joint space: speech tokens must be {books} x frames below {size}, these are "
                    f"{codes.shape[0]} x {codes.shape[1]}; give those of {self.shape.source.name}"
                )
        return self._padded(clips, lambda codes: codes)

    def _padded(
        self, rows: Sequence[NDArray[Any]], shaped: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        longest = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows]
        mask = np.arange(longest) < np.array([[row.shape[1]] for row in rows])
        ids = torch.from_numpy(np.stack(padded).astype(np.int64))
        return shaped(ids).to(self.device), torch.from_numpy(mask).to(self.device)


def save_space(folder: Path, space: JointSpace) -> None:
    """Write a space's folder; it appears whole or not at all."""
    shape = {FORMAT: 1, **asdict(space.shape)}
    with atomic_folder(folder) as partial:
        text = json.dumps(shape, indent=1) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        space.tokenizer.save(str(partial / TOKENIZER_FILE))
        weights = {name: value.contiguous().cpu() for name, value in space.state_dict().items()}
        save_file(weights, partial / WEIGHTS_FILE)


def load_space(folder: Path, *, dropout: float = 0.0) -> JointSpace:
    """The space of a folder that `save_space` wrote, in evaluation mode.

    MissingModelError where there is none, DataError where it is damaged.
    """
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise MissingModelError(
            f"{folder}: holds no joint space; train one: aligncap train recipes/mini/joint.toml"
        )
    table = read_table(config, hint=AGAIN)
    if table.pop(FORMAT, None) != 1:
        raise DataError(
            f"{config}: is of no joint space; give the folder `model` of a run of kind 'joint'"
        )
    check_tensors(folder / WEIGHTS_FILE, hint=AGAIN)
    tokenizer = read_tokenizer(folder / TOKENIZER_FILE)
    with reading(folder, hint=AGAIN):
        source = SpeechSource(**table.pop("source"))
        space = JointSpace(SpaceShape(**table, source=source), tokenizer, dropout=dropout)
        space.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return space.eval()


def space_fingerprint(folder: Path) -> str:
    """A hash of a space's files."""
    return fingerprint_of_files({}, sorted(folder.glob("*.*")))
