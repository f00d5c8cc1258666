"""The built-in speech tokenizer, run by ONNX Runtime: no torch is needed to caption."""

from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from aligncap.errors import MissingModelError
from aligncap.speech.features import FRAMES_A_TOKEN, EncoderInput, encoder_input, measure_features
from aligncap.speech.fingerprints import hash_of_file
from aligncap.values import EMOTIONS, SpeechTokens, Waveform

ENCODER_FILE = "encoder.onnx"

CODEBOOK_SIZE = 512


class BuiltinTokenizer:
    """12.5 tokens a second from one codebook, and what the encoder's heads read."""

    name = "builtin"
    frame_rate_hz = 100 / FRAMES_A_TOKEN
    codebooks = 1
    codebook_size = CODEBOOK_SIZE

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

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """The tokens of one utterance; `readout` has "emotion" and "gender" probabilities and
        "pace" in syllables a second."""
        inputs = padded(encoder_input(measure_features(waveform)))
        codes, emotion, female, pace = self._session.run(
            None, {"views": inputs.views[None], "prosody": inputs.prosody[None]}
        )
        chance = float(female[0])
        return SpeechTokens(
            np.asarray(codes, dtype=np.int64),
            {
                "emotion": dict(zip(EMOTIONS, map(float, emotion[0]), strict=True)),
                "gender": {"female": chance, "male": 1.0 - chance},
                "pace": {"syllables_per_s": float(pace[0])},
            },
        )


def padded(inputs: EncoderInput) -> EncoderInput:
    """The input with its last frame repeated up to a whole number of tokens, two at least."""
    frames = len(inputs.prosody)
    tokens = max(2, -(-frames // FRAMES_A_TOKEN))
    more = tokens * FRAMES_A_TOKEN - frames
    views = np.pad(inputs.views, ((0, 0), (0, more), (0, 0)), mode="edge")
    return EncoderInput(views, np.pad(inputs.prosody, ((0, more), (0, 0)), mode="edge"))


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
