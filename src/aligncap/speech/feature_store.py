"""Features of whole corpora, measured once and kept on disk."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from aligncap.acoustics.frontend import MELS
from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError
from aligncap.speech.encoder_settings import FRAMES_PER_S
from aligncap.speech.features import Features
from aligncap.storage import write_atomic

_LISTING = "files.txt"


class FeatureStore:
    """The features of many clips in one float16 array each (.npy)."""

    def __init__(self, folder: Path) -> None:
        self._mel = np.load(folder / "mel.npy", mmap_mode="r", allow_pickle=False)
        self._pitch = np.load(folder / "pitch.npy", mmap_mode="r", allow_pickle=False)
        self._ends = np.load(folder / "ends.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._ends)

    def frames(self, number: int) -> int:
        """Frames of one clip."""
        return int(self._ends[number] - (self._ends[number - 1] if number else 0))

    def __getitem__(self, number: int) -> Features:
        end = int(self._ends[number])
        here = slice(end - self.frames(number), end)
        pitch = self._pitch[here].astype(np.float32)
        return Features(self._mel[here].astype(np.float32), pitch[:, 0], pitch[:, 1])


def feature_bytes(clips: Iterable[Utterance]) -> int | None:
    """What the features of clips take on disk, at most: a spectrum, pitch and its strength in
    float16; silence at both ends is not kept. None where a clip's length is not known."""
    total_s = 0.0
    for one in clips:
        if one.duration_s is None:
            return None
        total_s += one.duration_s
    return round(FRAMES_PER_S * total_s) * 2 * (MELS + 2)


def store_features(
    folder: Path,
    paths: Sequence[Path],
    measured: Callable[[Path], Features],
) -> FeatureStore:
    """The features of every file, read from `folder` where it lists the same files in the same
    order, else measured into it. Raises DataError for no files."""
    listing = "\n".join(str(path) for path in paths)
    done = folder / _LISTING
    if done.exists() and done.read_text(encoding="utf-8") == listing:
        return FeatureStore(folder)
    if not paths:
        raise DataError(f"{folder}: no clips to measure; name a manifest that is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    # While the arrays are replaced, no listing vouches for them.
    done.unlink(missing_ok=True)
    ends = []
    with _Growing(folder / "mel.npy") as mel, _Growing(folder / "pitch.npy") as pitch:
        for path in track(paths, "measuring features", console=Console(stderr=True)):
            features = measured(path)
            mel.append(features.mel)
            pitch.append(np.stack((features.pitch_hz, features.strength), 1))
            ends.append(mel.rows)
    np.save(folder / "ends.npy", np.array(ends))
    # Written last: a folder without it was not finished.
    write_atomic(done, listing)
    return FeatureStore(folder)


class _Growing:
    """A float16 array on disk, written a few rows at a time; whole when it is left."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._columns, self.rows = 0, 0

    def append(self, array: NDArray[np.float32]) -> None:
        """Add rows; all arrays have as many columns as the first."""
        if not self.rows:
            self._columns = array.shape[1]
            self._write_header()
        self._file.write(array.astype("<f2").tobytes())
        self.rows += len(array)

    def _write_header(self) -> None:
        # Numpy leaves room in it for a first axis that grows.
        shape = (self.rows, self._columns)
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()
