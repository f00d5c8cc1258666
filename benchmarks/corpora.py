"""How much memory and time a corpus takes to prepare, split and iterate, however long it is.

    python benchmarks/corpora.py [--lines 1000000] [--clips 20000] [--folder DIR] [--output FILE]

A generated manifest of LINES utterances is split by speaker and at random, inspected as preparing
and the doctor do it but without opening sounds, and iterated. CLIPS generated sound files of a
tenth of a second are prepared: from file to manifest, every sound read and hashed.

Each measurement has a process of its own, so that its peak of memory is its own as well; it is the
whole resident size, the interpreter and its libraries included.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Measure, print a table, and write JSON where asked to."""
    asked = arguments()
    if asked.child:
        print(json.dumps(CHILDREN[asked.child](asked)))
        return
    with tempfile.TemporaryDirectory(prefix="corpora-", dir=asked.folder) as folder:
        rows = []
        print(f"{platform.machine()}, Python {platform.python_version()}")
        print(f"{'step':<28}{'clips':>12}{'seconds':>10}{'peak MB':>10}")
        for step in CHILDREN:
            row = measured(step, Path(folder), asked)
            rows.append({"step": step, **row})
            print(
                f"{step:<28}{row['clips']:>12,}{row['seconds']:>10.1f}{row['peak_mb']:>10.0f}",
                flush=True,
            )
    if asked.output:
        asked.output.write_text(json.dumps(rows, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(step: str, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--child", step, "--folder", str(folder)]
    command += ["--lines", str(asked.lines), "--clips", str(asked.clips)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout)


def timed(clips: int, started_s: float) -> dict[str, float]:
    """Clips, seconds and the peak of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "clips": clips,
        "seconds": time.perf_counter() - started_s,
        "peak_mb": peak / (1024 if sys.platform != "darwin" else 1024**2),
    }


def write(asked: argparse.Namespace) -> dict[str, float]:
    """Write the manifest that the next steps read."""
    started_s = time.perf_counter()
    with (asked.folder / "manifest.jsonl").open("w") as lines:
        for number in range(asked.lines):
            row = {
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
            lines.write(json.dumps(row) + "\n")
    return timed(asked.lines, started_s)


def iterate(asked: argparse.Namespace) -> dict[str, float]:
    """Read the manifest from its first to its last utterance."""
    from aligncap.corpora import read_manifest

    started_s = time.perf_counter()
    count = sum(1 for _ in read_manifest(asked.folder / "manifest.jsonl"))
    return timed(count, started_s)


def split(asked: argparse.Namespace, by: str) -> dict[str, float]:
    """Split the manifest, leaks counted."""
    from aligncap.corpora.parting import Split, count_leaks, split_manifest
    from aligncap.corpora.seen import Seen

    started_s = time.perf_counter()
    out = asked.folder / by
    out.mkdir()
    with Seen(out) as seen:
        lengths = split_manifest(asked.folder / "manifest.jsonl", out, Split(by), seen)
        count_leaks(seen)
    return timed(sum(lengths.values()), started_s)


def inspect(asked: argparse.Namespace) -> dict[str, float]:
    """Look for duplicates in the manifest and count, as preparing does, without opening sounds."""
    from dataclasses import replace

    from aligncap.corpora import read_manifest
    from aligncap.corpora.inspection import Inspection
    from aligncap.corpora.layouts import open_corpus
    from aligncap.corpora.seen import Seen
    from aligncap.corpora.sounds import Sound

    there = Path(__file__)  # a file that is there; nobody opens it
    started_s = time.perf_counter()
    clips = read_manifest(asked.folder / "manifest.jsonl")
    with Seen(asked.folder) as seen:
        look = Inspection(
            open_corpus("folder"),
            seen,
            sound_of=lambda _: Sound("", 3.2, 16_000),
            on_fault=lambda fault: print(fault, file=sys.stderr),
        )
        count = sum(1 for _ in look.usable(replace(one, path=there) for one in clips))
    return timed(count, started_s)


def sounds(asked: argparse.Namespace) -> dict[str, float]:
    """Make the sound files that the next step prepares."""
    import numpy as np
    import soundfile

    started_s = time.perf_counter()
    drawn = np.random.default_rng(0)
    for number in range(asked.clips):
        folder = asked.folder / "sounds" / f"{number // 1000:04}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = (1000 * drawn.standard_normal(1760)).astype(np.int16)
        soundfile.write(folder / f"{number:07}.wav", noise, 16_000)
    return timed(asked.clips, started_s)


def prepare_sounds(asked: argparse.Namespace) -> dict[str, float]:
    """Prepare and split a folder of sound files."""
    from aligncap.corpora.layouts import open_corpus
    from aligncap.corpora.parting import Split
    from aligncap.corpora.preparing import prepare

    started_s = time.perf_counter()
    report = prepare(
        open_corpus("folder"),
        asked.folder / "sounds",
        asked.folder / "prepared",
        split=Split("random"),
        on_fault=lambda fault: print(fault, file=sys.stderr),
    )
    return timed(report.tally.clips, started_s)


CHILDREN = {
    "write a manifest": write,
    "split it by speaker": lambda asked: split(asked, "speaker"),
    "inspect it": inspect,
    "iterate it": iterate,
    "split it at random": lambda asked: split(asked, "random"),
    "make sound files": sounds,
    "prepare and split them": prepare_sounds,
    "prepare them again": prepare_sounds,
}

if __name__ == "__main__":
    main()
