"""The built-in speech tokenizer, run by ONNX Runtime: no torch is needed to caption."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike

from aligncap.errors import MissingModelError
from aligncap.speech.features import (
    FRAMES_A_TOKEN,
    EncoderInput,
    Floats,
    encoder_input,
    measure_features,
)
from aligncap.storage import hash_of_file
from aligncap.values import EMOTIONS, SpeechTokens, Waveform

ENCODER_FILE = "encoder.onnx"
CODEBOOK_SIZE = "codebook_size"
"""The key of the exported encoder's metadata that says how many entries its codebook has."""


class BuiltinTokenizer:
    """12.5 tokens a second from one codebook, and what the encoder's heads read."""

    name = "builtin"
    frame_rate_hz = 100 / FRAMES_A_TOKEN
    codebooks = 1

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads that spin would take the cores from the language model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._path = path
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        return hash_of_file(self._path)

    @cached_property
    def codebook_size(self) -> int:
        """Entries of the codebook."""
        told: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return int(told[CODEBOOK_SIZE])

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The tokens of one utterance; `readout` has "emotion" and "gender" probabilities and
        "pace" in syllables a second."""
        inputs = padded(encoder_input(measure_features(waveform)))
        codes, emotion, female, pace = self._session.run(
            None, {name: value[None] for name, value in inputs._asdict().items()}
        )
        return read_tokens(codes[:, : inputs.tokens], emotion[0], float(female[0]), float(pace[0]))


def read_tokens(
    codes: ArrayLike, emotion: Sequence[float], female: float, pace: float
) -> SpeechTokens:
    """Codes [1, tokens] with what the heads read: `emotion` probabilities [8] in the order of
    EMOTIONS, the probability of a female voice, and the pace in syllables a second."""
    return SpeechTokens(
        np.asarray(codes, dtype=np.int64),
        {
            "emotion": dict(zip(EMOTIONS, map(float, emotion), strict=True)),
            "gender": {"female": female, "male": 1.0 - female},
            "pace": {"syllables_per_s": pace},
        },
    )


class PaddedInput(NamedTuple):
    """One utterance filled up to whole tokens, as the encoder learnt to read it."""

    views: Floats
    """Shape [2, frames, 64], frames a multiple of 8."""
    prosody: Floats
    """Shape [frames, 6]."""
    heard: Floats
    """1 for the utterance, 0 for what was filled up, shape [frames]."""

    @property
    def tokens(self) -> int:
        """Tokens that hold something of the utterance."""
        return math.ceil(float(self.heard.sum()) / FRAMES_A_TOKEN)


def padded(inputs: EncoderInput) -> PaddedInput:
    """The input with zeros up to a whole number of tokens, two at least."""
    frames = len(inputs.prosody)
    more = max(2, math.ceil(frames / FRAMES_A_TOKEN)) * FRAMES_A_TOKEN - frames
    return PaddedInput(
        np.pad(inputs.views, ((0, 0), (0, more), (0, 0))),
        np.pad(inputs.prosody, ((0, more), (0, 0))),
        np.pad(np.ones(frames, dtype=np.float32), (0, more)),
    )


def open_tokenizer(path: str | Path | None = None, *, threads: int = 1) -> BuiltinTokenizer:
    """The built-in tokenizer from a folder with encoder.onnx, or from that file itself.

    Raises MissingModelError where there is none.
    """
    file = Path(path) if path is not None else Path(ENCODER_FILE)
    if file.is_dir():
        file = file / ENCODER_FILE
    if not file.is_file():
        raise MissingModelError(
            f"{file}: no such speech encoder; give the folder of an exported model, or train one: "
            "aligncap train recipes/mini/encoder.toml"
        )
    return BuiltinTokenizer(file, threads=threads)
