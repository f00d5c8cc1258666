"""What a sound file is made of: its container, whether it is whole, and the files joined in it.

libsndfile decodes; here is what it passes over in silence: it reads the first of joined files, and
as much as there is of one that was cut.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from aligncap.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".caf", ".w64", ".rf64"}
)
"""Files of a folder that are taken for recordings."""

MEDIA_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".mkv", ".3gp"})
"""Recordings that only PyAV reads: taken too, so that who has it not is told."""

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})
"""Films, of which PyAV reads the sound."""


FFMPEG = "convert it: ffmpeg -i {name} {stem}.wav"
"""The hint of a file that cannot be read here."""

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


def foreign_kind(head: bytes) -> str | None:
    """What a file is by its first bytes, where libsndfile cannot read it but PyAV may."""
    if head[4:8] in (b"ftyp", b"moov"):
        return "m4a, mp4 or 3gp"
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "aac"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    return next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)


def refuse_silent_kinds(file: Path, head: bytes) -> None:
    """Raises AudioError for a file whose first bytes show that it is no sound."""
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


def _is_text(head: bytes) -> bool:
    """Whether these first bytes of a file are readable text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a letter was cut at the end of what was read
            return False
        text = head[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)


_UNKNOWN_SIZE = 0x7FFF_0000  # writers to a pipe put sizes from here up, or 0, in the header
_HEADER_SLACK = 1024  # some writers count a header twice
_STARTS = {
    b"RIFF": rb"RIFF....WAVE",
    b"RIFX": rb"RIFX....WAVE",
    b"RF64": rb"RF64....WAVEds64",
    b"BW64": rb"BW64....WAVEds64",
    b"FORM": rb"FORM....(AIF[FC]|8SVX|16SV)",
    b"riff": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",
    b".snd": rb"\.snd\0\0......\0\0\0[\x01-\x1b]",
    b"caff": rb"caff\0\x01\0\0desc",
    b"fLaC": rb"fLaC[\0\x80]\0\0\x22",
    b"NIST": rb"NIST_1A\n +\d+\n",
}
"""First bytes of a container → what a whole file in it begins with."""

READABLE = frozenset(
    {"WAV", "WAVEX", "RF64", "W64", "AIFF", "SVX", "AU", "CAF", "FLAC", "NIST", "OGG", "MP3"}
)
"""Containers, by libsndfile's names, of which it can be told whether a file is cut or joined."""


class Part(NamedTuple):
    """One of the sound files that were joined, or the only one."""

    start: int
    stop: int
    """Where it begins and ends, in bytes."""
    before: bytes = b""
    """What libsndfile has to be given before it."""


def cut_short(file: Path, what: str) -> AudioError:
    """The refusal of a file that is not whole."""
    return AudioError(f"{file}: cut short ({what}); copy or export it again")


def parts_of(file: Path, opened: BinaryIO, head: bytes) -> list[Part]:
    """The sound files that a file holds one after the other, nearly always one.

    libsndfile reads the first of them in silence. Raises AudioError for one that is cut short.
    """
    size = file.stat().st_size
    if head.startswith(b"ID3") or _frame_length(head):
        return _mp3_parts(file, opened, size)
    if head.startswith(b"OggS"):
        starts = _ogg_starts(file, opened, size)
    elif head[:4] in _STARTS:
        return _container_parts(file, opened, size, head)
    else:
        starts = [0]
    return [Part(*both) for both in zip(starts, [*starts[1:], size], strict=True)]


def _declared_size(opened: BinaryIO, start: int) -> int | None:
    """How many bytes a file has by its own header; None where it does not say."""
    opened.seek(start)
    head = opened.read(1024)
    order: Literal["little", "big"] = "big" if head[:4] in (b"RIFX", b"FORM", b".snd") else "little"
    match head[:4]:
        case b"RIFF" | b"RIFX" | b"FORM":
            sized = int.from_bytes(head[4:8], order)
            return sized + 8 if 0 < sized < _UNKNOWN_SIZE else None
        case b"RF64" | b"BW64":
            return int.from_bytes(head[20:28], order) + 8
        case b"riff":
            return int.from_bytes(head[16:24], order)
        case b".snd":
            sized = int.from_bytes(head[8:12], order)
            return int.from_bytes(head[4:8], order) + sized if sized < _UNKNOWN_SIZE else None
        case b"caff":
            return _declared_caf(opened, start)
        case b"NIST":
            told = dict(re.findall(rb"(\w+) -i (\d{1,12})\n", head))
            if b"sample_count" in told:
                one = int(told.get(b"channel_count", 1)) * int(told.get(b"sample_n_bytes", 2))
                return int(head[8:16]) + int(told[b"sample_count"]) * one
    return None


def _declared_caf(opened: BinaryIO, start: int) -> int | None:
    """Bytes to the end of the sound of a CAF; None where that is not said."""
    at = start + 8
    while True:
        opened.seek(at)
        chunk = opened.read(12)
        sized = int.from_bytes(chunk[4:], "big", signed=True)
        if len(chunk) < 12 or sized < 0:
            return None
        at += 12 + sized
        if chunk.startswith(b"data"):
            return at - start


def _container_parts(file: Path, opened: BinaryIO, size: int, head: bytes) -> list[Part]:
    """The sound files that were joined in a container with a header."""
    begins = re.compile(_STARTS[head[:4]], re.DOTALL)
    if not begins.match(head):
        return [Part(0, size)]
    parts: list[Part] = []
    at: int | None = 0
    while at is not None:
        declared = _declared_size(opened, at)
        slack = min(_HEADER_SLACK, max(128, (declared or 0) // 100))
        if declared and at + declared > size + slack:
            raise cut_short(file, f"{size - at} of {declared} bytes are there")
        after = _found(opened, begins, head[:4], at + max(4, declared or 0))
        stop = after or size
        if declared and head[:4] in (b"riff", b"NIST"):  # what follows is taken for sound
            stop = min(stop, at + declared)
        parts.append(Part(at, stop))
        at = after
    return parts


def _found(opened: BinaryIO, pattern: "re.Pattern[bytes]", magic: bytes, start: int) -> int | None:
    """Where from `start` on a pattern that begins with `magic` is next found."""
    while True:
        opened.seek(start)
        block = opened.read(1 << 16)
        at = block.find(magic)
        while at >= 0:
            if pattern.match(block, at):
                return start + at
            at = block.find(magic, at + 1)
        if len(block) < 1 << 16:
            return None
        start += len(block) - 64


_OGG_PAGE = re.compile(rb"OggS\0")


def _ogg_starts(file: Path, opened: BinaryIO, size: int) -> list[int]:
    """Where the links of a chained ogg begin (RFC 3533); every link has to have its last page."""
    starts = [0]
    at: int | None = 0
    first, ended = True, False
    while at is not None and at < size:
        opened.seek(at)
        head = opened.read(27 + 255)
        if len(head) < 27 or not _OGG_PAGE.match(head):
            at = _found(opened, _OGG_PAGE, b"OggS", at + 1)
            continue
        if head[5] & 2 and not first:
            if not ended:
                break
            starts.append(at)
            ended = False
        first = bool(head[5] & 2)
        at += 27 + head[26] + sum(head[27 : 27 + head[26]])
        ended = (ended or bool(head[5] & 4)) and at <= size
    if not ended:
        raise cut_short(file, "its last page is missing")
    return starts


_KBPS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates by version (3 is MPEG-1) and layer (3 is I), as headers number them."""
_MP3_RATES_HZ = (44_100, 48_000, 32_000)
_FRAME_HEAD = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]")
_COUNTED = re.compile(rb"Xing|Info|VBRI")
_MOST_TRIES = 5_000  # of bytes that look like a frame; 10 MB of noise have fewer
_COUNT_SLACK = 8  # frames; some writers count their header, some forget a tag


def _frame_length(head: bytes) -> int:
    """Bytes of the MPEG audio frame that begins here; 0 where none does."""
    if len(head) < 4 or not _FRAME_HEAD.match(head):
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate = head[2] >> 2 & 3
    if version == 1 or layer == 0 or rate == 3:
        return 0
    kbps = _KBPS[max(version, 2), layer][(head[2] >> 4) - 1]
    rate_hz = _MP3_RATES_HZ[rate] >> (3 - version if version else 2)
    padding = head[2] >> 1 & 1
    if layer == 3:
        return (12_000 * kbps // rate_hz + padding) * 4
    return (72_000 if layer == 1 and version != 3 else 144_000) * kbps // rate_hz + padding


def _tag_length(head: bytes) -> int:
    """Bytes of the tag of an mp3 that begins here; 0 where none does."""
    if head.startswith(b"ID3") and len(head) >= 10:
        low = [byte & 127 for byte in head[6:10]]
        footer = 10 if head[5] & 16 else 0
        return 10 + (low[0] << 21) + (low[1] << 14) + (low[2] << 7) + low[3] + footer
    if head.startswith(b"APETAGEX"):
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head.startswith(b"TAG") else 0


def _promised_frames(head: bytes) -> int | None:
    """Frames that a part of an mp3 has by its first frame; None where that is sound already."""
    told = _COUNTED.search(head)
    if not told:
        return None
    at = told.start()
    if told[0] == b"VBRI":
        return int.from_bytes(head[at + 14 : at + 18], "big")
    return int.from_bytes(head[at + 8 : at + 12], "big") if head[at + 7] & 1 else 0


@dataclass(slots=True)
class _Frames:
    """The frames of one of the mp3 files that were joined."""

    start: int
    head: bytes
    promised: int | None
    count: int = 0
    full: int = 0
    """Where the last of those promised ends."""

    def part(self, stop: int) -> Part:
        """The part up to `stop`. Without a count, libsndfile guesses where an mp3 ends: so it is
        given a frame that holds one (Xing's header)."""
        version, layer, mono = self.head[1] >> 3 & 3, self.head[1] >> 1 & 3, self.head[3] >> 6 == 3
        if self.promised or layer != 1:
            return Part(self.start, stop)
        first = bytes([0xFF, self.head[1] | 1, 0x80 | self.head[2] & 0x0C, self.head[3]])
        side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
        frame = first + bytes(side) + b"Info\0\0\0\1" + self.count.to_bytes(4, "big")
        return Part(self.start, stop, frame.ljust(_frame_length(first), b"\0"))


def _mp3_parts(file: Path, opened: BinaryIO, size: int) -> list[Part]:
    """The mp3 files that were joined: each begins at a tag, with a count, or after the last's."""
    found: list[_Frames] = []
    at: int | None = 0
    tagged, torn = True, False
    while at is not None and at < size:
        opened.seek(at)
        head = opened.read(64)
        if skip := _tag_length(head):
            tagged, at = tagged or head.startswith(b"ID3"), at + skip
            continue
        length = _frame_length(head)
        if not length:
            at = _next_frame(file, opened, at + 1)
            continue
        promised = _promised_frames(head[:length])
        if tagged or promised is not None:
            found.append(_Frames(at, head[:4], promised))
            tagged = False
        last = found[-1]
        if last.promised and last.count == last.promised + _COUNT_SLACK:
            found.append(_Frames(last.full, head[:4], None, _COUNT_SLACK))
            last.count, last = last.promised, found[-1]
        torn = at + length > size
        at += length
        if promised is None:
            last.count += not torn
            last.full = at if last.count == last.promised else last.full
    for one in found:
        if one.count < (one.promised or 0) - 1:
            raise cut_short(file, f"{one.count} of {one.promised} frames are there")
    if torn and not found[-1].promised:
        raise cut_short(file, "its last frame is not whole")
    stops = [*(one.start for one in found[1:]), size]
    return [one.part(stop) for one, stop in zip(found, stops, strict=True)] or [Part(0, size)]


def _next_frame(file: Path, opened: BinaryIO, start: int) -> int | None:
    """Where, after something else, two frames of an mp3 follow each other."""
    for _ in range(_MOST_TRIES):
        at = _found(opened, _FRAME_HEAD, b"\xff", start)
        if at is None:
            return None
        opened.seek(at)
        length = _frame_length(opened.read(4))
        opened.seek(at + length)
        if length and _frame_length(opened.read(4)):
            return at
        start = at + 1
    raise AudioError(f"{file}: is damaged or no mp3; export it again as wav or flac")
