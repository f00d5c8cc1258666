"""How much memory and time a corpus takes to prepare, split and iterate, however long it is.

    python benchmarks/corpora.py [--lines 1000000] [--clips 20000] [--folder DIR]
                                 [--output docs/results/corpora-benchmark.md]

A generated manifest of LINES utterances is iterated, split and inspected, without a sound file.
Then LINES sound files are prepared and split: hard links, a thousand to each generated file.
Nobody listens to a million: the record of sounds that a stopped run leaves is written first, with
a hash of its own for each file, and preparing goes on from it. What listening costs beside is
measured on CLIPS files of a tenth of a second, every one read, checked and hashed.

Each step has a process of its own, so that its peak of memory is its own as well: the whole
resident size, the interpreter and its libraries included. Seconds are of the processor, system
calls among them, so that what else runs on the machine counts less. The exit code is 1 where a
step takes more memory than a corpus of any length may.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from caption import machine
from language_models import peak_mb

Row = dict[str, Any]

BOUND_MB = 300
"""What no step may take, however long the corpus."""
LINKS = 1000
"""To one file, all in one folder; a file system allows some ten thousand."""


def main() -> None:
    """Measure, print, and write the page where asked to."""
    asked = arguments()
    if asked.child:
        print(json.dumps(STEPS[asked.child](asked)))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="corpora-", dir=asked.folder) as folder:
        for step in STEPS:
            rows.append(measured(step, Path(folder), asked))
            print(table_line(rows[-1]), flush=True)
    if asked.output:
        asked.output.write_text(page(rows, asked), encoding="utf-8")
    if most_mb(rows) > BOUND_MB:
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where a gigabyte or two may be written")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(step: str, folder: Path, asked: argparse.Namespace) -> Row:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--child", step, "--folder", str(folder)]
    command += ["--lines", str(asked.lines), "--clips", str(asked.clips)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    return {"step": step, **json.loads(run.stdout)}


@contextmanager
def timed() -> Iterator[Row]:
    """Within, the row of a step; afterwards it has the seconds and the peak of this process."""
    row: Row = {}
    started_s = time.process_time()
    yield row
    row.update(seconds=time.process_time() - started_s, peak_mb=peak_mb())


def page(rows: Sequence[Row], asked: argparse.Namespace) -> str:
    """The report as Markdown."""
    about = machine(1)
    lines = [
        "# Corpora of a million clips",
        "",
        f"Made by `python benchmarks/corpora.py --lines {asked.lines} --clips {asked.clips}`; do "
        "not edit. One run, one thread, processor",
        f"time; {about['cpu']}, Python {platform.python_version()}, aligncap "
        f"{version('aligncap')}. Peaks are of the whole process, Python and its libraries",
        "included.",
        "",
        "| step | clips | seconds | microseconds a clip | peak, MB |",
        "| --- | --- | --- | --- | --- |",
        *map(table_line, rows),
        "",
        f"No step takes more than {most_mb(rows):.0f} MB; the bound is {BOUND_MB} MB.",
        "",
        f"The {asked.lines:,} sound files are hard links, {LINKS:,} to each generated file. They "
        "were not listened to: the record of",
        "sounds that a stopped run leaves was written beforehand, with a hash of its own for each "
        "file, and preparing went on",
        f"from it. Files read to the end for the first time are the {asked.clips:,} of a tenth of "
        "a second; longer ones take longer.",
    ]
    return "\n".join(lines) + "\n"


def table_line(row: Row) -> str:
    """A step as a line of the table."""
    each_us = 1e6 * row["seconds"] / row["clips"]
    return (
        f"| {row['step']} | {row['clips']:,} | {row['seconds']:.1f} | {each_us:.0f} "
        f"| {row['peak_mb']:.0f} |"
    )


def most_mb(rows: Sequence[Row]) -> float:
    """The highest peak."""
    return float(max(row["peak_mb"] for row in rows))


def write(asked: argparse.Namespace) -> Row:
    """Write the manifest that the next steps read."""
    with timed() as row, (asked.folder / "manifest.jsonl").open("w") as lines:
        for number in range(asked.lines):
            utterance = {
                "id": f"clip_{number:07}",
                "file": f"wav/{number // 1000:04}/clip_{number:07}.wav",
                "corpus": "made",
                "speaker": f"speaker_{number % 5003}",
                "gender": "female" if number % 2 else "male",
                "emotion": "sad",
                "text": f"This is sentence {number % 350_003} of a long corpus.",
                "captions": ["A woman speaks slowly, her voice low and sad."],
                "duration": 3.2,
                "sha256": f"{number:064x}",
            }
            lines.write(json.dumps(utterance) + "\n")
    return {"clips": asked.lines, **row}


def iterate(asked: argparse.Namespace) -> Row:
    """Read the manifest from its first to its last utterance."""
    from aligncap.data.manifest import read_manifest

    with timed() as row:
        count = sum(1 for _ in read_manifest(asked.folder / "manifest.jsonl"))
    return {"clips": count, **row}


def split(asked: argparse.Namespace, by: str) -> Row:
    """Split the manifest, leaks counted."""
    from aligncap.data.splits import Seen, Split, count_leaks, split_manifest

    out = asked.folder / by
    out.mkdir()
    with timed() as row, Seen(out) as seen:
        lengths = split_manifest(asked.folder / "manifest.jsonl", out, Split(by), seen)
        count_leaks(seen)
    return {"clips": sum(lengths.values()), **row}


def inspect(asked: argparse.Namespace) -> Row:
    """Look for duplicates in the manifest and count, as the doctor does, without opening sounds."""
    from dataclasses import replace

    from aligncap.data.captioned import open_corpus
    from aligncap.data.doctor import Inspection
    from aligncap.data.manifest import read_manifest
    from aligncap.data.splits import Seen, Sound

    there = Path(__file__)  # a file that is there; nobody opens it
    with timed() as row, Seen(asked.folder) as seen:
        look = Inspection(
            open_corpus("folder"),
            seen,
            sound_of=lambda _: Sound("", 3.2, 16_000),
            on_fault=complain,
        )
        clips = read_manifest(asked.folder / "manifest.jsonl")
        count = sum(1 for _ in look.usable(replace(one, path=there) for one in clips))
    return {"clips": count, **row}


def link(asked: argparse.Namespace) -> Row:
    """Make the links, and the record of their sounds."""
    from aligncap.data.layouts import sound_files
    from aligncap.data.splits import BOOK, Sound, SoundBook

    source, out = asked.folder / "links", asked.folder / "prepared links"
    out.mkdir()
    with timed() as row:
        for start in range(0, asked.lines, LINKS):
            folder = source / f"{start // LINKS:04}"
            first = make_sound(folder / f"clip_{start:07}.wav", seed=start)
            for number in range(start + 1, min(start + LINKS, asked.lines)):
                os.link(first, folder / f"clip_{number:07}.wav")
        hashes = (f"{number:064x}" for number in range(asked.lines))
        with SoundBook(out / BOOK, read=lambda _: Sound(next(hashes), 0.11, 16_000)) as book:
            for file in sound_files(source):
                book.sound(file)
    return {"clips": asked.lines, **row}


def make(asked: argparse.Namespace) -> Row:
    """Make sound files of their own."""
    with timed() as row:
        for number in range(asked.clips):
            file = asked.folder / "sounds" / f"{number // 1000:04}" / f"{number:07}.wav"
            make_sound(file, seed=number)
    return {"clips": asked.clips, **row}


def make_sound(file: Path, *, seed: int) -> Path:
    """A tenth of a second of noise."""
    import numpy as np
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    noise = 1000 * np.random.default_rng(seed).standard_normal(1760)
    soundfile.write(file, noise.astype(np.int16), 16_000)
    return file


def prepare_folder(asked: argparse.Namespace, name: str) -> Row:
    """Prepare and split a folder of sound files."""
    from aligncap.data.captioned import open_corpus
    from aligncap.data.doctor import prepare
    from aligncap.data.splits import Split

    with timed() as row:
        report = prepare(
            open_corpus("folder"),
            asked.folder / name,
            asked.folder / f"prepared {name}",
            split=Split("random"),
            on_fault=complain,
        )
    return {"clips": report.tally.clips, **row}


def complain(fault: object) -> None:
    """There should be none."""
    raise SystemExit(f"{fault}")


STEPS: Mapping[str, Callable[[argparse.Namespace], Row]] = {
    "write a manifest": write,
    "iterate it": iterate,
    "split it by speaker": lambda asked: split(asked, "speaker"),
    "split it at random": lambda asked: split(asked, "random"),
    "look for duplicates in it": inspect,
    "link sound files, and record them": link,
    "prepare and split the links": lambda asked: prepare_folder(asked, "links"),
    "make sound files": make,
    "prepare and split them": lambda asked: prepare_folder(asked, "sounds"),
    "prepare and split them again": lambda asked: prepare_folder(asked, "sounds"),
}

if __name__ == "__main__":
    main()
