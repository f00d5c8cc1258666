"""A joint space as a speech encoder: a clip is one vector, the prompt of the systems that align
before decoding (§2, §5.2).

The folder is that of a space of our own with the speech tokenizer that it reads, or of a CLAP, and
may hold a memory of caption vectors, onto which speech is projected (CL+Proj-Align):

    memory.safetensors       "vectors" [captions, width], of unit length
    encoder/                 of our own space: the speech tokenizer
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from aligncap.alignment.clap import ClapSpace, open_clap
from aligncap.alignment.losses import project_on_memory
from aligncap.alignment.space import FORMAT, JointSpace, load_space
from aligncap.captioner.checkpoint import ENCODER_FOLDER, find_encoder
from aligncap.errors import DataError, MissingModelError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.storage import fingerprint_of_files
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.features import feature_tokens
from aligncap.values import SpeechTokens, Waveform

MEMORY_FILE = "memory.safetensors"
CONFIG_FILE = "config.json"

Vectors = NDArray[np.float32]


class JointFeatures:
    """One vector a clip, of unit length, and what the speech tokenizer's heads read, where it has
    any."""

    name = "joint"
    codebooks = codebook_size = 1
    frame_rate_hz = 1.0
    """There is one frame, whatever the clip's length."""

    def __init__(self, folder: Path, *, projected: bool) -> None:
        """With `projected`, speech is the mean of the memory's captions by their likeness."""
        self.space = open_space(folder)
        self.feature_width = self.space.width
        self._memory = read_memory(folder) if projected else None
        files = sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix != ".md")
        self.fingerprint = fingerprint_of_files({"projected": projected}, files)
        self._tokenizer = None
        if isinstance(self.space, JointSpace):
            source = self.space.shape.source
            path = find_encoder(source.fingerprint, [folder])
            own = folder / ENCODER_FOLDER
            path = path or (own if own.is_dir() else None)
            self._tokenizer = open_tokenizer(source.name, path, **source.options)
            if self._tokenizer.fingerprint != source.fingerprint:
                raise MissingModelError(
                    f"{folder}: reads tokens of {source.name} {source.fingerprint[:12]}, which are "
                    f"not here; put the folder of that tokenizer at {own}"
                )

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The clip's vector as one frame."""
        if self._tokenizer is None:
            assert isinstance(self.space, ClapSpace)
            return feature_tokens(self.project(self.space.embed_waveforms([waveform])))
        tokens = self._tokenizer.encode(waveform)
        return feature_tokens(self.embed_speech([tokens]), tokens)

    def embed_speech(self, clips: Sequence[SpeechTokens]) -> Vectors:
        """Vectors [clips, width] of speech tokens; DataError where the space reads sound."""
        if not isinstance(self.space, JointSpace):
            raise DataError("a CLAP reads sound, not speech tokens; take validation = 'text'")
        return self.project(self.space.embed_speech(clips))

    def project(self, vectors: Vectors) -> Vectors:
        """Vectors [clips, width] onto the memory, where there is one."""
        if self._memory is None:
            return vectors
        found = project_on_memory(torch.from_numpy(vectors), torch.from_numpy(self._memory))
        return np.asarray(found.numpy(), np.float32)


def open_space(folder: Path) -> JointSpace | ClapSpace:
    """The joint space of a folder, ours or a CLAP. MissingModelError, DataError."""
    config = folder / CONFIG_FILE
    if config.is_file() and FORMAT in read_table(config, hint=AGAIN):
        return load_space(folder)
    return open_clap(folder)


def write_memory(folder: Path, vectors: Vectors) -> None:
    """Keep the vectors of captions, [captions, width], beside a space."""
    save_file({"vectors": np.ascontiguousarray(vectors)}, folder / MEMORY_FILE)


def read_memory(folder: Path) -> Vectors:
    """The vectors of captions beside a space; MissingModelError where there are none."""
    path = folder / MEMORY_FILE
    if not path.is_file():
        raise MissingModelError(
            f"{folder}: holds no memory of captions to project on; make it with a recipe of kind "
            "'text-rows' and projected = true"
        )
    check_tensors(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        vectors: Vectors = load_file(path)["vectors"]
        if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
            raise ValueError("holds no vectors")
    return vectors


def open_joint(path: str | Path | None = None, *, projected: int = 0) -> JointFeatures:
    """The encoder of a joint space's folder; `projected` 1 projects on its memory.

    Raises MissingModelError where it or its speech tokenizer is not here.
    """
    if path is None:
        raise MissingModelError(
            "the joint encoder needs the folder of a space; train one: aligncap train "
            "recipes/mini/joint.toml"
        )
    return JointFeatures(Path(path), projected=bool(projected))
