"""What people hold of a recording in Python, as a file's path or a waveform."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.files import from_array, load_bytes
from aligncap.errors import AudioError
from aligncap.values import Waveform


@runtime_checkable
class Arrays(Protocol):
    """What numpy reads as an array: its own, those of torch, jax and others."""

    def __array__(self) -> NDArray[Any]:
        """The array."""


@runtime_checkable
class Decoder(Protocol):
    """An audio column of Hugging Face's datasets since version 4 (torchcodec)."""

    def get_all_samples(self) -> Any:
        """Samples as `data` [channels, time] at `sample_rate`."""


Recording = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Waveform
    | Arrays | Decoder | Mapping[str, Any]
)  # fmt: skip
"""A path; the bytes of a sound file, or one opened for reading; samples; a row of a dataset."""

TAKEN = (
    "give a path, the bytes of a sound file or one opened with 'rb', an array or tensor of samples "
    "together with rate_hz, or a dict with 'array' and 'sampling_rate'"
)

SAMPLES = ("array", "waveform", "raw")
RATES = ("sampling_rate", "sample_rate", "rate_hz")
"""What dicts of samples call them: datasets, torchaudio and pyannote, pipelines of transformers."""


def is_recording(source: object) -> bool:
    """Whether this is one recording, rather than several or nothing that can be heard."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Waveform, Mapping, Arrays, Decoder)
    return isinstance(source, kinds) or hasattr(source, "read")


def several(source: object) -> Iterable[Any]:
    """The recordings of a list, generator or dataset; AudioError for anything else."""
    if isinstance(source, Iterable):
        return source
    raise AudioError(f"{_kind(source)}: is no recording; {TAKEN}")


def held(source: object) -> object:
    """A recording that stays what it is: a file object, which its owner may close, is read."""
    if not hasattr(source, "read") or isinstance(source, os.PathLike):
        return source
    name = str(getattr(source, "name", "file object"))
    try:
        data = source.read()
    except (OSError, ValueError) as error:  # closed, or opened as text and none
        return AudioError(f"{name}: cannot be read ({error}); open it with 'rb'")
    if not isinstance(data, bytes):
        return AudioError(f"{name}: was opened as text; open it with 'rb'")
    return NamedBytes(data, name)


class NamedBytes(bytes):
    """The bytes of a file that has a name for messages."""

    name: str

    def __new__(cls, data: bytes, name: str) -> "NamedBytes":
        """The bytes, with the name."""
        made = super().__new__(cls, data)
        made.name = name
        return made


def recording(source: object, rate_hz: int | None = None) -> Path | Waveform:
    """A recording as a path or waveform; `rate_hz` is that of samples without a rate of their own.

    AudioError for what is none or cannot be read, and for a rate that is no number of Hz.
    """
    rate_hz = None if rate_hz is None else _hertz("rate_hz", rate_hz)
    match held(source):
        case AudioError() as error:
            raise error
        case Waveform() as waveform:
            return waveform
        case str() | os.PathLike() as path:
            return Path(path)
        case bytes() | bytearray() | memoryview() as data:
            return load_bytes(bytes(data), getattr(data, "name", "bytes"))
        case Mapping() as table:
            return _of_table(table, rate_hz)
        case Decoder() as decoder:
            samples = decoder.get_all_samples()
            return from_array(_array(samples.data), int(samples.sample_rate))
        case Arrays() as array:
            if rate_hz is None:
                raise AudioError(
                    "an array of samples has no sampling rate of its own; give rate_hz"
                )
            return from_array(_array(array), rate_hz)
        case other:
            raise AudioError(f"{_kind(other)}: is no recording; {TAKEN}")


def _of_table(table: Mapping[str, Any], rate_hz: int | None) -> Path | Waveform:
    """The recording of a dict: samples with their rate, a sound file as bytes or path, or a row of
    a dataset that has one as "audio"."""
    for name in SAMPLES:
        if table.get(name) is not None:
            rates = [_hertz(one, table[one]) for one in RATES if table.get(one) is not None]
            return recording(np.asarray(_array(table[name])), rates[0] if rates else rate_hz)
    for name in ("bytes", "path", "audio"):
        if table.get(name) is not None:
            return recording(table[name], rate_hz)
    names = ", ".join(map(str, table)) or "nothing"
    raise AudioError(f"dict of {names}: is no recording; {TAKEN}")


def _hertz(name: str, rate: Any) -> int:
    """A sampling rate that somebody gave."""
    if not (hasattr(rate, "__float__") and 1 <= rate < 1e9):
        raise AudioError(f"{name} is {rate!r}; give the sampling rate in Hz, such as 16000")
    return int(rate)


def _array(samples: Any) -> NDArray[Any]:
    """Samples as numpy has them; a tensor may lie elsewhere, need gradients, or be bfloat16."""
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()
        if samples.is_floating_point():
            samples = samples.float()
    try:
        return np.asarray(samples)
    except (TypeError, ValueError) as error:  # of several lengths, or nothing like numbers
        raise AudioError(f"{_kind(samples)}: is no array of samples; {TAKEN}") from error


def _kind(value: object) -> str:
    return type(value).__name__
