"""How fast captions are made, in one run on one machine.

    python benchmarks/caption.py [--model mini] [--trained FOLDER] [--clips FOLDER] [--output FILE]
    python benchmarks/caption.py --pairs mini,mini-1 [--clips FOLDER] [--repeat 5] [--threads 1]

Language models are compared on the same prompts with responses of one fixed length: CTranslate2 in
int8 and in float, our torch runtime, and plain `transformers.generate`. Their weights come from a
trained model folder, or else are random, in the size of `mini`: the length being fixed, the time
is the same. Then a folder is captioned from file to record, and one clip from a cold process.
Each measurement has a process of its own, so that its peak of memory is its own as well.

With `--pairs` two models caption the same clips in turns, one clip at a time, by processor time, so
that what else the machine does matters less: of a pair of times the ratio is reported.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from language_models import (
    LANGUAGE_MODELS,
    fastest,
    machine,
    measure_language_model,
    peak_mb,
    random_model,
)

PACKAGES = ("ctranslate2", "onnxruntime", "torch", "transformers")


def main() -> None:
    """Measure, print a table, and write JSON where asked to."""
    asked = arguments()
    if asked.child:
        print(json.dumps(CHILDREN[asked.child](asked)))
        return
    if asked.pairs:
        show_pairs(asked)
        return
    report: dict[str, Any] = {"machine": machine(*PACKAGES) | {"threads": asked.threads}}
    with tempfile.TemporaryDirectory() as folder:
        if not asked.skip_language_models:
            trained = asked.trained or random_model(Path(folder) / "trained", asked.model)
            options = ["--trained", str(trained), "--work", folder]
            report["language model"] = {
                name: child(asked, name, *options) for name in LANGUAGE_MODELS
            }
    report["folder"] = child(asked, "folder")
    report["cold process"] = cold_process(asked)
    show(report)
    if asked.output:
        asked.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mini", help="exported model: name or folder")
    parser.add_argument("--trained", type=Path, help="trained model folder (torch weights)")
    parser.add_argument("--clips", type=Path, default=Path("examples/clips"))
    parser.add_argument("--repeat", type=int, default=10, help="passes over the clips")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", help="two models, parted by a comma, against each other")
    parser.add_argument("--skip-language-models", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(asked: argparse.Namespace, name: str, *options: str) -> dict[str, float]:
    """One measurement in its own process."""
    same = [f"--{key}={getattr(asked, key)}" for key in PASSED_ON]
    command = [sys.executable, __file__, "--child", name, *same, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


PASSED_ON = ("model", "clips", "repeat", "batch", "beams", "threads")


def measure_folder(asked: argparse.Namespace) -> dict[str, float]:
    """From file to record, everything included but the start."""
    import aligncap
    from aligncap.errors import AlignCapError

    captioner = aligncap.load(asked.model, threads=asked.threads, beam_size=asked.beams)
    clips = sorted(path for path in asked.clips.rglob("*") if path.suffix in SOUNDS)
    captioner.caption(clips[0])
    started = time.perf_counter()
    outcomes = list(captioner.caption_many(clips * asked.repeat))
    taken_s = time.perf_counter() - started
    captions = [one for one in outcomes if not isinstance(one, AlignCapError)]
    speech_s = sum(one.duration_s for one in captions)
    return {
        "clips": len(captions),
        "failed": len(outcomes) - len(captions),
        "audio_s": speech_s,
        "taken_s": taken_s,
        "times_real_time": speech_s / taken_s,
        "clips_per_s": len(captions) / taken_s,
        "peak_mb": peak_mb(),
    }


def show_pairs(asked: argparse.Namespace) -> None:
    """Two models in turns: their processor time a clip, and the ratio of the pairs."""
    import aligncap
    from aligncap.audio import load

    first, second = asked.pairs.split(",")
    captioners = [aligncap.load(name, threads=asked.threads) for name in (first, second)]
    clips = sorted(path for path in asked.clips.rglob("*") if path.suffix in SOUNDS)

    def ms(work: Callable[[Any, Path], object], captioner: Any, clip: Path) -> float:
        started = time.process_time()
        work(captioner, clip)
        return 1e3 * (time.process_time() - started)

    tasks: dict[str, Callable[[Any, Path], object]] = {
        "caption": lambda captioner, clip: captioner.caption(clip),
        "measuring and encoding": lambda captioner, clip: captioner.baseline(clip),
    }
    length_s = statistics.mean(load(clip).duration_s for clip in clips)
    print(f"{len(clips)} clips of {length_s:.1f} s, {asked.repeat} passes")
    print(f"{'processor time a clip':<26}{first:>12}{second:>12}{'ratio':>9}   quartiles")
    for name, work in tasks.items():
        for captioner in captioners:
            work(captioner, clips[0])
        times = [
            [ms(work, one, clip) for one in captioners]
            for _ in range(asked.repeat)
            for clip in clips
        ]
        ratios = [a / b for a, b in times]
        low, middle, high = statistics.quantiles(ratios, n=4)
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{name:<26}{a:>9.1f} ms{b:>9.1f} ms{middle:>9.2f}   {low:.2f}-{high:.2f}", flush=True
        )


SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def cold_process(asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of whole processes: the command line on one clip, and what imports take of it."""
    clip = min(asked.clips.rglob("*.*"), key=lambda path: (path.suffix not in SOUNDS, path))
    command = [sys.executable, "-m", "aligncap"]
    runs = {
        "caption one clip": [*command, "caption", str(clip), "--model", asked.model],
        "--help": [*command, "--help"],
        "python itself": [sys.executable, "-c", ""],
        **{
            f"import {name}": [sys.executable, "-c", f"import {name}"]
            for name in ("numpy", "ctranslate2", "onnxruntime", "tokenizers", "soundfile", "soxr")
        },
    }
    return {
        name: statistics.median(
            fastest(lambda run=run: subprocess.run(run, check=True, capture_output=True), times=1)
            for _ in range(3)
        )
        for name, run in runs.items()
    }


def show(report: dict[str, Any]) -> None:
    """The report as a table; ratios against `transformers.generate` of the same run."""
    about = report["machine"]
    print(f"{about['cpu']}, {about['threads']} threads, load before {about['load_before']:.1f}")
    rows = report.get("language model", {})
    if rows:
        plain = rows["transformers.generate"]
        print(f"\n{'language model':<24}{'single':>18}{'batch, a caption':>20}{'peak':>10}")
    for name, row in rows.items():
        line = f"{name:<24}"
        for key, width in (("single_ms", 8), ("batch_ms_per_caption", 10)):
            line += f"{row[key]:>{width}.1f} ms {plain[key] / row[key]:>5.1f}x"
        print(f"{line}{row['peak_mb']:>7.0f} MB")
    folder = report["folder"]
    print(
        f"\nfolder: {folder['clips']:.0f} clips, {folder['audio_s']:.0f} s of sound in "
        f"{folder['taken_s']:.1f} s = {folder['times_real_time']:.0f} x real time, "
        f"{folder['clips_per_s']:.1f} clips/s, {folder['peak_mb']:.0f} MB"
    )
    print("\ncold process, seconds")
    for name, seconds in report["cold process"].items():
        print(f"  {name:<24}{seconds:6.2f}")


CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    **dict.fromkeys(LANGUAGE_MODELS, measure_language_model),
    "folder": measure_folder,
}

if __name__ == "__main__":
    main()
