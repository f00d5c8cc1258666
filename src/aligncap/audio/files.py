"""Sound files and arrays to mono float32 at 16 kHz; what cannot be read is one line with a hint.

What is heard does not depend on how it is stored: files that were joined are read to the end of the
last, of several channels those are taken that carry the speech, and a constant offset is removed.
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from aligncap.audio import containers, media
from aligncap.audio.activity import Floats, channel_mixes, spoken_in
from aligncap.errors import AudioError
from aligncap.values import RATE_HZ, Samples, Waveform

LOG = logging.getLogger(__name__)

LONGEST_S: Final = 3600.0
"""Longer recordings are refused: they are not one utterance, and would fill the memory."""

_BLOCK = 1 << 18
_ENDLESS = 1 << 62  # libsndfile's "unknown" is the largest number it has
_MP3_SLACK = 0.9  # without a header of its own, the length of an mp3 is an estimate
_HELD = 1 << 23  # samples of all channels that are kept rather than decoded twice

Block = Samples
"""A stretch of sound, [time, channels]."""
Source = Callable[[], bytes | Path | BinaryIO]
"""Gives what libsndfile opens, each time anew."""


def load(path: str | Path) -> Waveform:
    """The sound of a file as a waveform: the channels that carry speech, resampled to 16 kHz.

    Reads what libsndfile reads (wav, flac, ogg, opus, mp3, aiff, au, caf …), of any rate and
    channel count, and all parts of files that were joined; by PyAV also m4a, mp4, webm, mkv, amr
    and wma, the sound of films included. Raises AudioError, naming the file and
    the hint, for a file that is missing, empty, no sound, cut short, longer than an hour, scaled to
    whole numbers, or holds NaN.
    """
    file = Path(path)
    samples, mixes = _heard(file, str(file))
    return Waveform(samples, str(file), partial(read_at, file, mixes))


def _heard(file: Path, name: str) -> tuple[Samples, list[Floats]]:
    """What `load` hears in a file, and the weights of the channels of each of its parts; `name` is
    what warnings call it."""
    if kind := foreign_kind(file):
        samples, mix = _of_media(file, kind, name)
        return samples, [mix]
    done: list[Samples] = []
    mixes: list[Floats] = []
    with damage_told(file):
        for source in sources(file):
            with opened_sound(source, file) as sound:
                samples, mix = _read(sound, source, file, name)
            done.append(samples)
            mixes.append(mix)
            _refuse_length(file, sum(map(len, done)) / RATE_HZ)
    return done[0] if len(done) == 1 else np.concatenate(done), mixes


def read_at(file: Path, mixes: Sequence[Floats], rate_hz: int, start: int, end: int) -> Samples:
    """The channels of a file that `load` reads, mixed as it mixes them, at another rate: float32,
    shape [time]. `mixes` are the weights of the channels, [channels], of each part of the file.
    `start` and `end` are samples of what `load` gives; little more of the file than what lies
    between is read. AudioError as `load`."""
    if kind := foreign_kind(file):
        decoded = partial(_between, media.blocks(file, kind))
        own_hz = media.track(file, kind).rate_hz
        return _piece(_mixed(decoded, mixes[0]), own_hz, rate_hz, start, end)
    done = []
    with damage_told(file):
        for source, mix in zip(sources(file), mixes, strict=True):
            with opened_sound(source, file) as sound:
                own_hz = int(sound.samplerate)
                if len(mixes) == 1:
                    read = _mixed(partial(_sought, sound, file), mix)
                    return _piece(read, own_hz, rate_hz, start, end)
                mono = (block @ mix for block in Blocks(sound, file))
                done.append(_resampled(mono, own_hz, rate_hz))
    return np.concatenate(done)[_place_at(start, rate_hz) : _place_at(end, rate_hz)]


Read = Callable[[int, int], Iterable[Samples]]
"""Given a frame and a count of frames, reads these."""


def _mixed(read: Read, mix: Floats) -> Read:
    return lambda first, count: (block @ mix for block in read(first, count))


def _piece(read: Read, own_hz: int, rate_hz: int, start: int, end: int) -> Samples:
    """What `read` reads of one channel from `start` to `end`, at another rate. A second more is
    read on both sides, where a resampler looks, too; whole seconds begin with a sample at any
    rate."""
    first_s, last_s = max(0, start // RATE_HZ - 1), -(-end // RATE_HZ) + 1
    blocks = read(first_s * own_hz, (last_s - first_s) * own_hz)
    found = _resampled(blocks, own_hz, rate_hz)
    before = first_s * rate_hz
    return found[_place_at(start, rate_hz) - before : _place_at(end, rate_hz) - before]


def _place_at(place: int, rate_hz: int) -> int:
    """A place in samples of 16 kHz at another rate."""
    return round(place * rate_hz / RATE_HZ)


def _sought(sound: soundfile.SoundFile, file: Path, first: int, count: int) -> Iterator[Block]:
    """Of an open file `count` frames from the `first` on."""
    sound.seek(min(first, sound.frames))
    return _between(Blocks(sound, file), 0, count)


def _between(blocks: Iterable[Block], first: int, count: int) -> Iterator[Block]:
    """Of the frames of blocks `count` from the `first` on."""
    for block in blocks:
        piece = block[first : first + count]
        first = max(0, first - len(block))
        if len(piece):
            count -= len(piece)
            yield piece
        if count <= 0:
            return


def samples_at(waveform: Waveform, rate_hz: int) -> Samples:
    """The samples of a waveform at another rate: float32, shape [round(time · rate / 16 kHz)]."""
    if rate_hz == RATE_HZ or not len(waveform.samples):
        return waveform.samples
    resampled = soxr.resample(waveform.samples, RATE_HZ, rate_hz)
    if not len(resampled):  # one sample brought down: its only frame is that sample
        return waveform.samples
    return np.ascontiguousarray(resampled, dtype=np.float32)


def load_bytes(data: bytes, name: str) -> Waveform:
    """The sound of a file in memory, as `load`; `name` is what errors and warnings call it."""
    with TemporaryDirectory(prefix="aligncap-") as folder:
        file = Path(folder) / "sound"
        file.write_bytes(data)
        try:
            return Waveform(_heard(file, name)[0], name)
        except AudioError as error:
            raise AudioError(str(error).replace(str(file), name)) from None


def read_header(path: str | Path) -> tuple[float, int]:
    """Length in seconds and sampling rate that a sound file says it has; AudioError as `load`."""
    file = Path(path)
    if kind := foreign_kind(file):
        track = media.track(file, kind)
        length_s = track.length_s or sum(map(len, media.blocks(file, kind))) / track.rate_hz
        return length_s, track.rate_hz
    length_s, rate_hz = 0.0, RATE_HZ
    with damage_told(file):
        for source in sources(file):
            with opened_sound(source, file) as sound:
                rate_hz = int(sound.samplerate)
                length_s += sound.frames / rate_hz
    return length_s, rate_hz


def foreign_kind(file: Path) -> str | None:
    """What a file is that libsndfile does not decode; None for the others."""
    containers.refuse_unopenable(file)
    with file.open("rb") as opened:
        return containers.foreign_kind(opened.read(16))


def _of_media(file: Path, kind: str, name: str) -> tuple[Samples, Floats]:
    """All of a file that PyAV decodes, mono at 16 kHz, and its mix."""
    rate_hz, channels, _ = media.track(file, kind)
    counted = 0

    def blocks() -> Iterator[Block]:
        nonlocal counted
        counted = 0
        for block in media.blocks(file, kind):
            counted += len(block)
            _refuse_length(file, counted / rate_hz)
            yield checked(block, file)

    mono, mix = _only(blocks(), rate_hz) if channels == 1 else _mono(blocks, rate_hz)
    return _finished(mono, name), mix


@contextmanager
def damage_told(file: Path) -> Iterator[None]:
    """Turns errors of libsndfile into one line with a hint."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().removeprefix("Error :").strip(" .").lower()
        raise AudioError(
            f"{file}: is cut short, damaged or no sound ({reason}); export it again as wav or flac"
        ) from error


def sources(file: Path) -> list[Source]:
    """What is to be decoded of a file; raises AudioError where that cannot be."""
    containers.refuse_unopenable(file)
    with file.open("rb") as opened:
        head = opened.read(1024)
        containers.refuse_silent_kinds(file, head)
        parts = containers.parts_of(file, opened, head)
        size = opened.seek(0, os.SEEK_END)
    if len(parts) == 1 and parts[0].stop == size and not parts[0].before:
        return [partial(_place, file)]
    return [partial(_bytes_of, file, part) for part in parts]


@contextmanager
def opened_sound(source: Source, file: Path) -> Iterator[soundfile.SoundFile]:
    """One of the sources of a file; AudioError for a container that cannot be told to be whole."""
    with soundfile.SoundFile(source()) as sound:
        if sound.format not in containers.READABLE:
            raise AudioError(
                f"{file}: {sound.format_info} is not read here; "
                + containers.FFMPEG.format(name=file.name, stem=file.stem)
            )
        if sound.frames >= _ENDLESS:
            raise AudioError(
                f"{file}: its header does not say how long it is; write it anew: "
                f"ffmpeg -i {file.name} {file.stem}-whole.wav"
            )
        yield sound


def _bytes_of(file: Path, part: containers.Part) -> BinaryIO:
    """A part of a file as a file of its own."""
    with file.open("rb") as opened:
        opened.seek(part.start)
        return io.BytesIO(part.before + opened.read(part.stop - part.start))


def _place(file: Path) -> bytes | Path:
    """Where libsndfile finds a file: its bytes, since a name need not be UTF-8."""
    return os.fsencode(file) if os.name == "posix" else file


def _read(
    sound: soundfile.SoundFile, source: Source, file: Path, name: str
) -> tuple[Samples, Floats]:
    """All of an open file, mono at 16 kHz, and its mix."""
    promised, rate_hz = int(sound.frames), int(sound.samplerate)
    _refuse_length(file, promised / rate_hz)
    once = Blocks(sound, file)
    # Block by block, so that an hour of many channels at a high rate is never held at once.
    if sound.channels == 1:
        mono, mix = _only(once, rate_hz)
    elif promised * sound.channels <= _HELD:
        kept = list(once)
        mono, mix = _mono(lambda: kept, rate_hz)
    else:
        mono, mix = _mono(partial(_decoded, once, source), rate_hz)
    refuse_cut(sound, once, file)
    return _finished(mono, name), mix


def refuse_cut(sound: soundfile.SoundFile, read: "Blocks", file: Path) -> None:
    """Raises AudioError where fewer samples could be read than a file promises."""
    if read.count == 0:
        raise AudioError(
            f"{file}: holds no samples, or its header was never finished; write it anew: "
            f"ffmpeg -i {file.name} {file.stem}-whole.wav"
        )
    if read.count < sound.frames * (_MP3_SLACK if sound.format == "MP3" else 1.0):
        raise containers.cut_short(file, f"{read.count} of {sound.frames} samples could be read")


def _decoded(once: "Blocks", source: Source) -> Iterator[Block]:
    """The blocks of a file, decoded anew once they were read."""
    if once.count == 0:
        yield from once
    else:
        with soundfile.SoundFile(source()) as sound:
            yield from Blocks(sound, once.file)


def _refuse_length(file: Path, length_s: float) -> None:
    """Raises AudioError for a recording that is too long to be an utterance."""
    if length_s > LONGEST_S:
        raise AudioError(
            f"{file}: is longer than {LONGEST_S / 60:.0f} minutes; split it: "
            f"ffmpeg -i {file.name} -f segment -segment_time 60 {file.stem}-%03d.wav"
        )


class Blocks:
    """The blocks of an open file; counts their samples."""

    def __init__(self, sound: soundfile.SoundFile, file: Path) -> None:
        self._sound, self.file = sound, file
        self._length = max(1, min(_BLOCK, 8 * _BLOCK // sound.channels))
        self.count = 0

    def __iter__(self) -> Iterator[Block]:
        while self.count < self._sound.frames:  # to read at the end costs a search of it
            block = self._sound.read(self._length, dtype="float32", always_2d=True)
            if not len(block):
                return
            self.count += len(block)
            yield checked(block, self.file)


def checked(block: Block, file: Path) -> Block:
    """A block of a file; AudioError for one that is not finite or scaled to whole numbers."""
    low, high = float(block.min()), float(block.max())
    if not math.isfinite(high - low):
        bad = int((~np.isfinite(block)).any(axis=1).sum())
        raise AudioError(f"{file}: {bad} samples are NaN or infinite; export it again")
    _refuse_scale(max(high, -low), str(file))
    return block


def _only(blocks: Iterable[Block], rate_hz: int) -> tuple[Samples, Floats]:
    """The only channel at 16 kHz, and its weight."""
    return _resampled((block[:, 0] for block in blocks), rate_hz), np.ones(1, np.float32)


def _mono(blocks: Callable[[], Iterable[Block]], rate_hz: int) -> tuple[Samples, Floats]:
    """The channels that carry speech, mixed to keep its level, at 16 kHz; and their weights."""
    mixes = channel_mixes(blocks())
    heard = [_resampled((block @ mix for block in blocks()), rate_hz) for mix in mixes]
    mono = spoken_in(heard)
    return mono, np.asarray(_shares(heard, mono) @ np.stack(mixes), np.float32)


def _shares(sounds: Sequence[Samples], mono: Samples) -> Floats:
    """How much of each sound is in their sum, by least squares, since some may not be in it."""
    if len(sounds) == 1:
        return np.ones(1, np.float32)
    products = [[float(np.vdot(one, other)) for other in sounds] for one in sounds]
    wanted = [float(np.vdot(one, mono)) for one in sounds]
    return np.asarray(np.linalg.lstsq(products, wanted, rcond=1e-6)[0].round(3), np.float32)


def _resampled(blocks: Iterable[Samples], rate_hz: int, to_hz: int = RATE_HZ) -> Samples:
    """Stretches of one channel at another rate."""
    if rate_hz == to_hz:
        return np.concatenate([np.zeros(0, np.float32), *blocks])
    resampler = soxr.ResampleStream(rate_hz, to_hz, 1, "float32")
    done = [resampler.resample_chunk(block) for block in blocks]
    return np.concatenate([*done, resampler.resample_chunk(np.zeros(0, np.float32), last=True)])


_FULL_SCALE_SLACK = 8.0  # floats further over full scale are whole numbers, or a mistake
OVERSHOOT: Final = 1.25  # of codecs and resamplers where a wave was clipped
OFFSET_S: Final = 0.1
_OFFSET_SHARE = 0.02  # of the amplitude: in pauses, less hides nothing
_DRIFT_SHARE = 0.1


def _refuse_scale(peak: float, name: str) -> None:
    """Raises AudioError for samples that are not in [-1, 1] but whole numbers."""
    if peak > _FULL_SCALE_SLACK:
        raise AudioError(
            f"{name}: samples reach {peak:.0f}, full scale is 1; "
            "scale them to [-1, 1] (whole numbers of 16 bits: divide by 32768)"
        )


def _finished(mono: Samples, name: str) -> Samples:
    """Samples without a constant or drifting offset, in [-1, 1]."""
    mono = _without_offset(mono)
    full = full_scale(float(np.abs(mono).max(initial=0.0)), name)
    return np.clip(mono / np.float32(full) if full > 1.0 else mono, -1.0, 1.0)


def full_scale(largest: float, name: str) -> float:
    """What samples that reach `largest` are divided by; warns where that is not 1."""
    if largest <= OVERSHOOT:
        return 1.0
    LOG.warning("%s: samples reach %.1f and are scaled to full scale, 1", name, largest)
    return largest


def _without_offset(samples: Samples) -> Samples:
    """Samples without what lies below all sound."""
    length = round(OFFSET_S * RATE_HZ)
    count = len(samples) // length
    if count == 0:
        return samples
    means = samples[: count * length].reshape(count, length).mean(axis=1)
    offset = float(samples.mean(dtype=np.float64))
    power = float(np.vdot(samples, samples)) / len(samples) - offset * offset
    return lifted(samples, below_sound(means, offset, power), length)


def below_sound(means: Samples, offset: float, power: float) -> Samples:
    """What lies below all sound: a constant, shape [1], or a drift of several hertz at most, which
    is `means`, those of frames of `OFFSET_S`; [0] where it is small beside the sound, so that
    most recordings stay as they are. `offset` is the mean of all, `power` that of the rest."""
    if float(np.square(means - offset).mean()) > _DRIFT_SHARE**2 * power:
        return means
    is_heard = offset * offset > _OFFSET_SHARE**2 * power
    return np.full(int(is_heard), offset, np.float32)


def lifted(samples: Samples, below: Samples, length: float, first: int = 0) -> Samples:
    """Samples, the `first` of them and those after it, without what lies below them; `length` is
    that of its frames in samples."""
    if len(below) < 2:
        return samples - below[0] if len(below) else samples
    middles = (np.arange(len(below)) + 0.5) * length
    drift = np.interp(first + np.arange(len(samples)), middles, below)
    return np.asarray(samples - drift, np.float32)


_LOWEST_RATE_HZ = 1_000
_HIGHEST_RATE_HZ = 768_000
_MOST_CHANNELS = 64


def from_array(samples: NDArray[np.generic], rate_hz: int) -> Waveform:
    """Samples in memory as a waveform: [time], [time, channels] or [channels, time], of any rate.

    Floating-point samples are in [-1, 1]; whole numbers are scaled by the range of their type.
    Raises AudioError for samples that are empty, not real, not finite, of a third dimension, far
    beyond full scale, or longer than an hour.
    """
    array = np.asarray(samples)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:  # no recording has so many channels
        array = array.T
    _refuse(array, rate_hz)
    scaled = _as_float(array)
    if not np.isfinite(scaled).all():
        raise AudioError("array: holds NaN or infinite samples; take them out")
    _refuse_scale(float(np.abs(scaled).max()), "array")
    many = scaled.reshape(len(scaled), -1)
    if many.shape[1] == 1:
        mono = _resampled([many[:, 0]], rate_hz)
    else:
        mono, _ = _mono(lambda: [many], rate_hz)
    return Waveform(_finished(mono, "array"))


def _refuse(array: NDArray[np.generic], rate_hz: int) -> None:
    """Raises AudioError for an array that is not samples over time."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise AudioError(
            f"array: type {array.dtype}, shape {list(array.shape)}; "
            "give real numbers of shape [time], [time, channels] or [channels, time]"
        )
    if array.size == 0:
        raise AudioError("array: holds no samples; give at least one")
    if array.ndim == 2 and array.shape[1] > _MOST_CHANNELS:
        raise AudioError(
            f"array: {array.shape[1]} channels of {array.shape[0]} samples; "
            f"give at most {_MOST_CHANNELS}"
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
