"""Sound files and arrays to mono float32 at 16 kHz; what cannot be read is one line with a cure."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples, Waveform

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".caf", ".w64", ".rf64"}
)
"""Files of a folder that are taken for recordings."""

UNREADABLE_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr"})
"""Recordings that cannot be read here: taken too, so that the user is told."""

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})
"""Films, of which libsndfile cannot read the sound."""


_FFMPEG = "convert it: ffmpeg -i {name} {stem}.wav"

_FOREIGN = {
    b"\x1a\x45\xdf\xa3": "webm or mkv",
    b"#!AMR": "amr",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "wma",
    b"\x00\x00\x01\xba": "mpeg video",
}
"""Sound or video that libsndfile cannot decode, by its first bytes."""

_NO_SOUND = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive or office document",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
    b"version https://git-lfs": "a Git LFS pointer: fetch it with `git lfs pull`",
}

_UNKNOWN_SIZE = 0x7FFF_0000  # writers to a pipe put sizes from here up, or 0, in the header
_HEADER_SLACK = 1024  # some writers count a header twice


def refuse_unopenable(file: Path) -> None:
    """Raises AudioError unless the path is a regular, readable file that holds something."""
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{file}: is a folder; name the sound files in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{file}: is no regular file; save the sound to a file first")
        if status.st_size == 0:
            raise AudioError(f"{file}: is empty; copy or export it again")
        with file.open("rb"):
            pass
    except FileNotFoundError:
        raise AudioError(f"{file}: does not exist; check the path") from None
    except PermissionError:
        raise AudioError(f"{file}: may not be read; change its permissions (chmod +r)") from None
    except (OSError, ValueError) as error:  # a name with a NUL or too long, a lost network drive
        reason = error.strerror if isinstance(error, OSError) else error
        raise AudioError(f"{str(file)!r}: cannot be opened ({reason}); check the path") from None


def refuse_foreign(file: Path) -> None:
    """Raises AudioError for a file whose first bytes show that libsndfile cannot read it.

    Also for wav and aiff files shorter than their header says, which libsndfile reads in silence.
    """
    with file.open("rb") as opened:
        head = opened.read(512)
    foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        foreign = "m4a, mp4 or 3gp"
    elif head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        foreign = "aac"
    if foreign:
        cure = _FFMPEG.format(name=file.name, stem=file.stem)
        raise AudioError(f"{file}: {foreign} cannot be read; {cure}")
    for magic, kind in _NO_SOUND.items():
        if head.startswith(magic):
            raise AudioError(f"{file}: is {kind}, no sound; name a sound file")
    if _is_text(head):
        raise AudioError(f"{file}: is text, no sound; name a sound file")
    if file.suffix.lower() == ".raw":
        raise AudioError(
            f"{file}: raw samples do not say their rate and type; convert it: "
            f"ffmpeg -f s16le -ar 16000 -i {file.name} {file.stem}.wav"
        )
    _refuse_short_container(file, head)


def refuse_length(file: Path, *, length_s: float, longest_s: float) -> None:
    """Raises AudioError for a recording that is too long to be an utterance."""
    if length_s > longest_s:
        raise AudioError(
            f"{file}: is longer than {longest_s / 60:.0f} minutes; split it: "
            f"ffmpeg -i {file.name} -f segment -segment_time 60 {file.stem}-%03d.wav"
        )


def _is_text(head: bytes) -> bool:
    """Whether these first bytes of a file are readable text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a letter was cut at the end of what was read
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)


def _refuse_short_container(file: Path, head: bytes) -> None:
    """Raises AudioError for a wav or aiff file shorter than its header says."""
    order: Literal["little", "big"] = "little" if head[:4] == b"RIFF" else "big"
    if head[:4] not in (b"RIFF", b"FORM") or len(head) < 12:
        return
    promised = int.from_bytes(head[4:8], order)
    held = file.stat().st_size - 8
    if held + _HEADER_SLACK < promised < _UNKNOWN_SIZE:
        raise AudioError(
            f"{file}: cut short ({held} of {promised} bytes are there); copy or export it again"
        )


LONGEST_S: Final = 3600.0
"""Longer recordings are refused: they are not one utterance, and would fill the memory."""

_BLOCK = 1 << 18
_ENDLESS = 1 << 62  # libsndfile's "unknown" is the largest number it has
_MP3_SLACK = 0.9  # without a header of its own, the length of an mp3 is an estimate


def load(path: str | Path) -> Waveform:
    """The sound of a file as a waveform: channels averaged, resampled to 16 kHz.

    Reads what libsndfile reads (wav, flac, ogg, opus, mp3, aiff, au, caf …), of any rate and
    channel count. Raises AudioError, naming the file and the cure, for a file that is missing,
    empty, no sound, cut short, longer than an hour, or holds NaN.
    """
    file = Path(path)
    refuse_unopenable(file)
    refuse_foreign(file)
    try:
        with soundfile.SoundFile(_place(file)) as sound:
            samples = _read(sound, file)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().removeprefix("Error :").strip(" .").lower()
        raise AudioError(
            f"{file}: is cut short, damaged or no sound ({reason}); export it again as wav or flac"
        ) from error
    return Waveform(samples, str(file))


def _read(sound: soundfile.SoundFile, file: Path) -> Samples:
    """All of an open file, mono at 16 kHz."""
    promised, rate_hz = int(sound.frames), int(sound.samplerate)
    if promised >= _ENDLESS:
        raise AudioError(
            f"{file}: its header does not say how long it is; write it anew: "
            f"ffmpeg -i {file.name} {file.stem}-whole.wav"
        )
    refuse_length(file, length_s=promised / rate_hz, longest_s=LONGEST_S)
    # Block by block, so that an hour of many channels at a high rate is never held at once.
    resampler = None if rate_hz == RATE_HZ else soxr.ResampleStream(rate_hz, RATE_HZ, 1, "float32")
    done: list[Samples] = []
    count = 0
    for mono in _mono_blocks(sound, file):
        count += len(mono)
        done.append(resampler.resample_chunk(mono) if resampler else mono)
    if resampler:
        done.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    if count == 0:
        raise AudioError(
            f"{file}: holds no samples, or its header was never finished; write it anew: "
            f"ffmpeg -i {file.name} {file.stem}-whole.wav"
        )
    if count < promised * (_MP3_SLACK if sound.format == "MP3" else 1.0):
        raise AudioError(
            f"{file}: cut short ({count} of {promised} samples could be read); "
            "copy or export it again"
        )
    # Float files may exceed full scale, and resampling overshoots where a wave was clipped.
    return np.clip(np.concatenate(done), -1.0, 1.0)


def _mono_blocks(sound: soundfile.SoundFile, file: Path) -> Iterator[Samples]:
    """The mean of all channels, a stretch at a time."""
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            bad = int((~np.isfinite(block)).any(axis=1).sum())
            raise AudioError(f"{file}: {bad} samples are NaN or infinite; export it again")
        yield block.mean(axis=1, dtype=np.float32)


def _place(file: Path) -> bytes | Path:
    """Where libsndfile finds a file: its bytes, since a name need not be UTF-8."""
    return os.fsencode(file) if os.name == "posix" else file


_LOWEST_RATE_HZ = 1_000
_HIGHEST_RATE_HZ = 768_000
_MOST_CHANNELS = 64
_FULL_SCALE_SLACK = 8.0  # floats a little over full scale are clipped, far over it are a mistake


def from_array(samples: NDArray[np.generic], rate_hz: int) -> Waveform:
    """Samples in memory as a waveform: [time] or [time, channels], of any rate.

    Floating-point samples are in [-1, 1]; whole numbers are scaled by the range of their type.
    Raises AudioError for samples that are empty, not real, not finite, of a third dimension, far
    beyond full scale, or longer than an hour.
    """
    array = np.asarray(samples)
    _refuse(array, rate_hz)
    scaled = _as_float(array)
    if not np.isfinite(scaled).all():
        raise AudioError("array: holds NaN or infinite samples; take them out")
    largest = float(np.abs(scaled).max())
    if largest > _FULL_SCALE_SLACK:
        raise AudioError(f"array: samples reach {largest:.0f}; scale them to [-1, 1]")
    mono = scaled.reshape(len(scaled), -1).mean(axis=1, dtype=np.float32)
    if rate_hz != RATE_HZ:
        mono = np.asarray(soxr.resample(mono, rate_hz, RATE_HZ, quality="HQ"), np.float32)
    return Waveform(np.clip(mono, -1.0, 1.0))


def _refuse(array: NDArray[np.generic], rate_hz: int) -> None:
    """Raises AudioError for an array that is not samples over time."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise AudioError(
            f"array: type {array.dtype}, shape {list(array.shape)}; "
            "give real numbers of shape [time] or [time, channels]"
        )
    if array.size == 0:
        raise AudioError("array: holds no samples; give at least one")
    if array.ndim == 2 and array.shape[1] > _MOST_CHANNELS:
        raise AudioError(
            f"array: {array.shape[1]} channels of {array.shape[0]} samples; "
            "give shape [time, channels] (transposed)"
        )
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise AudioError(
            f"array: rate is {rate_hz} Hz; give one from {_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ}"
        )
    if len(array) / rate_hz > LONGEST_S:
        raise AudioError(f"array: is longer than {LONGEST_S / 60:.0f} minutes; split it")


def _as_float(array: NDArray[np.generic]) -> Samples:
    """Any real samples as float32, full scale at 1."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    full = 2.0 ** (8 * array.dtype.itemsize - 1)
    middle = full if array.dtype.kind == "u" else 0.0  # unsigned samples rest at half their range
    return ((array.astype(np.float64) - middle) / full).astype(np.float32)
