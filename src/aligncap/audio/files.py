"""Reading sound files: whatever libsndfile knows, to mono float32 at 16 kHz."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr

from aligncap.audio.refusals import refuse_foreign, refuse_length, refuse_unopenable
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples, Waveform

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
