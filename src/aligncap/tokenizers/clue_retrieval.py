"""Retrieval of clue words in a joint speech-text space, without torch (decision 5, "retrieved").

Beside an encoder.onnx may lie the speech tower of a space (`alignment.joint`) and the vectors of
clue words in it. A clip's tokens are then read once more, as a point in that space; its cosine with
each clue word is part of the readout:

    readout["clues"] = {"emotion:sad": 0.81, "pace:slow": 0.44, …}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.foreign import AGAIN, check_tensors, reading

CLUES_FILE = "encoder.clues.safetensors"
"""Beside encoder.onnx."""

WEIGHTS = ("entries.weight", "attend.weight", "attend.bias", "norm.weight", "norm.bias",
           "inner.weight", "inner.bias", "out.weight", "out.bias")  # fmt: skip
"""Of the speech tower (`alignment.joint.SpeechTower`)."""

WORDS, SHAPE = "words", "shape"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ClueRetriever:
    """A speech tower, and clue words in its space."""

    codebooks: int
    codebook_size: int
    weights: Mapping[str, Floats]
    """The tower's, by the names of `WEIGHTS`."""
    words: tuple[str, ...]
    """Trait and meaning of each: "emotion:sad"."""
    vectors: Floats
    """Of the words, of unit length, shape [words, width]."""

    def __post_init__(self) -> None:
        rows = len(self.weights["entries.weight"])
        if len(self.words) != len(self.vectors) or rows != self.codebooks * self.codebook_size:
            raise DataError(f"clue words: sizes do not fit each other; {AGAIN}")

    def embed(self, codes: NDArray[np.int64]) -> Floats:
        """The point of a clip, [width], of unit length, from codes [codebooks, frames]."""
        of = self.weights
        starts = self.codebook_size * np.arange(self.codebooks)[:, None]
        x = of["entries.weight"][codes + starts].mean(0)
        scores = x @ of["attend.weight"][0] + of["attend.bias"]
        shares = np.exp(scores - scores.max())
        shares = shares / shares.sum()
        spread = np.sqrt(np.maximum(x.var(0), 1e-5))
        pooled = np.concatenate((shares @ x, spread))
        pooled = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5)
        pooled = pooled * of["norm.weight"] + of["norm.bias"]
        inner = of["inner.weight"] @ pooled + of["inner.bias"]
        inner = inner / (1 + np.exp(-inner))
        point = of["out.weight"] @ inner + of["out.bias"]
        return np.asarray(point / np.linalg.norm(point), np.float32)

    def cosines(self, codes: NDArray[np.int64]) -> dict[str, float]:
        """The cosine of a clip with each clue word, by "trait:meaning"."""
        found = self.vectors @ self.embed(codes)
        return dict(zip(self.words, map(float, found), strict=True))

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        from safetensors.numpy import save_file

        shape = {"codebooks": self.codebooks, "codebook_size": self.codebook_size}
        metadata = {WORDS: json.dumps(self.words), SHAPE: json.dumps(shape)}
        arrays = {name: np.ascontiguousarray(self.weights[name]) for name in WEIGHTS}
        save_file({**arrays, WORDS: self.vectors}, path, metadata=metadata)


def read_clues(path: Path) -> ClueRetriever:
    """The retriever in a file; DataError where it is damaged."""
    check_tensors(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            arrays = {name: file.get_tensor(name) for name in (*WEIGHTS, WORDS)}
        if not all(np.isfinite(one).all() for one in arrays.values()):
            raise ValueError("holds numbers that are not finite")
        vectors = arrays.pop(WORDS)
        words = tuple(map(str, json.loads(metadata[WORDS])))
        return ClueRetriever(
            **json.loads(metadata[SHAPE]), weights=arrays, words=words, vectors=vectors
        )
