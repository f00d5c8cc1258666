"""How fast a corpus is annotated for text-to-speech, in one run on one machine.

    python benchmarks/tts_corpus.py CLIPS [--count 5000] [--jobs 2] [--write]

CLIPS is a folder of sounds, of which `count` are taken, every so many one. They are annotated by
`aligncap annotate` with one process on one core, with `jobs` processes on as many cores, and with
one process that has all cores for its threads, from file to parquet, start of the model included;
and dataspeech's numbers (pitch, SNR, duration of speech, rate of onsets, loudness) are computed by
librosa and pyworld, with one process and with `jobs`, without captions, emotions or evidence (`pip
install librosa pyworld`; left out where they are not there). Each has processes of its own. Beside
the clock, the processor time of all processes and the machine's load are given: on a machine that
does other work, the clock says how busy it was. `--write` writes docs/results/tts-benchmark.md.
"""

import argparse
import importlib.util
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


@dataclass(frozen=True)
class Took:
    """What a way of annotating took."""

    name: str
    wall_s: float
    processor_s: float
    load: float
    """The mean number of processes that wanted a core in its last minute."""


def main() -> None:
    """Measure, print, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    files = sorted(one for one in asked.clips.rglob("*") if one.suffix.lower() in SUFFIXES)
    step = max(1, len(files) // asked.count)
    files = files[::step][: asked.count]
    ways: list[Took] = []

    def measure(name: str, work: Callable[[int], None]) -> None:
        for jobs in sorted({1, asked.jobs}):
            ways.append(timed(f"{name}, {jobs} process{'es' * (jobs > 1)}", work, jobs))
            print(ways[-1], flush=True)

    def with_threads(_: int) -> None:
        annotate(corpus, f"{folder}/threads", 1, cores=len(os.sched_getaffinity(0)))

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, corpus / f"{number:06d}{file.suffix.lower()}")
        measure("`aligncap annotate`", lambda jobs: annotate(corpus, folder, jobs, cores=jobs))
        ways.append(timed("`aligncap annotate`, 1 process, all cores", with_threads, 1))
        if importlib.util.find_spec("librosa") and importlib.util.find_spec("pyworld"):
            rival(warming(corpus, folder), 1)  # numba compiles once, for good
            measure("librosa and pyworld", lambda jobs: rival(corpus, jobs))
        length_s = sound_s(Path(folder) / f"out{asked.jobs}")
    page = page_of(ways, len(files), length_s)
    print(page)
    if asked.write:
        (ROOT / "docs/results/tts-benchmark.md").write_text(page, encoding="utf-8")


def timed(name: str, work: Callable[[int], None], jobs: int) -> Took:
    """What a piece of work in processes of its own takes."""

    def spent_s() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    wall, processor = time.perf_counter(), spent_s()
    work(jobs)
    wall, processor = time.perf_counter() - wall, spent_s() - processor
    return Took(name, wall, processor, os.getloadavg()[0])


def annotate(corpus: Path, folder: str, jobs: int, *, cores: int) -> None:
    """Annotate a corpus from start to parquet on the first so many cores."""
    out, own = Path(folder) / f"out{jobs}", sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", "aligncap", "annotate", str(corpus), "--out", str(out)]
    done = subprocess.run(
        [*command, "--jobs", str(jobs)],
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )
    if done.returncode not in (0, 1):  # 1: some clips have an error
        raise SystemExit(f"aligncap annotate ended with {done.returncode}")


def sound_s(out: Path) -> float:
    """Seconds of sound in an annotated corpus."""
    import pyarrow.parquet as pq

    lengths = (pq.read_table(file, columns=["duration_s"]) for file in out.glob("data/*.parquet"))
    return sum(one or 0.0 for table in lengths for one in table.column("duration_s").to_pylist())


def warming(corpus: Path, folder: str) -> Path:
    """A corpus of one clip."""
    one = Path(folder) / "one"
    one.mkdir()
    first = min(corpus.iterdir())
    shutil.copyfile(first, one / first.name)
    return one


def rival(corpus: Path, jobs: int) -> None:
    """The numbers alone by librosa and pyworld."""
    files = sorted(corpus.iterdir())
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(pool.map(numbers_of, files, chunksize=32))


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


def page_of(ways: Sequence[Took], count: int, length_s: float) -> str:
    """The page of results."""
    lines = [
        "# Annotating a corpus for text-to-speech",
        "",
        f"{count} clips, {length_s / 3600:.2f} h of sound, in one run on {platform.machine()} with "
        f"{len(os.sched_getaffinity(0))} cores, by",
        "",
        f"    python benchmarks/tts_corpus.py CLIPS --count {count} --write",
        "",
        "| | clock | clips/s | × real time | processor | × real time a core | load |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.name} | {one.wall_s:.0f} s | {count / one.wall_s:.1f} | "
        f"{length_s / one.wall_s:.0f} | {one.processor_s:.0f} s | "
        f"{length_s / one.processor_s:.0f} | {one.load:.1f} |"
        for one in ways
    ]
    first, second, *_ = ways
    lines += [
        "",
        f"The clock of the first row over that of the second: {first.wall_s / second.wall_s:.2f}. "
        "Processor time of the second over that of the first: "
        f"{second.processor_s / first.processor_s:.2f}. "
        "Load is the mean number of processes that wanted a core; where it is above the number of "
        "cores, other work ran, and the clock does not say what several processes gain. The "
        "columns of librosa and pyworld are dataspeech's numbers and loudness alone: no captions, "
        "emotions, evidence or gender; numba had compiled before.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
