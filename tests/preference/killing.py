"""A process that has its children killed: run as a script, it prints what it found as JSON.

Each round forks a child that judges, pairs or annotates in a store and writes down what it was told
is kept; at a random moment it is killed. The store must then open and hold all of that, once.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import PairOptions, pair_all
from aligncap.preference.store import Annotation, PreferenceStore
from support.killer import hold, wait_until
from support.preferences import FakeJudge, fill

CLIPS, EACH = 12, 4
OPTIONS = PairOptions(least_margin=0)


@dataclass(frozen=True)
class SlowJudge(FakeJudge):
    """A judge of many versions, so that there is always something left to judge."""

    version: int = 0

    @property
    def signature(self) -> str:
        return f"{self.name}|{self.version}"

    def judge(self, asked):  # type: ignore[no-untyped-def]
        time.sleep(0.001)
        return super().judge(asked)


def judging(store: PreferenceStore, kept: Callable[[str], None], version: int) -> None:
    judge = SlowJudge(version=version)
    names = [clip.utterance for clip, _, _ in store.groups()]
    for name, _ in zip(names, judge_all(store, judge), strict=True):
        kept(f"{judge.signature} {name}")


def pairing(store: PreferenceStore, kept: Callable[[str], None], version: int) -> None:
    names = [clip.utterance for clip, _, _ in store.groups()]
    for name, count in zip(names, pair_all(store, OPTIONS), strict=True):
        kept(f"{store.pairs.latest()} {name} {count}")


def annotation(number: int) -> Annotation:
    first, second = f"low{number // 3}", f"high{number // 3}"
    choice = ("first", "second", "tie")[number % 3]
    return Annotation(f"choice-{number}", f"person{number % 3}", first, second, choice)


def annotating(store: PreferenceStore, kept: Callable[[str], None], version: int) -> None:
    # All from the beginning, as a page does that never got its answers.
    for number in range(60 * (version + 1)):
        store.annotations.add(annotation(number))
        kept(f"{number}")


WORK = (judging, pairing, annotating)


def run_and_kill(
    path: Path, work: Callable[..., None], version: int, *, after: int, most: int, after_s: float
) -> list[str]:
    """What the child was told is kept before it was killed: `after_s` after so many things were,
    and before `most` were."""
    log = path.with_suffix(".kept")
    log.write_bytes(b"")
    child = os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        told = iter(range(1, most))

        def kept(line: str) -> None:
            os.write(file, f"{line}\n".encode())
            if next(told, None) is None:
                hold()

        with PreferenceStore(path) as store:
            work(store, kept, version)
        os._exit(0)
    wait_until(lambda: log.read_bytes().count(b"\n") >= after)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return log.read_text().splitlines()


def check(path: Path, work: Callable[..., None], kept: list[str]) -> None:
    """The store is whole and holds what was kept."""
    with PreferenceStore(path) as store:
        assert store._database.row("PRAGMA integrity_check") == ("ok",)
        for line in kept:
            words = line.split(" ")
            if work is judging:
                signature, name = words
                assert len(store.judgements(name, "en", signature)) == EACH, line
            elif work is pairing:
                builder, name, count = " ".join(words[:-2]), words[-2], int(words[-1])
                of_clip = [one for one in store.pairs.all(builder) if one.utterance == name]
                assert len(of_clip) == count, line  # of what was judged before it was paired
        if work is annotating:
            found = {one.id for one in store.annotations.all()}
            assert {f"choice-{number}" for number in kept} <= found
        counts(store)


def counts(store: PreferenceStore) -> dict[str, int]:
    """How much there is of everything, and that nothing is there twice."""
    tables = {
        "judgements": "candidate, judge",
        "annotations": "annotator, low, high",
        "pairs": "builder, chosen, rejected",
        "candidates": "utterance, text",
    }
    found = {}
    for table, key in tables.items():
        query = f"SELECT count(*), count(DISTINCT key) FROM (SELECT ({key}) AS key FROM {table})"
        parts = " || '/' || ".join(key.split(", "))
        query = query.replace(f"({key})", parts)
        total, different = store._database.row(query)
        assert total == different, table
        found[table] = total
    return found


def main(path: Path, rounds: int, seed: int) -> None:
    draw = random.Random(seed)
    with PreferenceStore(path) as store:
        fill(store, CLIPS, EACH)
        list(judge_all(store, SlowJudge(version=0)))
    told = cut_short = 0
    for number in range(rounds):
        work, version = WORK[number % 3], 1 + number // 9
        after, after_s = draw.choice((0, 1, 1, 2, 5)), draw.uniform(0.0, 0.02)
        most = after + 3 if number % 6 else 10**6
        kept = run_and_kill(path, work, version, after=after, most=most, after_s=after_s)
        check(path, work, kept)
        told += len(kept)
        whole = 60 * (version + 1) if work is annotating else CLIPS
        cut_short += len(kept) < whole
    with PreferenceStore(path) as store:
        versions = 1 + (rounds - 1) // 9
        for version in range(1, versions + 1):
            judging(store, lambda _: None, version)
        pairing(store, lambda _: None, 0)
        annotating(store, lambda _: None, versions)
        found = counts(store)
        scores = store.judgements("c03", "en", f"evidence|{versions}")
        pairs = len(list(store.pairs.all(store.pairs.latest())))
    print(json.dumps({"told": told, "cut_short": cut_short, "pairs_now": pairs, **found}))
    assert len(scores) == EACH


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
