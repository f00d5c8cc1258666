"""Corpora of made sound in every form that is read, and a captioner that needs no model."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from aligncap.tts import AnnotateSettings
from aligncap.values import RATE_HZ
from support.models import FakeCaptioner
from support.signals import syllables

COUNT = 7


def open_fake(settings: AnnotateSettings) -> FakeCaptioner:
    """The captioner of `AnnotateRun` and its kin."""
    return FakeCaptioner(settings.model)


def sound_of(number: int) -> np.ndarray:
    """Of two speakers by turns: one is high, one low; no two are alike."""
    hertz = (230.0 if number % 2 else 110.0) + 3 * number
    return syllables(rate_hz=3.0 + number / 4, length_s=1.0, pitch_hz=hertz, peak=0.1 + number / 20)


def bytes_of(number: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound_of(number), RATE_HZ, format="WAV")
    return file.getvalue()


def columns_of(number: int) -> dict[str, Any]:
    return {
        "id": f"clip{number}",
        "speaker_id": "anna" if number % 2 else "ben",
        "gender": "female" if number % 2 else "male",
        "emotion": "sad",
        "take": number,
    }


def write_folder(folder: Path, count: int = COUNT) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"clip{number}.wav").write_bytes(bytes_of(number))
    return folder


def write_manifest(folder: Path) -> Path:
    write_folder(folder / "wav")
    lines = [{"file": f"wav/clip{n}.wav", **columns_of(n)} for n in range(COUNT)]
    manifest = folder / "corpus.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return manifest


def write_csv(folder: Path) -> Path:
    write_folder(folder / "wav")
    names = list(columns_of(0))
    lines = [",".join(["file_name", *names])]
    lines += [
        ",".join([f"wav/clip{n}.wav", *(str(columns_of(n)[name]) for name in names)])
        for n in range(COUNT)
    ]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def table() -> pa.Table:
    rows = [
        {**columns_of(n), "audio": {"bytes": bytes_of(n), "path": f"clip{n}.wav"}}
        for n in range(COUNT)
    ]
    return pa.Table.from_pylist(rows)


def write_parquet(folder: Path) -> Path:
    """As a repository of the hub: two splits, several groups of rows in a file."""
    whole, data = table(), folder / "data"
    data.mkdir(parents=True)
    pq.write_table(whole.slice(0, 5), data / "train-00000-of-00001.parquet", row_group_size=2)
    pq.write_table(whole.slice(5), data / "test-00000-of-00001.parquet")
    return folder


def write_saved(folder: Path) -> Path:
    """As `save_to_disk` of Hugging Face's library writes it."""
    from datasets import Audio, Dataset

    Dataset(table()).cast_column("audio", Audio(decode=False)).save_to_disk(folder)
    return folder


def write_tars(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for part, numbers in enumerate((range(4), range(4, COUNT))):
        with tarfile.open(folder / f"{part:06d}.tar", "w") as tar:
            for number in numbers:
                row = {name: one for name, one in columns_of(number).items() if name != "id"}
                for ending, data in (("wav", bytes_of(number)), ("json", json.dumps(row).encode())):
                    info = tarfile.TarInfo(f"clip{number}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


WRITERS = {
    "folder": write_folder,
    "manifest": write_manifest,
    "csv": write_csv,
    "parquet": write_parquet,
    "saved": write_saved,
    "tars": write_tars,
}


def read_out(out: Path) -> list[dict[str, Any]]:
    """The rows of an annotated corpus by their id."""
    rows = [
        row
        for file in sorted(out.glob("data/*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    return sorted(rows, key=lambda row: str(row["id"]))
