"""`aligncap corpus`: prepare, split, and the doctor."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aligncap.cli.messages import stoppable
from aligncap.cli.progress import Progress
from aligncap.cli.world import World
from aligncap.corpora.captioned import open_corpus
from aligncap.corpora.doctor import FAULTS, MANIFEST, Report, examine, prepare
from aligncap.corpora.layouts import Fault
from aligncap.corpora.seen import Seen
from aligncap.corpora.splits import (
    Leaks,
    Split,
    count_leaks,
    empty_parts,
    leak_faults,
    split_manifest,
)

SOME_FAILED = 1
SAID_OF_A_KIND = 5
"""A corpus that lacks a folder has thousands of faults of one kind; all are in a file."""


def prepare_corpus(
    name: str,
    source: Path,
    out: Path,
    *,
    by: str | None,
    salt: str,
    subset: bool,
    world: World,
) -> int:
    """Prepare a corpus; returns 0, or 1 if it has faults."""
    said: Counter[str] = Counter()

    def say(fault: Fault) -> None:
        said[fault.kind] += 1
        if said[fault.kind] <= SAID_OF_A_KIND:
            world.say(str(fault))

    with stoppable(lambda: "what was read so far is kept"), _bar(world, "reading") as advance:
        report = prepare(
            open_corpus(name),
            source,
            out,
            counts={} if subset else None,
            split=Split(by, salt) if by else None,
            on_fault=say,
            progress=advance,
        )
    for kind, count in said.items():
        if count > SAID_OF_A_KIND:
            world.say(f"{kind}: {count - SAID_OF_A_KIND:,} more are in {out / FAULTS}")
    print(f"{out / MANIFEST}: {_summary(report)}", file=world.stdout)
    _print_split(report.parts, report.leaks, report.split, world)
    return SOME_FAILED if report.faults else 0


def examine_corpus(
    target: Path, *, corpus: str | None, subset: bool, quick: bool, world: World
) -> int:
    """Print every fault of a corpus; returns 0, or 1 if there is any."""
    with stoppable(lambda: "nothing was changed"), _bar(world, "looking") as advance:
        report = examine(
            target,
            corpus=open_corpus(corpus) if corpus else None,
            counts={} if subset else None,
            headers_only=quick,
            on_fault=lambda fault: print(fault, file=world.stdout),
            progress=advance,
        )
    print(f"{target}: {_summary(report)}", file=world.stdout)
    _print_split(report.parts, report.leaks, report.split, world)
    return SOME_FAILED if report.faults else 0


def split_corpus(manifest: Path, out: Path, *, by: str, salt: str, world: World) -> int:
    """Split a manifest; returns 0, or 1 if something leaks or a part is empty."""
    split = Split(by, salt)
    out.mkdir(parents=True, exist_ok=True)
    with stoppable(lambda: "nothing was changed"), Seen(out) as seen:
        counts = split_manifest(manifest, out, split, seen)
        leaks = count_leaks(seen)
        failed = 0
        for fault in (*leak_faults(seen, split), *empty_parts(seen, counts, split)):
            failed = SOME_FAILED
            world.say(str(fault))
    _print_split(counts, leaks, split, world)
    return failed


def _summary(report: Report) -> str:
    tally = report.tally
    faults = ", ".join(f"{count:,} {kind}" for kind, count in tally.faults.items()) or "none"
    rates = ", ".join(f"{rate:,} Hz" for rate in sorted(tally.rates_hz))
    return (
        f"{tally.clips:,} clips, {tally.seconds / 3600:.2f} h, {report.speakers:,} speakers, "
        f"{tally.captions:,} captions{f', {rates}' if rates else ''}; faults: {faults}"
    )


def _print_split(
    counts: Mapping[str, int] | None, leaks: Leaks | None, split: Split | None, world: World
) -> None:
    """Say how a corpus was split and what lies on both sides."""
    if not counts or leaks is None:
        return
    how = f"split by {split.by}, salt {split.salt!r}" if split else "split"
    lengths = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{how}: {lengths}", file=world.stdout)
    print(
        f"in more than one part: {leaks.speakers:,} speakers, {leaks.sentences:,} sentences, "
        f"{leaks.sounds:,} sounds",
        file=world.stdout,
    )


@contextmanager
def _bar(world: World, doing: str) -> Iterator[Callable[[], None]]:
    """Within, a bar that counts; how many are to come is not known."""
    with Progress(world, doing, results_on_stdout=False) as bar:
        yield bar.advance
