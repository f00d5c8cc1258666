"""Long recordings: where utterances are cut, whether their captions are those of the clips alone,
and what an hour takes in memory and time.

    python benchmarks/segments.py [--data ../shared/data/speech] [--hours 1] [--seed 0]

The recording is made of twenty clips of real people of several corpora with pauses, noise and music
between; it is heard again and again for as many hours as asked for, streamed from a file.
"""

import argparse
import itertools
import json
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from sounds import made

from aligncap import load as load_model
from aligncap.audio import load, speech_activity
from aligncap.errors import AlignCapError
from aligncap.prosody.measurement import pauses
from aligncap.values import RATE_HZ, Samples

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("ravdess", "emodb", "nemo", "emovo", "secap", "uem_es")
BETWEEN = ("band", "white noise", "piano melody", "rain", "strings", "")
NEAR_S = 0.25


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/speech")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    captioner = load_model("mini")
    clips = chosen(asked.data, random.Random(asked.seed))
    sound, truth = recording(clips, np.random.default_rng(asked.seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.wav"
        soundfile.write(path, sound, RATE_HZ)
        found = list(captioner.segments(path))
        alone = [str(one) for one in captioner.caption([str(clip) for clip in clips])]
        compare(found, truth, alone)
        if asked.hours:
            times = round(asked.hours * 3600 / (len(sound) / RATE_HZ))
            with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
                for _ in range(times):
                    file.write(sound)
            long(captioner, path, times * len(sound) / RATE_HZ)


def chosen(data: Path, draw: random.Random) -> list[Path]:
    """Twenty clips without long pauses, several speakers of each corpus."""
    found: list[Path] = []
    for number, corpus in enumerate(CORPORA):
        rows = [json.loads(line) for line in (data / corpus / "manifest.jsonl").open("rb")]
        draw.shuffle(rows)
        fitting = (data / corpus / row["file"] for row in rows)
        wanted = [20 * (n + 1) // len(CORPORA) for n in range(len(CORPORA))][number]
        while len(found) < wanted:
            clip = next(fitting)
            spans = speech_activity(load(clip))
            gaps = [b[0] - a[1] for a, b in itertools.pairwise(spans)]
            if spans and max(gaps, default=0.0) < 0.35 and pauses(spans).span_s > 0.8:
                found.append(clip)
    draw.shuffle(found)
    return found


def recording(
    clips: list[Path], draw: np.random.Generator
) -> tuple[Samples, list[tuple[float, float]]]:
    """The clips with something between them, and when somebody speaks in each."""
    parts, truth, at = [np.zeros(RATE_HZ, np.float32)], [], 1.0
    for number, clip in enumerate(clips):
        waveform = load(clip)
        spans = speech_activity(waveform)
        truth.append((at + spans[0][0], at + spans[-1][1]))
        pause = np.zeros(round(draw.uniform(0.6, 1.2) * RATE_HZ), np.float32)
        kind = BETWEEN[number % len(BETWEEN)]
        other = 0.3 * made(kind, number) if kind else np.zeros(0, np.float32)
        for one in (waveform.samples, pause, other, pause):
            # Each begins on the grid of 10 ms that features are measured on.
            parts.append(np.pad(one.astype(np.float32), (0, -len(one) % 160)))
            at += len(parts[-1]) / RATE_HZ
    return np.concatenate(parts), truth


def compare(found: list, truth: list[tuple[float, float]], alone: list[str]) -> None:
    """How many utterances are cut where they are, and captioned as alone."""
    spoken = [one for one in found if one.kind == "speech"]
    near, same, off = 0, 0, []
    for (start, end), text in zip(truth, alone, strict=True):
        at = [one for one in spoken if one.start_s < end and one.end_s > start]
        if len(at) == 1:
            away = max(abs(at[0].start_s - start), abs(at[0].end_s - end))
            near += away <= NEAR_S
            same += at[0].text == text
            off.append(away)
        else:
            print(f"{start:.2f} to {end:.2f} s: {len(at)} utterances")
    nobody = [one for one in spoken if not any(one.start_s < b and one.end_s > a for a, b in truth)]
    failed = sum(isinstance(one.caption, AlignCapError) for one in spoken)
    kinds = {kind: sum(one.kind == kind for one in found) for kind in ("silence", "music", "noise")}
    print(f"| utterances | {len(truth)} |\n|---|---:|")
    print(f"| cut once, both ends within {NEAR_S} s | {near} |")
    print(f"| captioned as alone | {same} |")
    print(f"| captioned where nobody speaks | {len(nobody)} |")
    print(f"| without a caption | {failed} |")
    print(f"| farthest end, median and largest | {np.median(off):.2f} s, {max(off):.2f} s |")
    print(f"| between | {', '.join(f'{kind} {n}' for kind, n in kinds.items())} |\n", flush=True)


def long(captioner: object, path: Path, length_s: float) -> None:
    """Time and memory of a long file."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(one.kind == "speech" for one in captioner.segments(path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {length_s / 3600:.2f} h | |\n|---|---:|\n| utterances | {count} |")
    print(f"| real-time factor, wall | {length_s / wall:.0f} |")
    print(f"| real-time factor, processor | {length_s / cpu:.0f} |")
    print(f"| peak memory before, after | {before:.0f} MB, {after:.0f} MB |")


if __name__ == "__main__":
    main()
