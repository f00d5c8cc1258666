"""What cannot be read as sound, and what to do about it: one line for each case."""

import stat
from pathlib import Path
from typing import Literal

from aligncap.errors import AudioError

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
