"""Long recordings: where utterances are cut, whether their captions are those of the clips alone,
and what hours take in memory and time.

    python benchmarks/segments.py made [--part validation] [--recordings 15] [--first 0]
    python benchmarks/segments.py speakers
    python benchmarks/segments.py hours 1
    python benchmarks/segments.py hours 8
    python benchmarks/segments.py report

Each recording is made of twenty clips of real people of several corpora, speakers of one part of
the split, with pauses, noise and music between; those of `speakers` are of one speaker each, whose
utterances are also heard relative to each other. For hours, one is heard again and again, streamed
from a file. What is measured is kept in `--work` (runs/segments), where a part that is there is not
measured again; `report` writes docs/results/segments.md of it. `hours` logs as it goes.
"""

import argparse
import itertools
import json
import os
import random
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from language_models import machine
from numpy.typing import NDArray
from sounds import made

from aligncap import load as load_model
from aligncap.audio import load, speech_activity
from aligncap.audio.streams import stream
from aligncap.captioner.segments import Segment, utterances
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import split_of
from aligncap.errors import AlignCapError
from aligncap.metrics.claims import mean_recall, recall_row
from aligncap.prosody.measurement import pauses
from aligncap.values import RATE_HZ, Caption, Samples

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("ravdess", "emodb", "nemo", "emovo", "secap", "uem_es")
BETWEEN = ("band", "white noise", "piano melody", "rain", "strings", "")
NEAR_S = 0.25
LEVELS = ("gender", "pitch", "loudness", "pace")
WHOLE = 2560
"""Samples that a recording is a multiple of, so that frames (512) and features (160) of each
repetition fall where they do in the first."""
Floats = NDArray[np.float64]
Json = dict[str, Any]
Span = tuple[float, float]


def main() -> None:
    """Measure, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("made", "speakers", "hours", "report"))
    parser.add_argument("hours", type=float, nargs="?", default=1.0)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/speech")
    parser.add_argument("--part", default="validation", choices=("train", "validation"))
    parser.add_argument("--recordings", type=int, default=15)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/segments")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.what == "report":
        report(asked.work)
    elif asked.what == "made":
        name = f"{asked.part}-{asked.first}-{asked.recordings}"
        keep(asked.work / f"made-{name}.json", lambda: measure_made(asked))
    elif asked.what == "speakers":
        keep(asked.work / f"speakers-{asked.part}.json", lambda: measure_speakers(asked))
    else:
        keep(asked.work / f"hours-{asked.hours:g}.json", lambda: measure_hours(asked))


def keep(path: Path, measure: Any) -> None:
    """Measure, unless the file is there."""
    if not path.exists():
        path.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    print(path.read_text("utf-8"))


def chosen(data: Path, part: str, draw: random.Random) -> list[Utterance]:
    """Twenty clips without long pauses, of speakers of a part of the split."""
    found: list[Utterance] = []
    for number, corpus in enumerate(CORPORA, start=1):
        clips = [
            one for one in read_manifest(data / corpus / "manifest.jsonl") if split_of(one) == part
        ]
        draw.shuffle(clips)
        fitting = (one for one in clips if is_fitting(one))
        found += itertools.islice(fitting, 20 * number // len(CORPORA) - len(found))
    draw.shuffle(found)
    return found


def is_fitting(clip: Utterance) -> bool:
    """Whether a clip is one utterance for certain."""
    spans = speech_activity(load(clip.path))
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(spans)]
    return bool(spans) and max(gaps, default=0.0) < 0.35 and (pauses(spans).span_s or 0) > 0.8


def recording(clips: Sequence[Utterance], seed: int) -> tuple[Samples, list[Span]]:
    """The clips with something between them, and when somebody speaks in each."""
    draw = np.random.default_rng(seed)
    parts, truth, at = [np.zeros(RATE_HZ, np.float32)], [], 1.0
    for number, clip in enumerate(clips):
        waveform = load(clip.path)
        spans = speech_activity(waveform)
        truth.append((at + spans[0][0], at + spans[-1][1]))
        pause = np.zeros(round(draw.uniform(0.6, 1.2) * RATE_HZ), np.float32)
        kind = BETWEEN[number % len(BETWEEN)]
        other = 0.3 * made(kind, number) if kind else np.zeros(0, np.float32)
        for one in (waveform.samples, pause, other, pause):
            # Each begins on the grid of 10 ms that features are measured on.
            parts.append(np.pad(one.astype(np.float32), (0, -len(one) % 160)))
            at += len(parts[-1]) / RATE_HZ
    sound = np.concatenate(parts)
    return np.pad(sound, (0, -len(sound) % WHOLE)), truth


def in_two_channels(sound: Samples, truth: Sequence[Span]) -> Samples:
    """The clips by turns in one channel and the other, each with what follows it; [time, 2]."""
    both = np.zeros((len(sound), 2), np.float32)
    starts = [0, *(round((start - 0.3) * RATE_HZ) for start, _ in truth[1:]), len(sound)]
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        both[start:stop, number % 2] = sound[start:stop]
    return both


def measure_made(asked: argparse.Namespace) -> Json:
    """Utterances of made recordings beside their clips alone."""
    captioner, others = load_model("mini"), 0
    rows: list[Json] = []
    cuts: list[bool] = []
    apart: list[bool] = []
    apart_others = 0
    path = asked.work / f"made-{os.getpid()}.wav"
    for seed in range(asked.first, asked.first + asked.recordings):
        clips = chosen(asked.data, asked.part, random.Random(seed))
        sound, truth = recording(clips, seed)
        soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
        spoken = [one for one in captioner.segments(path) if one.kind == "speech"]
        cuts += same_as_cut(captioner, path, spoken)
        alone = captioner.caption([str(one.path) for one in clips])
        for clip, span, caption in zip(clips, truth, alone, strict=True):
            rows.append(
                {"corpus": clip.corpus, "seed": seed, **beside(clip, span, spoken, caption)}
            )
        others += sum(not any(_meet(one, span) for span in truth) for one in spoken)
        soundfile.write(path, in_two_channels(sound, truth), RATE_HZ)
        for channel in (0, 1):
            spoken = [
                one for one in captioner.segments(path, channel=channel) if one.kind == "speech"
            ]
            own = truth[channel::2]
            apart += [near(span, [one for one in spoken if _meet(one, span)]) for span in own]
            apart_others += sum(not any(_meet(one, span) for span in own) for one in spoken)
        print(f"recording {seed}: load {os.getloadavg()[0]:.1f}", flush=True)
    path.unlink()
    made_of = {"part": asked.part, "recordings": asked.recordings, "others": others}
    channels = {"apart": apart, "apart_others": apart_others}
    return {**made_of, **channels, "cuts": cuts, "rows": rows}


def same_as_cut(captioner: Any, path: Path, spoken: Sequence[Segment]) -> list[bool]:
    """Of each utterance, whether a file that holds the very same cut and is captioned by itself
    has its caption, in text and in all else of the record."""
    at = {one.start_s: one.caption for one in spoken}
    file, same = path.with_suffix(".cut.wav"), []
    for cut in utterances(stream(path), captioner.detector):
        if cut.kind == "speech":
            soundfile.write(file, cut.samples, RATE_HZ, subtype="FLOAT")
            (alone,) = captioner.caption_many([file])
            same.append(record(alone) == record(at.get(cut.start_s)))
    file.unlink()
    return same


def record(caption: Caption | AlignCapError | None) -> Json:
    """What is said of an utterance; nothing where nobody speaks in it after all."""
    return caption.to_dict() if isinstance(caption, Caption) else {}


def near(span: Span, at: Sequence[Segment]) -> bool:
    """Whether one utterance alone is there, with both ends where they are."""
    return len(at) == 1 and all(
        abs(there - truly) <= NEAR_S
        for there, truly in zip((at[0].start_s, at[0].end_s), span, strict=True)
    )


def _meet(one: Segment, span: Span) -> bool:
    return one.start_s < span[1] and one.end_s > span[0]


def beside(clip: Utterance, span: Span, spoken: Sequence[Segment], alone: Caption) -> Json:
    """What became of a clip: utterances, how far their ends are off, captions, emotions."""
    at = [one for one in spoken if _meet(one, span)]
    row: Json = {"clip": str(clip.path), "found": len(at), "emotion": clip.emotion}
    row["alone"] = likeliest(alone)
    if len(at) == 1 and not isinstance(at[0].caption, AlignCapError) and at[0].caption:
        caption = at[0].caption
        row |= {"start": at[0].start_s - span[0], "end": at[0].end_s - span[1]}
        row |= {"segment": likeliest(caption), "same": caption.text == alone.text}
        row["levels"] = sum(getattr(caption, one) == getattr(alone, one) for one in LEVELS)
    return row


MOST_CLIPS = 60
"""Of a speaker, by twenty to a recording."""


def measure_speakers(asked: argparse.Namespace) -> Json:
    """The emotions of utterances of one speaker, heard by themselves and relative to each other."""
    # Imported here since it would count in the memory of `hours`.
    from aligncap.experiments.validation import LABELLED

    captioner, rows = load_model("mini"), []
    path = asked.work / f"speaker-{os.getpid()}.wav"
    for corpus in LABELLED:
        clips: dict[str, list[Utterance]] = defaultdict(list)
        for one in read_manifest(asked.data / corpus / "manifest.jsonl"):
            if split_of(one) == asked.part and one.emotion and one.speaker:
                clips[one.speaker].append(one)
        for speaker, own in sorted(clips.items()):
            random.Random(0).shuffle(own)
            fitting = list(itertools.islice(filter(is_fitting, own), MOST_CLIPS))
            for first in range(0, len(fitting), 20):
                part = fitting[first : first + 20]
                sound, truth = recording(part, first)
                soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
                heard = {
                    "segment": list(captioner.segments(path)),
                    "own": list(captioner.segments(path, baseline="own")),
                }
                rows += [
                    {"corpus": corpus, "clip": str(clip.path), "emotion": clip.emotion}
                    | {name: emotion_at(span, spoken) for name, spoken in heard.items()}
                    for clip, span in zip(part, truth, strict=True)
                ]
            print(f"{speaker}: {len(fitting)} clips", flush=True)
    path.unlink()
    return {"part": asked.part, "rows": rows}


def emotion_at(span: Span, found: Sequence[Segment]) -> str | None:
    """The likeliest emotion where one utterance alone is."""
    at = [one.caption for one in found if one.kind == "speech" and _meet(one, span)]
    return likeliest(at[0]) if len(at) == 1 and isinstance(at[0], Caption) else None


def likeliest(caption: Caption) -> str | None:
    """The emotion with most probability; None of a sound without words."""
    return max(caption.emotion, key=caption.emotion.__getitem__, default=None)


def measure_hours(asked: argparse.Namespace) -> Json:
    """Time and memory of a long file, and whether its segments are those of its piece alone."""
    captioner = load_model("mini")
    clips = chosen(asked.data, "train", random.Random(1))
    sound, _ = recording(clips, 1)
    length_s = len(sound) / RATE_HZ
    times = round(asked.hours * 3600 / length_s)
    path = asked.work / f"long-{asked.hours:g}.wav"
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for _ in range(times):
            file.write(sound)
    piece = asked.work / f"piece-{asked.hours:g}.wav"
    soundfile.write(piece, sound, RATE_HZ)
    alone = spoken_at(captioner.segments(piece), 0.0)
    found = followed(captioner, path, length_s, alone)
    path.unlink()
    piece.unlink()
    return {"sound_s": times * length_s, **found}


def followed(captioner: Any, path: Path, length_s: float, alone: dict[float, str]) -> Json:
    """Go through the segments of a file that repeats a piece; log every ten minutes of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    same, count, logged, memory, loads = 0, 0, 0.0, [], []
    for one in captioner.segments(path):
        if one.kind == "speech":
            count += 1
            start = round(one.start_s % length_s, 2)
            same += alone.get(start) == f"{one.end_s - one.start_s:.2f} {one.text}"
        if one.end_s - logged >= 600:
            logged = one.end_s
            memory.append(resident_mb())
            loads.append(os.getloadavg()[0])
            took = time.process_time() - cpu
            print(f"{logged / 60:.0f} min: {logged / took:.1f} x by processor time, "
                  f"{memory[-1]:.0f} MB, load {loads[-1]:.1f}", flush=True)  # fmt: skip
    return {
        "utterances": count,
        "same": same,
        "in_piece": len(alone),
        "wall_s": time.perf_counter() - wall,
        "processor_s": time.process_time() - cpu,
        "memory_mb": memory,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "load": float(np.mean(loads)) if loads else os.getloadavg()[0],
        "cores": machine()["cores"],
    }


def spoken_at(found: Iterable[Segment], start_s: float) -> dict[float, str]:
    """Length and caption of each utterance by its start."""
    return {
        round(one.start_s - start_s, 2): f"{one.end_s - one.start_s:.2f} {one.text}"
        for one in found
        if one.kind == "speech"
    }


def resident_mb() -> float:
    """The memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(work: Path) -> None:
    """Write docs/results/segments.md."""
    lines = ["# Long recordings", "", "Written by `python benchmarks/segments.py report`.", ""]
    lines += [INTRODUCTION, "", "    python benchmarks/segments.py made", ""]
    made_ones = [json.loads(one.read_text("utf-8")) for one in sorted(work.glob("made-*.json"))]
    lines += table([made_columns(one) for one in made_ones])
    lines += ["", NOTES, ""]
    lines += emotion_table([row for one in made_ones for row in one["rows"]])
    lines += [
        "",
        EMOTION_NOTES,
        "",
        "Recordings of one speaker each, by `python benchmarks/segments.py speakers`.",
        "",
    ]
    for one in sorted(work.glob("speakers-*.json")):
        lines += speaker_table(json.loads(one.read_text("utf-8"))["rows"])
    lines += [
        "",
        SPEAKER_NOTES,
        "",
        "One recording again and again, by `python benchmarks/segments.py hours N`.",
        "",
    ]
    hours = [json.loads(one.read_text("utf-8")) for one in work.glob("hours-*.json")]
    lines += table([hour_columns(one) for one in sorted(hours, key=lambda one: one["sound_s"])])
    lines += ["", HOUR_NOTES, ""]
    (ROOT / "docs/results/segments.md").write_text("\n".join(lines), encoding="utf-8")


INTRODUCTION = """\
Twenty real clips of six corpora with pauses, noise and music between, streamed from a file, by"""
NOTES = """\
Where a clip begins and ends is by `speech_activity` of the clip alone, in steps of 10 ms; where an
utterance does, by the detector and by levels (`utterance_span`). In two channels the clips lie by
turns, each with what follows it. An utterance has the caption that a file with the very same
samples has by itself, in whatever batch. It is captioned from its first sound to its last with
0.1 s around it, and its clip alone too, so that both are the same samples where both find the same
first and last sound; the recordings are of floats, which hold the clips as they are."""
EMOTION_NOTES = """\
Emotions of labelled clips: the share whose likeliest emotion is the label's. Clips that are not cut
once count as wrong. A mean over emotions gives one of a few clips as much weight as one of fifty:
of boredom the validation speakers have three clips in all."""
SPEAKER_NOTES = """\
All labelled validation speakers, up to sixty clips of each, twenty to a recording, with pauses,
noise and music between. Macro recall of the likeliest emotion as segments, and as segments relative
to the other utterances of the recording (`--per file`), whose labels are not told."""
HOUR_NOTES = """\
Memory is that of the process at ten minutes, at the end, and its peak. Load is the mean number of
processes that wanted a core while it ran: where that is above the cores, the clock says how busy
the machine was, and the processor time says what a recording costs. The detector remembers what it
heard before: at the beginning of the piece alone that is nothing, of a repetition the end of the
last one."""


def table(columns: Sequence[Json]) -> list[str]:
    """A table with a row for each key."""
    if not columns:
        return ["Not measured yet."]
    names = list(columns[0])
    lines = ["| " + " | ".join([names[0], *(str(one[names[0]]) for one in columns)]) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    return lines + [
        "| " + " | ".join([name, *(str(one[name]) for one in columns)]) + " |" for name in names[1:]
    ]


def made_columns(one: Json) -> Json:
    """The figures of made recordings."""
    rows = one["rows"]
    cut = [row for row in rows if "start" in row]
    off = [max(abs(row["start"]), abs(row["end"])) for row in cut]
    close = sum(away <= NEAR_S for away in off)
    apart = one["apart"]
    same = sum(row.get("same", False) for row in rows)
    levels = sum(row["levels"] for row in cut)
    alike = sum(row["segment"] == row["alone"] for row in cut)
    return {
        "speakers": one["part"],
        "recordings, clips": f"{one['recordings']}, {len(rows)}",
        f"cut once, both ends within {NEAR_S} s": f"{close} ({close / len(rows):.1%})",
        "not cut once": len(rows) - len(cut),
        "farthest end, median and 95th percentile": (
            f"{np.median(off):.2f} s, {np.percentile(off, 95):.2f} s"
        ),
        "captioned where nobody speaks": one["others"],
        f"two channels, split: cut once, both ends within {NEAR_S} s": (
            f"{sum(apart)} ({sum(apart) / len(apart):.1%})"
        ),
        "two channels, split: captioned where nobody speaks": one["apart_others"],
        "utterances with the record of the same cut as a file": (
            f"{sum(one['cuts'])} of {len(one['cuts'])}"
        ),
        "captioned in the same words as the clip alone": f"{same} ({same / len(rows):.1%})",
        "gender, pitch, loudness, pace as of the clip alone": (
            f"{levels / len(rows) / len(LEVELS):.1%}"
        ),
        "emotion as of the clip alone": f"{alike / len(rows):.1%}",
    }


LEAST_CLIPS = 10
"""Different clips of an emotion, from which on its recall counts in the mean without rare ones."""


def emotion_table(rows: Sequence[Json]) -> list[str]:
    """Of the labelled clips how many have their emotion, by emotion and in the mean, as segments
    and alone, with the difference and its interval."""
    rows = [row for row in rows if row["emotion"]]
    clips: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        clips[row["emotion"]].add(row["clip"])
    often = {emotion for emotion, own in clips.items() if len(own) >= LEAST_CLIPS}
    columns = [
        {"": emotion, **compared([row for row in rows if row["emotion"] == emotion], shares)}
        for emotion in sorted(clips)
    ]
    common = [row for row in rows if row["emotion"] in often]
    columns += [
        {"": "all clips", **compared(rows, shares)},
        {"": "mean over the emotions", **compared(rows, mean_recall)},
        {"": f"mean over those of {LEAST_CLIPS} clips", **compared(common, mean_recall)},
    ]
    names = list(columns[0])
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    return lines + ["| " + " | ".join(map(str, one.values())) + " |" for one in columns]


def speaker_table(rows: Sequence[Json]) -> list[str]:
    """Macro recall by corpus, relative to the recording's other utterances and not."""
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    lines = [
        f"| corpus | {' | '.join(compared(rows, mean_recall, OWN))} |",
        "|---|" + "---:|" * 4,
    ]
    for corpus in corpora:
        found = compared([row for row in rows if row["corpus"] == corpus], mean_recall, OWN)
        lines.append(f"| {corpus} | {' | '.join(found.values())} |")
    return lines


def shares(sums: Floats) -> Floats:
    """Hits by clips, all classes together; sums as of `mean_recall`."""
    hits, clips = np.split(sums, 2, axis=-1)
    return np.asarray(hits.sum(axis=-1) / clips.sum(axis=-1))


ALONE = {"segment": "as segments", "alone": "alone"}
OWN = {"own": "relative", "segment": "as segments"}
"""What is compared with what, and what their columns are called."""


def compared(
    rows: Sequence[Json], score: Callable[[Floats], Floats], what: Mapping[str, str] = ALONE
) -> Json:
    """Two scores of the clips, and their difference with its 95 % interval over 2,000 draws of
    clips; a clip in several recordings is drawn with all of them."""
    names = sorted({row["clip"] for row in rows})
    at = np.array([names.index(row["clip"]) for row in rows])
    classes = sorted({row["emotion"] for row in rows})
    draw = np.random.default_rng(0)
    drawn = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), 2000)[:, at]
    weights = np.concatenate((np.ones((1, len(rows))), drawn))
    first, second = (
        score(weights @ np.array([recall_row(r["emotion"], r.get(name), classes) for r in rows]))
        for name in what
    )
    low, high = np.percentile((first - second)[1:], (2.5, 97.5))
    return {
        "clips, different ones": f"{len(rows)}, {len(names)}",
        **{name: f"{one[0]:.3f}" for name, one in zip(what.values(), (first, second), strict=True)},
        "difference": f"{first[0] - second[0]:+.3f} ({low:+.3f} to {high:+.3f})",
    }


def hour_columns(one: Json) -> Json:
    """The figures of a long recording."""
    memory, sound_s = one["memory_mb"] or [one["peak_mb"]], one["sound_s"]
    return {
        "hours": f"{sound_s / 3600:.2f}",
        "utterances": one["utterances"],
        "as in the piece alone": f"{one['same'] / max(1, one['utterances']):.1%}",
        "real-time factor by processor time": f"{sound_s / one['processor_s']:.1f}",
        "real-time factor by the clock": f"{sound_s / one['wall_s']:.1f}",
        "cores, load": f"{one['cores']}, {one['load']:.1f}",
        "memory at ten minutes, at the end, peak": (
            f"{memory[0]:.0f}, {memory[-1]:.0f}, {one['peak_mb']:.0f} MB"
        ),
    }


if __name__ == "__main__":
    main()
