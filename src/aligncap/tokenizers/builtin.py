"""The built-in speech tokenizer: an encoder in ONNX Runtime, and the features that it is given.

`WhisperTokenizer` gives its encoder Whisper's spectrogram, and how the speaker usually sounds.
`ProsodyTokenizer`, the first one, measures features (`Features`), which its training augments, and
normalises them (`encoder_input`), the same way in training and captioning. No torch is needed.
"""

import ctypes
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligncap.audio import speech_activity, utterance
from aligncap.errors import AudioError, MissingModelError
from aligncap.foreign import AGAIN, check_regular, reading
from aligncap.prosody.measurement import MELS, log_mel
from aligncap.prosody.pitch import pitch_track
from aligncap.storage import fingerprint_of_files, hash_of_file
from aligncap.tokenizers.clue_retrieval import CLUES_FILE, read_clues
from aligncap.tokenizers.emotion_head import HEAD_FILE, head_features, read_head
from aligncap.values import (
    EMOTIONS,
    RATE_HZ,
    VOCALIZATIONS,
    Samples,
    SpeechTokens,
    Vector,
    Waveform,
)

FRAMES_A_TOKEN = 8
"""10 ms frames that become one speech token: 12.5 tokens a second."""
PROSODY = 6
"""Channels of the prosody stream."""
VIEWS = 2
"""Views of the spectrogram: against the utterance's level, and against each band's own level."""

_TRIM_NATS = 8.0  # 35 dB below the loudest frame is silence around the utterance
_MARGIN = 8
_ACTIVE_NATS = 7.0
_REFERENCE_HZ = 170.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """An utterance as measured, every 10 ms."""

    mel: Floats
    """Log-mel power, shape [frames, 64], in nats."""
    pitch_hz: Floats
    """Shape [frames]; 0 where unvoiced."""
    strength: Floats
    """Periodicity, shape [frames], 0 to 1."""

    def __len__(self) -> int:
        return len(self.mel)


class EncoderInput(NamedTuple):
    """The encoder's input for one utterance."""

    views: Floats
    """Normalised spectrogram, shape [2, frames, 64]."""
    prosody: Floats
    """Shape [frames, 6]: log2 pitch, the same against its median, voicing, periodicity,
    energy against the loudest frame, level of the utterance."""


def measure_features(waveform: Waveform) -> Features:
    """Log-mel spectrogram and pitch of a waveform; of silence at its ends 80 ms are kept."""
    mel = log_mel(waveform)
    track = pitch_track(waveform)
    pitch = np.zeros(len(mel), dtype=np.float32)
    strength = np.zeros(len(mel), dtype=np.float32)
    both = min(len(mel), len(track.frequency_hz))
    pitch[:both], strength[:both] = track.frequency_hz[:both], track.strength[:both]
    energy = frame_energy(mel)
    loud = np.flatnonzero(energy > energy.max() - _TRIM_NATS)
    kept = slice(max(0, int(loud[0]) - _MARGIN), int(loud[-1]) + 1 + _MARGIN)
    return Features(mel[kept], pitch[kept], strength[kept])


def frame_energy(mel: Floats) -> Floats:
    """Logarithm of each frame's summed mel power, shape [frames], in nats."""
    top = mel.max(axis=1)
    energy: Floats = top + np.log(np.exp(mel - top[:, None]).sum(axis=1))
    return energy


def encoder_input(features: Features) -> EncoderInput:
    """The features normalised for the encoder.

    The first view keeps the colour of voice and channel and loses only the level; the second
    loses each band's mean as well, and with it most of the microphone and of the speaker.
    """
    mel = features.mel
    energy = frame_energy(mel)
    peak = energy.max()
    active = mel[energy > peak - _ACTIVE_NATS]
    views = np.empty((VIEWS, len(mel), MELS), dtype=np.float32)
    views[0] = (mel - active.mean()) / 3.0
    views[1] = (mel - active.mean(axis=0)) / 2.5
    voiced = features.pitch_hz > 0
    octaves = np.where(voiced, np.log2(np.maximum(features.pitch_hz, 50.0) / _REFERENCE_HZ), 0.0)
    median = np.median(octaves[voiced]) if voiced.sum() > 5 else 0.0
    prosody = np.empty((len(mel), PROSODY), dtype=np.float32)
    prosody[:, 0] = octaves
    prosody[:, 1] = np.where(voiced, (octaves - median) * 2.0, 0.0)
    prosody[:, 2] = voiced
    prosody[:, 3] = features.strength
    prosody[:, 4] = (energy - peak) / 4.0 + 1.0
    prosody[:, 5] = (peak - 3.0) / 3.0
    return EncoderInput(views, prosody)


class PaddedInput(NamedTuple):
    """The input of one utterance padded to whole tokens."""

    views: Floats
    """Shape [2, frames, 64], frames a multiple of 8."""
    prosody: Floats
    """Shape [frames, 6]."""
    mask: Floats
    """1 for the utterance, 0 for padding, shape [frames]."""

    @property
    def tokens(self) -> int:
        """Tokens that hold something of the utterance."""
        return math.ceil(float(self.mask.sum()) / FRAMES_A_TOKEN)


def padded(inputs: EncoderInput) -> PaddedInput:
    """The input with zeros up to a whole number of tokens, two at least."""
    frames = len(inputs.prosody)
    more = max(2, math.ceil(frames / FRAMES_A_TOKEN)) * FRAMES_A_TOKEN - frames
    return PaddedInput(
        np.pad(inputs.views, ((0, 0), (0, more), (0, 0))),
        np.pad(inputs.prosody, ((0, more), (0, 0))),
        np.pad(np.ones(frames, dtype=np.float32), (0, more)),
    )


ENCODER_FILE = "encoder.onnx"
BUILTIN_FOLDER = Path(__file__).resolve().parent.parent / "models" / "mini"
"""The model that comes with the package; its encoder is the one of whoever names no other."""
BUILTIN_NAMES = ("builtin", "builtin-features")
"""What the built-in encoder is called among the tokenizers: by its codes, and by its vectors."""
CODEBOOK_SIZE = "codebook_size"
"""The key of the exported encoder's metadata that says how many entries its codebook has."""


CODEBOOKS = "codebooks"
"""The key that says how many codebooks it has; one, where it says nothing."""

ONNX_INPUTS = ("views", "prosody", "heard")
"""Names of the first encoder's inputs, in the order of `PaddedInput`."""

WHISPER_MELS = 80
WHISPER_HOP, WHISPER_WINDOW = 160, 400
LONGEST_FRAMES = 3000
"""Frames that Whisper has positions for: 30 s."""
SHORTEST_SAMPLES = 2 * FRAMES_A_TOKEN * WHISPER_HOP
"""A shorter waveform is padded with silence, to two tokens."""
_LEAST_S = 0.1
SILENCE_S = 0.3
"""Silence that an utterance is heard with, before and after it: what a recording has there says
more of the corpus than of the voice."""


@cache
def whisper_mel_filters() -> Floats:
    """Slaney's triangles, [80, 201]: linear below 1 kHz, logarithmic above, of equal area."""

    def to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    top = 15 + 27 * math.log(RATE_HZ / 2000) / math.log(6.4)
    edges = to_hz(np.linspace(0.0, top, WHISPER_MELS + 2))
    bins = np.fft.rfftfreq(WHISPER_WINDOW, 1 / RATE_HZ)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.asarray(np.maximum(triangles, 0.0) * 2 / (high - low), np.float32)


def whisper_log_mel(samples: Samples) -> Floats:
    """Whisper's log-mel spectrogram of 16 kHz samples, [frames, 80]: at most 80 dB below the
    loudest band, and level with it at (0 + 4) / 4 for a full-scale one."""
    padding = np.pad(samples, WHISPER_WINDOW // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padding, WHISPER_WINDOW)[::WHISPER_HOP][:-1]
    hann = np.hanning(WHISPER_WINDOW + 1)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(windows * hann, axis=1)
    power = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
    levels = np.log10(np.maximum(power @ whisper_mel_filters().T, 1e-10))
    return np.asarray((np.maximum(levels, levels.max() - 8.0) + 4.0) / 4.0, np.float32)


def in_silence(waveform: Waveform) -> Samples:
    """What the encoder hears of a recording: its utterance with `SILENCE_S` of silence before and
    after, of a long one less; samples of shape [time], 30 s at most."""
    samples, longest = utterance(waveform).samples, LONGEST_FRAMES * WHISPER_HOP
    room = max(0, longest - len(samples)) // 2
    return np.pad(samples, min(round(SILENCE_S * RATE_HZ), room))[:longest]


def after_fork(call: Callable[[], object]) -> None:
    """Have every child of a fork call something first; on Windows nothing forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def leave_threads_alone() -> None:
    """Let this process, the child of a fork, end without the C++ destructors of ONNX Runtime and
    CTranslate2: they wait for threads that only the parent has."""
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # only the GNU library has it
        libc.on_exit(libc._exit, None)


Tree = Mapping[int, "Tree | None"]

_TENSOR: Tree = {}
_ATTRIBUTE: Tree = {5: _TENSOR, 10: _TENSOR, 6: None, 11: None, 22: None, 23: None}
_GRAPH: Tree = {1: {5: _ATTRIBUTE}, 5: _TENSOR, 15: None}
_MODEL: Tree = {7: _GRAPH, 25: None}
"""Numbers of ONNX's fields that hold messages: the graph with its nodes, their attributes and its
tensors. None: graphs within graphs, sparse tensors and functions, which the encoder has not."""

_EXTERNAL = (13, 14)
"""Of a tensor: where its numbers are, and whether in another file."""


def check_onnx(path: Path) -> None:
    """DataError where an ONNX file has its numbers in other files, whose names may lead anywhere,
    or holds what the encoder has not."""
    check_regular(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        _check_message(memoryview(path.read_bytes()), _MODEL)


def _check_message(data: memoryview, parts: Tree) -> None:
    """ValueError where a message of protocol buffers is cut short or holds what is refused."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            if shift > 63:
                raise ValueError("is no ONNX file")
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        field, kind = divmod(number(), 8)
        size = {0: 0, 1: 8, 5: 4}.get(kind, -1)
        value = number() if kind in (0, 2) else 0
        size = value if kind == 2 else size
        if not 0 <= size <= len(data) - place or not field:
            raise ValueError("is cut short or no ONNX file")
        if parts is _TENSOR and field in _EXTERNAL and (value or size):
            raise ValueError("its numbers are in another file")
        if kind == 2 and field in parts:
            inside = parts[field]
            if inside is None:
                raise ValueError("holds more than an encoder")
            _check_message(data[place : place + size], inside)
        place += size


class BuiltinTokenizer(ABC):
    """The speech tokens of an exported encoder, and the readout of its heads."""

    INPUTS: ClassVar[tuple[str, ...]]
    """Names of the encoder's inputs."""
    name = "builtin"
    frame_rate_hz = 100 / FRAMES_A_TOKEN

    def __init__(self, path: Path, session: Any) -> None:
        """`session` is the file at `path` in ONNX Runtime."""
        self._path, self._session = path, session
        head = path.with_name(HEAD_FILE)
        self._head = read_head(head) if head.exists() else None
        clues = path.with_name(CLUES_FILE)
        self._clues = read_clues(clues) if clues.exists() else None
        metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.codebook_size = int(metadata[CODEBOOK_SIZE])
        self.codebooks = int(metadata.get(CODEBOOKS, "1"))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, those of a fitted emotion head among them."""
        return fingerprint_of(self._path)

    @cached_property
    def encoder_fingerprint(self) -> str:
        """A hash of the encoder's own weights: what `hear` depends on."""
        return hash_of_file(self._path)

    @abstractmethod
    def hear(self, waveform: Waveform) -> SpeechTokens:
        """The tokens and the readout of one utterance as the encoder itself gives them."""

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """What is heard, with the emotions of the fitted head and the clue words near it, where
        there are any."""
        return self.retrieved(self.corrected(self.hear(waveform)))

    def retrieved(self, tokens: SpeechTokens) -> SpeechTokens:
        """The tokens with the cosine of each clue word in the readout, where a joint space is
        beside the encoder: it follows from the codes, and is not kept with them."""
        if self._clues is None:
            return tokens
        cosines = self._clues.cosines(tokens.codes)
        return replace(tokens, readout={**tokens.readout, "clues": cosines})

    def corrected(self, tokens: SpeechTokens) -> SpeechTokens:
        """What was heard with the emotions of the fitted head, where there is one."""
        if self._head is None:
            return tokens
        emotion = np.array(list(tokens.readout["emotion"].values()))
        features = head_features(emotion, tokens.vector)
        return with_emotion(tokens, self._head.probabilities(emotion, features))

    def _run(self, **inputs: Floats) -> dict[str, NDArray[Any]]:
        """The encoder's outputs by name; ValueError where they are no codes and numbers."""
        names = [one.name for one in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(None, inputs), strict=True))
        codes = found["codes"]
        if codes.ndim != 2 or len(codes) != self.codebooks or codes.dtype.kind != "i":
            raise ValueError(f"gives codes of shape {codes.shape}")
        if not all(np.isfinite(one).all() for one in found.values()):
            raise ValueError("gives numbers that are not finite")
        return found

    def _check(self, codes: NDArray[Any]) -> None:
        if not codes.size or not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError("gives codes that are not in its codebook")


class ProsodyTokenizer(BuiltinTokenizer):
    """The first encoder: normalised spectrograms and pitch in, one codebook."""

    INPUTS = ONNX_INPUTS

    def __init__(self, path: Path, session: Any) -> None:
        super().__init__(path, session)
        # Whatever does not fit inside of it shows when it is run.
        silence = np.zeros((VIEWS, 2 * FRAMES_A_TOKEN, MELS), dtype=np.float32)
        self.corrected(self._encode(padded(EncoderInput(silence, silence[0, :, :PROSODY]))))

    def hear(self, waveform: Waveform) -> SpeechTokens:
        """The tokens of one utterance; `readout` has "emotion" and "gender" probabilities and
        "pace" in syllables a second."""
        return self._encode(padded(encoder_input(measure_features(waveform))))

    def _encode(self, inputs: PaddedInput) -> SpeechTokens:
        batch = {name: part[None] for name, part in zip(ONNX_INPUTS, inputs, strict=True)}
        with reading(self._path, hint=AGAIN):
            found = self._run(**batch)
            codes = found["codes"][:, : inputs.tokens]
            self._check(codes)
            if codes.shape[1] != inputs.tokens:
                raise ValueError(f"gives codes of shape {codes.shape}")
            female, pace = float(found["female"][0]), float(found["pace"][0])
            return read_tokens(codes, found["emotion"][0], female, pace)


class WhisperTokenizer(BuiltinTokenizer):
    """The encoder that began as the lower layers of Whisper: Whisper's spectrogram and, where it
    is known, the speaker's baseline in; one or more codebooks."""

    INPUTS = ("mel", "baseline", "based")

    def __init__(self, path: Path, session: Any) -> None:
        super().__init__(path, session)
        self._width = int(session.get_inputs()[1].shape[1])
        """Numbers of a vector."""
        silence = np.zeros(SHORTEST_SAMPLES, dtype=np.float32)
        self.corrected(self._encode(whisper_log_mel(silence), None, 1.0))

    def encode(self, waveform: Waveform, baseline: Vector | None = None) -> SpeechTokens:
        """As `hear`, with the emotions of the fitted head and clue words, where there are any."""
        return self.retrieved(self.corrected(self.hear(waveform, baseline)))

    def hear(self, waveform: Waveform, baseline: Vector | None = None) -> SpeechTokens:
        """The tokens of one utterance, and its vector; `readout` has the probabilities of
        "emotion", "gender" and "vocalization", "pace" in syllables a second, "arousal" from -1 to
        1, and "novelty" from 0 to 1. `baseline` is the mean vector of the speaker.

        Raises AudioError where it is longer than the encoder has positions for.
        """
        if len(waveform.samples) > LONGEST_FRAMES * WHISPER_HOP:
            raise AudioError(
                f"{waveform.source}: {waveform.duration_s:.0f} s are too long for this encoder; "
                f"cut it to {LONGEST_FRAMES // 100} s"
            )
        heard = utterance(waveform)
        speech_s = sum(end - start for start, end in speech_activity(heard))
        mel = whisper_log_mel(in_silence(waveform))
        return self._encode(mel, baseline, speech_s or heard.duration_s)

    def _encode(self, mel: Floats, baseline: Vector | None, speech_s: float) -> SpeechTokens:
        vector = np.zeros(self._width, np.float32) if baseline is None else baseline
        based = np.array([baseline is not None], np.float32)
        with reading(self._path, hint=AGAIN):
            found = self._run(mel=mel[None], baseline=vector[None], based=based)
            self._check(found["codes"])
            female = float(found["female"][0])
            pace = float(found["syllables"][0]) / max(speech_s, _LEAST_S)
            tokens = read_tokens(found["codes"], found["emotion"][0], female, pace)
            sounds = map(float, found["vocalization"][0])
            readout = {
                **tokens.readout,
                "vocalization": dict(zip(VOCALIZATIONS, sounds, strict=True)),
                "arousal": {"level": float(found["arousal"][0])},
                "novelty": {"score": float(found["novelty"][0])},
            }
            return SpeechTokens(tokens.codes, readout, np.array(found["vector"][0], np.float32))


def with_emotion(tokens: SpeechTokens, emotion: ArrayLike) -> SpeechTokens:
    """The tokens with other probabilities of the emotions, [8] in the order of EMOTIONS."""
    named = dict(zip(EMOTIONS, map(float, np.asarray(emotion)), strict=True))
    return replace(tokens, readout={**tokens.readout, "emotion": named})


def read_tokens(
    codes: ArrayLike, emotion: Iterable[float], female: float, pace: float
) -> SpeechTokens:
    """Codes [codebooks, tokens] with a readout of the heads: `emotion` probabilities [8] in the
    order of EMOTIONS, the probability of a female voice, and the pace in syllables a second."""
    return SpeechTokens(
        np.asarray(codes, dtype=np.int64),
        {
            "emotion": dict(zip(EMOTIONS, map(float, emotion), strict=True)),
            "gender": {"female": female, "male": 1.0 - female},
            "pace": {"syllables_per_s": pace},
        },
    )


def _open_session(path: Path, threads: int) -> BuiltinTokenizer:
    """The tokenizer of an encoder, by its inputs' names; DataError where it is none."""
    check_onnx(path)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads that spin would take the cores from the language model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    with reading(path, hint=AGAIN):
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # what it makes is slower than its parts
        )
        names = tuple(one.name for one in session.get_inputs())
        for form in (WhisperTokenizer, ProsodyTokenizer):
            if names == form.INPUTS:
                # With one thread the session itself is usable in a child.
                after_fork(leave_threads_alone)
                return form(path, session)
        raise ValueError(f"its inputs are {', '.join(names)[:80]}")


def fingerprint_of(encoder: Path) -> str:
    """The fingerprint of the tokenizer that an encoder.onnx and a head beside it make."""
    head = encoder.with_name(HEAD_FILE)
    return fingerprint_of_files({}, [encoder, head]) if head.exists() else hash_of_file(encoder)


def encoder_file(path: str | Path | None) -> Path:
    """The encoder.onnx of a folder, or that file itself; that of the model that comes with the
    package where no path is given. MissingModelError where there is none."""
    file = Path(path) if path is not None else BUILTIN_FOLDER
    if file.is_dir():
        file = file / ENCODER_FILE
    if not file.is_file():
        raise MissingModelError(
            f"{file}: no such speech encoder; give the folder of an exported model, or train one: "
            "aligncap train recipes/mini/encoder.toml"
        )
    return file


def open_builtin(path: str | Path | None = None, *, threads: int = 1) -> BuiltinTokenizer:
    """The built-in tokenizer from a folder with encoder.onnx, or from that file itself; that of
    the model that comes with the package where none is given.

    Raises MissingModelError where there is none.
    """
    return _open_session(encoder_file(path), threads)
