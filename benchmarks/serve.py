"""Many clients at `aligncap serve`: `benchmarks/serve.py [--seconds 60] [--clients 64] [CLIP …]`;
with `--write` its table goes to docs/results/serve-benchmark.md.

First one client asks at a time, then all do, then a third of them send garbage, cut the line or
send a byte now and then. Printed of each: requests a second and seconds of sound a second, how long
an answer takes, what was answered with what status, whether every record is the one that the
captioner gives without a server, and how much memory the server's process has had at most.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import aligncap
from aligncap.audio import load

CLIPS = Path(__file__).resolve().parents[1] / "examples" / "clips"
HEAD = (
    "POST /v1/captions HTTP/1.1\r\nHost: server\r\nContent-Length: {length}\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "serve-benchmark.md"
COLUMNS = (
    "clients", "answers/s", "s of sound/s", "p50 (s)", "p99 (s)", "statuses", "wrong", "lost",
    "peak memory (MB)", "load",
)  # fmt: skip
PAUSE_S = 0.2
"""Between the bytes of one who trickles."""


@dataclass
class Tally:
    """What the clients of one run were answered."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    sound_s: float = 0.0
    wrong: int = 0
    lost: int = 0
    hostile: Counter[str] = field(default_factory=Counter)

    def report(self, name: str, peak_mb: float) -> str:
        """The run as a row of a table."""
        done = self.statuses[200]
        middle, late = np.percentile(self.times_s, [50, 99]) if self.times_s else (0, 0)
        return (
            f"| {name} | {done / self.seconds:.1f} | {self.sound_s / self.seconds:.0f} | "
            f"{middle:.2f} | {late:.2f} | {told(self.statuses)} | {self.wrong} | "
            f"{self.lost} | {peak_mb:.0f} | {os.getloadavg()[0]:.1f} |"
        )


def told(counts: Counter[Any]) -> str:
    """ "200: 57, 429: 3"."""
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "none"


@dataclass(frozen=True)
class Server:
    """A server's address, and its process."""

    url: str
    process: subprocess.Popen[str]

    def peak_mb(self) -> float:
        """The most memory that its process has had."""
        told = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) / 1024


def start() -> Server:
    """`aligncap serve`, once its model is loaded."""
    command = [sys.executable, "-m", "aligncap", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    url = re.findall(r"http://[\d.:]+", process.stdout.readline())[0]
    while httpx.get(f"{url}/health").status_code != 200:
        time.sleep(0.05)
    return Server(url, process)


async def ask(
    server: Server, expected: dict[Path, Any], tally: Tally, until_s: float, seed: int
) -> None:
    """One client: a clip, its answer, the next."""
    draw = random.Random(seed)
    # Each would read the certificates of the machine, for half a second.
    async with httpx.AsyncClient(base_url=server.url, timeout=120, verify=False) as client:
        while time.monotonic() < until_s:
            clip = draw.choice(sorted(expected))
            begun = time.perf_counter()
            try:
                files = {"file": (clip.name, clip.read_bytes())}
                answer = await client.post("/v1/captions", files=files)
            except httpx.HTTPError:
                tally.lost += 1
                continue
            tally.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                tally.times_s.append(time.perf_counter() - begun)
                tally.sound_s += answer.json()["duration_s"]
                tally.wrong += answer.json() != expected[clip]
            elif answer.status_code == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))


async def annoy(server: Server, clip: bytes, tally: Tally, until_s: float, seed: int) -> None:
    """One client that sends no sound, breaks off in the midst of one, or trickles it."""
    draw = random.Random(seed)
    host, port = server.url.removeprefix("http://").split(":")
    while time.monotonic() < until_s:
        how = draw.choice(("garbage", "cut", "trickle"))
        tally.hostile[how] += 1
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            if how == "garbage":
                body = draw.randbytes(draw.randrange(1, 60_000)) + b"\r\n--x--\r\n"
                writer.write(_request(body) if draw.random() < 0.8 else draw.randbytes(500))
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 60)
            elif how == "cut":
                whole = _request(clip + b"\r\n--x--\r\n")
                writer.write(whole[: draw.randrange(1, len(whole) + 1)])
                await writer.drain()
                await asyncio.sleep(draw.random() * 0.2)
            else:
                for byte in _request(clip)[: draw.randrange(10, 50)]:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(PAUSE_S)
        except (OSError, TimeoutError):
            tally.hostile["dropped"] += 1
        finally:
            writer.transport.abort()


def _request(body: bytes) -> bytes:
    head, _, form = HEAD.partition("\r\n\r\n")
    length = len(form.encode()) + len(body)
    return f"{head.format(length=length)}\r\n\r\n{form}".encode() + body


async def run(seconds: float, clients: list[Callable[..., Coroutine[Any, Any, None]]]) -> Tally:
    """All clients at once, each with the same tally and end."""
    tally, until_s = Tally(seconds), time.monotonic() + seconds
    await asyncio.gather(*(client(tally, until_s, seed) for seed, client in enumerate(clients)))
    tally.seconds = time.monotonic() - until_s + seconds  # what was begun is waited for
    return tally


def main() -> None:
    """Start a server, and ask it in three ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--write", action="store_true", help="write the page of docs/results")
    asked = parser.parse_args()
    captioner = aligncap.load()
    expected = {
        clip: json.loads(json.dumps(captioner.caption(clip).to_dict()))
        for clip in asked.clips or sorted(CLIPS.glob("*.ogg"))
    }
    server = start()

    def good(*args: Any) -> Any:
        return ask(server, expected, *args)

    def bad(*args: Any) -> Any:
        return annoy(server, min(expected).read_bytes(), *args)

    third, lines = (
        asked.clients // 3,
        [
            f"| {' | '.join(COLUMNS)} |",
            "|" + "---|" * len(COLUMNS),
        ],
    )
    try:
        for name, clients in (
            ("1", [good]),
            (f"{asked.clients}", [good] * asked.clients),
            (
                f"{asked.clients - third}, and {third} hostile",
                [good] * (asked.clients - third) + [bad] * third,
            ),
        ):
            tally = asyncio.run(run(asked.seconds, clients))
            lines.append(tally.report(name, server.peak_mb()))
            print(lines[-1], flush=True)
    finally:
        server.process.terminate()
        server.process.wait()
    lines += ["", f"What the hostile clients did: {told(tally.hostile)}."]
    print(lines[-1])
    if asked.write:
        PAGE.write_text(page(asked, sorted(expected), lines), "utf-8")


def page(asked: argparse.Namespace, clips: Sequence[Path], lines: Sequence[str]) -> str:
    """The page of docs/results."""
    length_s = [load(clip).duration_s for clip in clips]
    cores = len(os.sched_getaffinity(0))
    least, most = min(length_s), max(length_s)
    return f"""# Many clients at one server

Made by `python benchmarks/serve.py --write`: `mini` behind `aligncap serve`, {len(clips)} clips of
{least:.1f} to {most:.1f} s, for {asked.seconds:.0f} s each one client that asks at a time,
{asked.clients} that ask at once, and {asked.clients} of which every third sends garbage, breaks off
in the midst of an upload, or sends a byte each {PAUSE_S} s. Server and clients shared {cores} cores
({platform.machine()}). aligncap {aligncap.__version__}, one run.

{chr(10).join(lines)}

*Wrong* are answers whose record differs in anything from what `captioner.caption` gives without a
server; *lost* are requests without an answer. Load is the mean number of processes that wanted a
core in the last minute; where it is well above the cores, other work ran, and the rows can be
compared with each other only. With {asked.clients} clients that wait for each other, p50 is
{asked.clients} over the answers a second: it is the queue, not the caption.
"""


if __name__ == "__main__":
    main()
