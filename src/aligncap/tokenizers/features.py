"""Frozen speech encoders that give vectors, one a frame, for captioning systems with a connector.

They are opened like speech tokenizers and have one codebook of one entry: their codes count frames.
A cache rounds vectors to half precision.
"""

from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.files import samples_at
from aligncap.errors import MissingModelError, RecipeError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading, refuse_code
from aligncap.storage import fingerprint_of_folder
from aligncap.tokenizers.builtin import (
    SHORTEST_SAMPLES,
    check_onnx,
    encoder_file,
    open_builtin,
    whisper_log_mel,
)
from aligncap.values import RATE_HZ, SpeechFeatures, SpeechTokens, Waveform

LAST_NORM = "encoder.norm.weight"
"""Of the built-in encoder: the scale of the layer whose output is one vector a token, before the
codebook."""


def feature_tokens(vectors: NDArray[Any], tokens: SpeechTokens | None = None) -> SpeechTokens:
    """Vectors [frames, width] as the tokens of an encoder, with the readout of `tokens` where it
    has one."""
    features = SpeechFeatures.of(np.asarray(vectors, np.float32))
    codes = np.zeros((1, len(vectors)), np.int64)
    return SpeechTokens(codes, {} if tokens is None else tokens.readout, features=features)


class BuiltinFeatures:
    """The built-in encoder's vectors, 12.5 a second, as they are before its codebook, and what its
    heads read.

    Vectors are of the recording as it is, with the silence that it has, codes and readout of its
    utterance in silence (`builtin.in_silence`): they are not the vectors that the codes stand for.
    Changed, they would not be those of the comparison in docs/results/paper any more.
    """

    name = "builtin-features"
    codebooks = codebook_size = 1

    def __init__(self, path: Path, threads: int) -> None:
        self._tokenizer = open_builtin(path, threads=threads)
        self.frame_rate_hz = self._tokenizer.frame_rate_hz
        self._path = path
        with reading(path, hint=AGAIN):
            self._session, self._outputs = _session_with_frames(path, threads)
            silence = np.zeros(SHORTEST_SAMPLES, np.float32)
            self.feature_width = int(self._vectors(silence).shape[1])

    @property
    def fingerprint(self) -> str:
        """That of the encoder."""
        return self._tokenizer.fingerprint

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """One vector a token, and the readout."""
        missing = max(0, SHORTEST_SAMPLES - len(waveform.samples))
        tokens = self._tokenizer.encode(waveform)
        with reading(self._path, hint=AGAIN):
            return feature_tokens(self._vectors(np.pad(waveform.samples, (0, missing))), tokens)

    def _vectors(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """[tokens, width]."""
        given = {
            one.name: np.zeros([1] * (len(one.shape) - 1) + one.shape[-1:], np.float32)
            if len(one.shape) > 1
            else np.zeros(1, np.float32)
            for one in self._session.get_inputs()
        }
        given["mel"] = whisper_log_mel(samples)[None]
        (found,) = self._session.run(self._outputs, given)
        vectors: NDArray[np.float32] = found[0]
        return vectors


def _session_with_frames(path: Path, threads: int) -> tuple[Any, list[str]]:
    """The encoder in ONNX Runtime with one more output, and that output's name."""
    check_onnx(path)
    import onnx
    import onnxruntime

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and node.input[1] == LAST_NORM:
            name = node.output[0]
            break
    else:
        raise ValueError("has no vectors before its codebook; it is none of Whisper's layers")
    frames = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    model.graph.output.append(frames)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, [name]


def open_builtin_features(path: str | Path | None = None, *, threads: int = 1) -> BuiltinFeatures:
    """The built-in encoder's vectors, from a folder with encoder.onnx or from that file; those of
    the model that comes with the package where none is given.

    Raises MissingModelError where there is none, DataError for the first generation's encoder.
    """
    return BuiltinFeatures(encoder_file(path), threads)


class HubertFeatures:
    """HuBERT's last hidden states, 50 a second (SECap)."""

    name = "hubert"
    codebooks = codebook_size = 1
    frame_rate_hz = 50.0

    def __init__(self, model: Any, folder: Path, *, normalise: bool, device: str) -> None:
        self._model, self._folder, self._normalise = model, folder, normalise
        self._device = device
        self.feature_width = int(model.config.hidden_size)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights and the configuration."""
        return fingerprint_of_folder(
            self._folder, [self._folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
        )

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """One vector each 20 ms, of samples with mean 0 and variance 1 where HuBERT takes those."""
        import torch

        samples = np.pad(waveform.samples, (0, max(0, _HUBERT_LEAST - len(waveform.samples))))
        if self._normalise:
            wide = samples.astype(np.float64)
            samples = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-7)
        with torch.inference_mode():
            given = torch.from_numpy(np.asarray(samples, np.float32))[None].to(self._device)
            states = self._model(given).last_hidden_state[0].float().cpu()
        return feature_tokens(states.numpy())


CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_HUBERT_LEAST = 400
"""Samples that its convolutions need for one frame."""


def open_hubert(path: str | Path | None = None, *, device: str = "cpu") -> HubertFeatures:
    """HuBERT from a folder as transformers saves it, safetensors only.

    MissingModelError where there is none, DataError where its files do not fit together.
    """
    folder = Path(path or "hubert")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise MissingModelError(
                f"{folder}: holds no {name} of HuBERT; fetch it once with `hf download "
                "TencentGameMate/chinese-hubert-large` and save its weights as model.safetensors "
                "(transformers: save_pretrained), or read a released SECap, which has its own"
            )
    refuse_code(folder)
    from transformers import HubertModel

    shapes = check_tensors(folder / WEIGHTS_FILE, hint=AGAIN)
    with reading(folder, hint=AGAIN):
        opened: Any = HubertModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model, found = opened
        if found["missing_keys"] or not shapes:
            raise ValueError(f"lacks the weights {min(found['missing_keys'])}")
    preprocessor = folder / "preprocessor_config.json"
    told = read_table(preprocessor, hint=AGAIN) if preprocessor.is_file() else {}
    model = model.to(device).eval()
    return HubertFeatures(
        model, folder, normalise=bool(told.get("do_normalize", True)), device=device
    )


class LogMelFeatures:
    """The log-mel spectrogram of WavCaps: 64 bands from 50 Hz to 14 kHz in dB, 100 frames a second,
    of sound at 32 kHz; a clip's first 10 s. What is above 8 kHz is heard of files alone, and where
    it is asked for."""

    name = "log-mel"
    codebooks = codebook_size = 1
    frame_rate_hz = 100.0
    feature_width = 64

    def __init__(self, rate_hz: int) -> None:
        """`rate_hz` is that of the sound which is brought to 32 kHz: 16,000 or 32,000."""
        self._rate_hz = rate_hz
        self.fingerprint = f"wavcaps-log-mel-{'1' if rate_hz == RATE_HZ else rate_hz}"

    def encode(self, waveform: Waveform) -> SpeechTokens:
        """One spectrum each 10 ms."""
        from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

        heard = waveform.part(0, _LONGEST_S * RATE_HZ)
        if heard.at_rate is not None and self._rate_hz == _MEL_RATE_HZ:
            samples = heard.at_rate(_MEL_RATE_HZ, 0, len(heard.samples))
        else:
            samples = samples_at(heard, _MEL_RATE_HZ)
        filters = mel_filter_bank(
            num_frequency_bins=_MEL_WINDOW // 2 + 1,
            num_mel_filters=self.feature_width,
            min_frequency=50.0,
            max_frequency=14_000.0,
            sampling_rate=_MEL_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        window = window_function(_MEL_WINDOW, "hann")
        levels = spectrogram(
            np.pad(samples, (0, max(0, _MEL_WINDOW - len(samples)))),
            window,
            frame_length=_MEL_WINDOW,
            hop_length=_MEL_HOP,
            power=2.0,
            mel_filters=filters,
            mel_floor=1e-10,
            log_mel="dB",
            min_value=1e-10,
        )
        return feature_tokens(levels.T)


_MEL_RATE_HZ, _MEL_WINDOW, _MEL_HOP, _LONGEST_S = 32_000, 1024, 320, 10


def open_log_mel(path: str | Path | None = None, *, rate_hz: int = RATE_HZ) -> LogMelFeatures:
    """WavCaps' spectrogram, of waveforms as they are, or at a `rate_hz` of 32,000 of their files
    (as published). It has no weights, and needs transformers. RecipeError for another rate."""
    del path
    import_module("transformers.audio_utils")
    if rate_hz not in (RATE_HZ, _MEL_RATE_HZ):
        raise RecipeError(
            f"log-mel: rate_hz is {rate_hz}; take {_MEL_RATE_HZ} as published, or {RATE_HZ}"
        )
    return LogMelFeatures(rate_hz)
