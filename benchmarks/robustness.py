"""What damaged input does: mutated sound files, texts and model folders through the command line.

    python benchmarks/robustness.py [--count 2000] [--texts 500] [--seed 0] [--only KIND,…]

Each input is a good one with some of its bits turned, cut off, spliced with another, or with
numbers of its header changed; the seed says how. `aligncap.cli.main.main` is called in worker
processes, several inputs at a time beside good ones, with a limit of time for each call; a worker
that hangs or dies is replaced. Counted are tracebacks (an exception that leaves the command, or
one printed), hangs, deaths of the process, good neighbours that were not captioned, and refusals
that are more than one line. The largest memory of a worker is printed too. The exit code is 0 where
all counts are.
"""

import argparse
import io
import json
import os
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT / "examples/clips"
INPUTS = ROOT / "tests/golden/inputs"

CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "float wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
"""Six containers, wav and ogg in two encodings each."""

TEXTS = ("manifest", "captions", "recipe", "export", "model folder")
BATCH = 8
"""Inputs of one call, with a good file before the first and after the last."""

Json = dict[str, Any]


def main() -> int:
    """Run all mutants, print the table, and say by the exit code whether anything was found."""
    asked = arguments()
    if asked.child:
        return serve()
    tables: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        for kind, count in kinds(asked).items():
            draw = random.Random(f"{asked.seed} {kind}")
            place = Path(folder) / kind.replace(" ", "-")
            place.mkdir()
            tally = tables[kind] = Tally()
            with Worker(asked.limit) as worker:
                started = time.perf_counter()
                for batch in batches(kind, count, draw, place):
                    tally.add(batch, worker.call(batch.command, batch.cwd))
                tally.seconds = time.perf_counter() - started
            shutil.rmtree(place)
    show(tables, asked)
    return int(any(tally.faults for tally in tables.values()))


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="mutated sound files")
    parser.add_argument("--texts", type=int, help="mutated texts; a quarter of the sound files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of one call")
    parser.add_argument("--only", help="kinds, separated by commas")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def kinds(asked: argparse.Namespace) -> dict[str, int]:
    """How many mutants of each kind."""
    texts = asked.count // 4 if asked.texts is None else asked.texts
    shares = dict(zip(CONTAINERS, shared(asked.count, len(CONTAINERS)), strict=True))
    shares |= zip(TEXTS, shared(texts, len(TEXTS)), strict=True)
    only = asked.only.split(",") if asked.only else list(shares)
    return {kind: shares[kind] for kind in only}


def shared(count: int, parts: int) -> list[int]:
    """A number in parts that differ by one at most."""
    return [count // parts + (number < count % parts) for number in range(parts)]


@dataclass
class Batch:
    """One call of the command line."""

    command: list[str]
    cwd: Path
    mutants: int
    good: list[str] = field(default_factory=list)
    """Files that must have a caption."""
    sounds: bool = False
    """Whether each file has a record of its own."""
    one_line: bool = False
    """Whether a refusal is a single line, not one for each row."""


@dataclass
class Tally:
    """What happened to the mutants of a kind."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak_mb: float = 0.0
    examples: list[str] = field(default_factory=list)

    FAULTS = ("tracebacks", "hangs", "deaths", "lost", "long refusals")

    @property
    def faults(self) -> int:
        """How much went wrong."""
        return sum(self.counts[name] for name in self.FAULTS)

    def add(self, batch: Batch, reply: Json) -> None:
        """Count one call."""
        self.counts["mutants"] += batch.mutants
        self.peak_mb = max(self.peak_mb, reply.get("peak_mb", 0.0))
        if trouble := reply.get("trouble"):
            self.found(trouble, batch, reply.get("detail", ""))
            return
        printed = reply["stderr"].splitlines()
        if "Traceback" in reply["stderr"] + reply["libraries"]:
            self.found("tracebacks", batch, reply["stderr"] + reply["libraries"])
        records = list(records_of(reply["stdout"]))
        captioned = {record["file"] for record in records if "caption" in record}
        for file in batch.good:
            if file not in captioned:
                self.found("lost", batch, f"{file} {reply['stderr']}")
        refused = sum("error" in record for record in records)
        if not batch.sounds:
            refused = int(reply["code"] != 0)
        elif len(records) != batch.mutants + len(batch.good):
            self.found("lost", batch, f"{len(records)} records")
        wrong = [line for line in printed if not line.startswith("aligncap: ")]
        if wrong or (batch.one_line and refused and len(printed) > 1):
            self.found("long refusals", batch, reply["stderr"])
        self.counts["refused"] += refused
        self.counts["used"] += batch.mutants - refused

    def found(self, fault: str, batch: Batch, detail: str) -> None:
        """Count a fault and keep how it came about."""
        self.counts[fault] += 1
        self.examples.append(f"{fault}: {' '.join(batch.command)}: {detail[-600:]}")


def records_of(text: str) -> Iterator[Json]:
    """The records of captions printed."""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "file" in record:
            yield record


def show(tables: dict[str, Tally], asked: argparse.Namespace) -> None:
    """Print the table, and the first faults of each kind."""
    heads = ["input", "mutants", "used", "refused", *Tally.FAULTS, "peak MB", "s"]
    print("|", " | ".join(heads), "|")
    print("|---" + "|---:" * (len(heads) - 1) + "|")
    total: Counter[str] = Counter()
    for kind, tally in tables.items():
        total += tally.counts
        cells = [tally.counts[name] for name in heads[1:-2]]
        print("|", " | ".join(map(str, [kind, *cells, f"{tally.peak_mb:.0f}"])), end=" | ")
        print(f"{tally.seconds:.0f} |")
    cells = [total[name] for name in heads[1:-2]]
    peak = max(tally.peak_mb for tally in tables.values())
    seconds = sum(tally.seconds for tally in tables.values())
    print("|", " | ".join(map(str, ["all", *cells, f"{peak:.0f}", f"{seconds:.0f}"])), "|")
    print(f"\nseed {asked.seed}, limit {asked.limit:.0f} s a call")
    for kind, tally in tables.items():
        for example in tally.examples[:5]:
            print(f"\n{kind}: {example}")


# Mutants


def mutated(data: bytes, draw: random.Random, *, head: int = 64) -> bytes:
    """Bytes with one to three mutations."""
    for _ in range(draw.randint(1, 3)):
        data = draw.choice((flipped, cut, spliced, edited))(data, draw, head) or b"\0"
    return data


def flipped(data: bytes, draw: random.Random, _head: int) -> bytes:
    """Some bits turned over, anywhere."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 3, 10, 100))):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(data: bytes, draw: random.Random, _head: int) -> bytes:
    """A stretch taken out: most often the end."""
    start = draw.randrange(len(data))
    stop = len(data) if draw.random() < 0.7 else draw.randrange(start, len(data))
    return data[:start] + data[stop:]


def spliced(data: bytes, draw: random.Random, _head: int) -> bytes:
    """A stretch of the same put elsewhere in it, or noise, or zeros."""
    start = draw.randrange(len(data))
    length = draw.choice((4, 100, 5_000, len(data)))
    piece = draw.choice((data[start : start + length], draw.randbytes(length), bytes(length)))
    at = draw.randrange(len(data))
    return data[:at] + piece + data[at + draw.choice((0, len(piece))) :]


def edited(data: bytes, draw: random.Random, head: int) -> bytes:
    """Numbers of the header set to extremes."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(min(head, len(data)))
        value = draw.choice((0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000, draw.getrandbits(32)))
        size = draw.choice((1, 2, 4))
        changed[at : at + size] = value.to_bytes(4, draw.choice(("big", "little")))[:size]
    return bytes(changed)


ODD = (
    *("null", "NaN", "1e999", '""', "[]", "{}", "-1", "true", '"\\ud800"', '"\\u0000"', "0"),
    *(
        "[" * 20_000,
        '"' + "very " * 20_000 + '"',
        "\ufeff",
        "\x00",
        "\x1b[31m",
        "\n\n",
        "1" * 5_000,
    ),
)


def mutated_text(data: bytes, draw: random.Random) -> bytes:
    """A text whose values, lines or encoding are not what they should be, or mutated as bytes."""
    way = draw.randrange(5)
    text = data.decode("utf-8")
    if way == 0:
        return mutated(data, draw, head=200)
    if way == 1:
        return text.encode(
            draw.choice(("utf-16", "utf-8-sig", "utf-32", "cp1252", "gb18030")), "replace"
        )
    if way == 2:
        lines = text.splitlines(keepends=True)
        draw.shuffle(lines)
        return "".join(lines + draw.sample(lines, min(2, len(lines)))).encode()
    for _ in range(draw.randint(1, 3)):
        ends = [at for at, letter in enumerate(text) if letter in ',:]}="']
        at = draw.choice(ends)
        stop = draw.choice(ends)
        text = (
            text[: at + 1] + draw.choice(ODD) + text[max(at + 1, stop if stop - at < 80 else 0) :]
        )
    return text.encode("utf-8", "surrogatepass")


# Calls


def batches(kind: str, count: int, draw: random.Random, place: Path) -> Iterator[Batch]:
    """The calls that `count` mutants of a kind are tried by."""
    good = [place / "good1.ogg", place / "good2.ogg"]
    for file, name in zip(good, ("woman-plain", "man-loud-fast"), strict=True):
        shutil.copyfile(CLIPS / f"{name}.ogg", file)
    if kind in CONTAINERS:
        wholes = sounds(kind)
        for start in range(0, count, BATCH):
            files = []
            for number in range(start, min(count, start + BATCH)):
                files.append(place / f"{number}.{kind.rpartition(' ')[2]}")
                files[-1].write_bytes(mutated(draw.choice(wholes), draw))
            names = list(map(str, [good[0], *files, good[1]]))
            command = ["caption", *names, "--format", "jsonl"]
            yield Batch(command, place, len(files), list(map(str, good)), sounds=True)
            for file in files:
                file.unlink()
    else:
        make = {
            "manifest": manifest,
            "captions": captions,
            "recipe": recipe,
            "export": export,
            "model folder": model_folder,
        }[kind]
        for number in range(count):
            yield make(number, draw, place)


@lru_cache
def sounds(kind: str) -> list[bytes]:
    """Two clips of 16 kHz in a container, about two seconds each; the second in stereo."""
    import numpy as np
    import soundfile
    import soxr

    rate_hz = 24_000 if kind == "opus" else 16_000
    container, subtype = CONTAINERS[kind]
    wholes = []
    for number, name in enumerate(("woman-high-lively-fast", "man-plain")):
        samples, stored_hz = soundfile.read(CLIPS / f"{name}.ogg")
        sound = soxr.resample(samples, stored_hz, rate_hz)[: 2 * rate_hz]
        data = io.BytesIO()
        many = np.stack([sound] * (number + 1), axis=1)
        soundfile.write(data, many, rate_hz, format=container, subtype=subtype)
        wholes.append(data.getvalue())
    return wholes


def manifest(number: int, draw: random.Random, place: Path) -> Batch:
    """A manifest of example clips."""
    text = (INPUTS / "manifest.jsonl").read_bytes().replace(b"../../../examples/clips", b"clips")
    if not (place / "clips").exists():
        (place / "clips").symlink_to(CLIPS)
    file = place / f"{number}.jsonl"
    file.write_bytes(mutated_text(b"".join(text.splitlines(keepends=True)[:3]), draw))
    if number % 2:
        out = str(place / f"cache-{number}")
        return Batch(["tokens", str(file), "--tokenizer", "builtin", "-o", out], place, 1)
    good = str(place / "good1.ogg")
    return Batch(["caption", str(file), good, "--format", "jsonl"], place, 1, [good])


def captions(number: int, draw: random.Random, place: Path) -> Batch:
    """Captions against references, one of which is mutated."""
    files = [INPUTS / "hypotheses-en.jsonl", INPUTS / "references-en.jsonl"]
    which = number % 2
    file = place / f"{number}.jsonl"
    file.write_bytes(mutated_text(files[which].read_bytes(), draw))
    files[which] = file
    pair = ["--hypotheses", str(files[0]), "--references", str(files[1])]
    return Batch(["evaluate", *pair, "--draws", "20"], place, 1, one_line=True)


def recipe(number: int, draw: random.Random, place: Path) -> Batch:
    """A recipe, dry-run."""
    recipes = sorted((INPUTS / "recipes").glob("*.toml"))
    file = place / f"{number}.toml"
    file.write_bytes(mutated_text(draw.choice(recipes).read_bytes(), draw))
    out = str(place / f"run-{number}")
    return Batch(["train", str(file), "--dry-run", "-o", out], ROOT, 1, one_line=True)


def export(number: int, draw: random.Random, place: Path) -> Batch:
    """Pairs as other trainers have them, imported."""
    rows = [
        {"prompt": "Describe", "chosen": f"He sounds sad {n}.", "rejected": "A happy voice."}
        if n % 2
        else {
            "conversations": [{"from": "human", "value": "<audio>Describe"}],
            "chosen": {"from": "gpt", "value": f"She speaks fast {n}."},
            "rejected": {"from": "gpt", "value": "She whispers."},
            "audios": [f"{n}.wav"],
        }
        for n in range(4)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file = place / f"{number}.jsonl"
    file.write_bytes(mutated_text(text.encode(), draw))
    return Batch(
        ["prefer", "import", str(place / f"{number}.sqlite"), str(file)], place, 1, one_line=True
    )


def model_folder(_number: int, draw: random.Random, place: Path) -> Batch:
    """The built-in model with one of its files mutated."""
    folder = place / "model"
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(ROOT / "src/aligncap/models/mini", folder)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    file = draw.choice([file for file in files if file.suffix not in (".md", "")])
    data = file.read_bytes()
    if file.suffix == ".json" and len(data) < 100_000 and draw.random() < 0.7:
        file.write_bytes(mutated_text(data, draw))
    else:
        file.write_bytes(mutated(data, draw, head=400))
    return Batch(
        ["caption", str(place / "good1.ogg"), "--model", str(folder)], place, 1, one_line=True
    )


# Workers


class Worker:
    """A process that runs commands one after the other; a new one where it hangs or dies."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def call(self, command: list[str], cwd: Path) -> Json:
        """What a command said, or the trouble that it made."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"command": command, "cwd": str(cwd)}).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            if not waiting.select(self._limit_s):
                self._end()
                return {"trouble": "hangs"}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return {"trouble": "deaths", "detail": f"exit {code}"}
        reply: Json = json.loads(line)
        return reply

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--child"]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def serve() -> int:
    """The worker: runs each command read from standard input."""
    replies = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as printed:
        # Libraries print past Python: both streams of the process are kept in a file.
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        keep_model = lru_cache(load_model())
        for line in sys.stdin:
            asked = json.loads(line)
            os.chdir(asked["cwd"])
            reply = run(asked["command"], keep_model)
            printed.seek(0)
            reply["libraries"] = printed.read().decode("utf-8", "replace")
            printed.seek(0)
            printed.truncate()
            reply["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(reply), file=replies, flush=True)
    return 0


def load_model() -> Callable[..., Any]:
    """What the command line loads models by."""
    from aligncap.cli.console import load_model

    return load_model


def run(command: list[str], keep_model: Callable[..., Any]) -> Json:
    """Run one command; the built-in model is loaded once."""
    from aligncap.cli.console import Console
    from aligncap.cli.main import main

    out, errors = io.StringIO(), io.StringIO()
    changed: Json = {} if "--model" in command else {"load_model": keep_model}
    stdin = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        code = main(command, console=Console(stdin=stdin, stdout=out, stderr=errors, **changed))
    except BaseException:  # noqa: BLE001  whatever leaves the command is what is counted
        return {"trouble": "tracebacks", "detail": traceback.format_exc()}
    return {"code": code, "stdout": out.getvalue(), "stderr": errors.getvalue()}


if __name__ == "__main__":
    sys.exit(main())
