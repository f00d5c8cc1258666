"""How fast a corpus is annotated for text-to-speech, in one run on one machine.

    python benchmarks/tts_corpus.py CLIPS [--count 5000] [--jobs 2] [--output FILE]

CLIPS is a folder of sounds, of which `count` are taken, every so many one. They are annotated by
`aligncap annotate` with one process and with `jobs`, from file to parquet, start of the model
included; and dataspeech's numbers (pitch, SNR, duration of speech, rate of onsets, loudness)
are computed by librosa and pyworld, with `jobs` processes, without captions, emotions or evidence
(`pip install librosa pyworld`; left out where they are not there). Each has processes of its own.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def main() -> None:
    """Measure, print, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    files = sorted(one for one in asked.clips.rglob("*") if one.suffix.lower() in SUFFIXES)
    step = max(1, len(files) // asked.count)
    files = files[::step][: asked.count]
    report: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, corpus / f"{number:06d}{file.suffix.lower()}")
        for jobs in (1, asked.jobs):
            report[f"aligncap annotate --jobs {jobs}"] = annotated(corpus, folder, jobs)
        if importlib.util.find_spec("librosa") and importlib.util.find_spec("pyworld"):
            report[f"librosa and pyworld, {asked.jobs} processes"] = rival(corpus, asked.jobs)
        report["sound_s"] = sound_s(Path(folder) / f"out{asked.jobs}")
    show(report, len(files))
    if asked.output:
        asked.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def annotated(corpus: Path, folder: str, jobs: int) -> float:
    """Seconds that `aligncap annotate` takes, from start to parquet."""
    out = Path(folder) / f"out{jobs}"
    command = [sys.executable, "-m", "aligncap", "annotate", str(corpus), "--out", str(out)]
    started = time.perf_counter()
    done = subprocess.run([*command, "--jobs", str(jobs)], check=False)
    if done.returncode not in (0, 1):  # 1: some clips have an error
        raise SystemExit(f"aligncap annotate ended with {done.returncode}")
    return time.perf_counter() - started


def sound_s(out: Path) -> float:
    """Seconds of sound in an annotated corpus."""
    import pyarrow.parquet as pq

    lengths = (pq.read_table(file, columns=["duration_s"]) for file in out.glob("data/*.parquet"))
    return sum(one or 0.0 for table in lengths for one in table.column("duration_s").to_pylist())


def rival(corpus: Path, jobs: int) -> float:
    """Seconds that the numbers alone take by librosa and pyworld."""
    files = sorted(corpus.iterdir())
    started = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(numbers_of, files, chunksize=32))
    return time.perf_counter() - started


def numbers_of(file: Path) -> dict[str, float]:
    """Dataspeech's columns of a clip and its loudness."""
    import librosa
    import numpy as np
    import pyworld

    samples, rate_hz = librosa.load(file, sr=16_000)
    wide = samples.astype(np.float64)
    coarse, times_s = pyworld.dio(wide, rate_hz, frame_period=10.0)
    pitch = pyworld.stonemask(wide, coarse, times_s, rate_hz)
    voiced = pitch[pitch > 0]
    spoken = sum(end - start for start, end in librosa.effects.split(samples, top_db=35)) / rate_hz
    onsets = librosa.onset.onset_detect(y=samples, sr=rate_hz)
    amplitude = np.maximum(np.abs(wide), 1e-7)
    return {
        "utterance_pitch_mean": float(voiced.mean()) if len(voiced) else 0.0,
        "utterance_pitch_std": float(voiced.std()) if len(voiced) else 0.0,
        "snr": float(np.log(amplitude.mean()) - np.log(amplitude).mean()),
        "speech_duration": spoken,
        "rate": len(onsets) / max(spoken, 0.1),
        "loudness": float(librosa.feature.rms(y=samples).mean()),
    }


def show(report: dict[str, Any], count: int) -> None:
    """A line for each way, and the ratio to one process."""
    sound = report["sound_s"]
    print(f"{count} clips, {sound / 3600:.2f} h of sound; {report['machine']}")
    ways = {name: took for name, took in report.items() if isinstance(took, float)}
    del ways["sound_s"]
    first = next(iter(ways.values()))
    for name, took in ways.items():
        print(
            f"{name:36} {took:8.1f} s {count / took:7.1f} clips/s "
            f"{sound / took:6.0f} x real time {first / took:6.2f} x one process"
        )


if __name__ == "__main__":
    main()
