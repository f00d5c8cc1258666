"""From what was typed to the recordings meant: files, folders, globs, manifests, standard input."""

import glob
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from aligncap.audio.suffixes import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES
from aligncap.cli.world import World
from aligncap.errors import AlignCapError, AudioError, DataError
from aligncap.values import Waveform

SOUND_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd", b"ID3", b"\xff\xfb")
"""How a sound file begins; on standard input, it tells audio from a list of paths."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recording: what to call it, and where its sound is or why there is none."""

    file: str
    """As typed or found; the `file` of a record."""
    audio: Path | Waveform | AlignCapError


def find_sources(paths: Iterable[str], *, world: World) -> Iterator[Source]:
    """The recordings meant by `paths`, in order, each once; folders are searched as reached."""
    seen: set[str] = set()
    for path in paths:
        found = _of_stdin(world) if path == "-" else _of_path(path)
        for source in found:
            if source.file not in seen:
                seen.add(source.file)
                yield source


def _of_path(path: str) -> Iterator[Source]:
    place = Path(path)
    if place.is_dir():
        yield from _of_folder(path)
    elif place.suffix.lower() == ".jsonl" and place.is_file():
        yield from _of_manifest(place)
    elif glob.has_magic(path) and not place.exists():
        yield from _of_glob(path)
    else:
        yield Source(path, place)


def _of_glob(pattern: str) -> Iterator[Source]:
    names = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207  keeps what was typed
    if not names:
        yield Source(pattern, AudioError(f"{pattern}: no file matches"))
    for name in names:
        if not os.path.isdir(name) or "**" not in pattern:  # noqa: PTH112
            yield from _of_path(name)


def _of_folder(folder: str) -> Iterator[Source]:
    """Every recording below a folder, sorted; anything else in it is passed over."""
    found = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        sounds = [name for name in folders if _is_sound(name)]
        for name in sounds:  # a folder called x.wav: `load` says what is wrong with it
            folders.remove(name)
        for name in sorted([*sounds, *(name for name in files if _is_sound(name))]):
            found += 1
            file = os.path.join(place, name)  # noqa: PTH118  Path would drop a leading ./
            yield Source(file, Path(file))
    if not found:
        yield Source(folder, AudioError(f"{folder}: no sound file in this folder"))


def _is_sound(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return not name.startswith(".") and suffix in AUDIO_SUFFIXES | UNREADABLE_SUFFIXES


def _of_manifest(manifest: Path) -> Iterator[Source]:
    """The recordings of a manifest; a broken line is one source with its error, the rest go on.

    Only `file` is asked for: labels that training could not use do not stop a caption.
    """
    with manifest.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _of_line(line, manifest=manifest, place=f"{manifest}:{number}")


def _of_line(line: str, *, manifest: Path, place: str) -> Source:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        return Source(place, DataError(f"{place}: not JSON ({error.msg}); mend or remove the line"))
    name = entry.get("file") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
        return Source(place, DataError(f'{place}: no "file"; each line is {{"file": "a.wav", …}}'))
    file = manifest.parent / name
    return Source(str(file), file)


def _of_stdin(world: World) -> Iterator[Source]:
    """Paths, one a line, or the bytes of one sound file."""
    data = world.stdin.buffer.read()
    if data.startswith(SOUND_MAGIC) or b"\0" in data[:64]:
        yield _of_bytes(data)
        return
    paths = [os.fsdecode(line) for line in data.splitlines() if line]
    if not paths:
        yield Source("stdin", AudioError("stdin: neither a path nor sound on standard input"))
    for path in paths:
        yield from _of_path(path)


def _of_bytes(data: bytes) -> Source:
    """Sound by way of a file of our own, so that it is read and refused as any other."""
    from aligncap.audio import load

    with tempfile.TemporaryDirectory(prefix="aligncap-") as folder:
        file = Path(folder) / "stdin"
        file.write_bytes(data)
        try:
            return Source("stdin", replace(load(file), source="stdin"))
        except AudioError as error:
            return Source("stdin", AudioError(str(error).replace(str(file), "stdin")))
