"""SIGKILL at a random moment: of a store at work, and of a training run.

As a script it is what is killed: `test_kill.py dpo|ppo PREFERENCES START OUTPUT` trains and stops
before its end; `test_kill.py store PATH` has its children killed, and prints what is in the store.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.trainer import ValidationSettings
from aligncap.preference import dpo
from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import PairOptions, pair_all
from aligncap.preference.ppo import PpoLossSettings
from aligncap.preference.store import Annotation, PreferenceStore
from aligncap.training.checkpoints import latest_checkpoint
from preference import test_dpo, test_ppo
from support import recipe_runs
from support.killer import finish, hold, hold_at_step, kill, wait_until
from support.killer import start as start_python
from support.preferences import FakeJudge, fill
from support.recipe_runs import assert_alike

STEPS, HELD_AT = 24, 20


def train(kind: str, preferences: Path, begin: Path, output: Path, *, resume: bool) -> None:
    """A short run of one kind, with many checkpoints."""
    module, learn = {"dpo": (test_dpo, dpo.train_dpo), "ppo": (test_ppo, test_ppo.learn)}[kind]
    changes = {
        "validation": ValidationSettings(every=7, rows=6),
        "training": replace(module.FIT, steps=STEPS, save_every=3, log_every=1),
    }
    if kind == "ppo":
        changes["ppo"] = PpoLossSettings(epochs=2, minibatches=2, kl_coefficient=0.05)
    settings = module.settings_of(preferences, begin, **changes)
    recipe_runs.run(learn, settings, output, resume=resume)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpo", "ppo"])
def test_a_killed_and_resumed_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, preferences: Path, start: Path, kind: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(kind, preferences, start, whole, resume=False)
    process = start_python(__file__, kind, preferences, start, killed)
    wait_until(lambda: latest_checkpoint(killed) is not None, process)
    kill(process, after_s=random.uniform(0.0, 0.4))
    train(kind, preferences, start, killed, resume=True)
    assert_alike(whole, killed)


CLIPS, EACH, ROUNDS, CHOICES = 12, 4, 50, 60
LAST = 1 + (ROUNDS - 1) // 9
"""Of the versions of judges."""


@dataclass(frozen=True)
class SlowJudge(FakeJudge):
    """A judge of many versions, so that there is always something left to judge."""

    version: int = 0

    @property
    def signature(self) -> str:
        return f"{self.name}|{self.version}"

    def judge(self, asked):
        time.sleep(0.001)
        return super().judge(asked)


# Kinds of work: each gives what it was told is kept, once it is.


def judging(store: PreferenceStore, version: int) -> Iterator[Any]:
    names = [clip.utterance for clip, _, _ in store.groups()]
    judge = SlowJudge(version=version)
    for name, _ in zip(names, judge_all(store, judge), strict=True):
        yield judge.signature, name


def pairing(store: PreferenceStore, version: int) -> Iterator[Any]:
    names = [clip.utterance for clip, _, _ in store.groups()]
    for name, count in zip(names, pair_all(store, PairOptions(least_margin=0)), strict=True):
        yield store.pairs.latest(), name, count


def annotating(store: PreferenceStore, version: int) -> Iterator[Any]:
    # All from the beginning, as a page does that never got its answers.
    for number in range(CHOICES * (version + 1)):
        shown, choice = f"{number // 3}", ("first", "second", "tie")[number % 3]
        who = f"person{number % 3}"
        store.annotations.add(Annotation(f"{number}", who, f"a{shown}", f"b{shown}", choice))
        yield f"{number}"


WORK = (judging, pairing, annotating)


def run_and_kill(path: Path, work: Any, version: int, *, after: int, most: int) -> list[Any]:
    """What a child was told is kept before it was killed, at a moment after so many things were
    and before `most` were."""
    log = path.with_suffix(".kept")
    log.write_bytes(b"")
    child = os.fork()
    if child == 0:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        with PreferenceStore(path) as store:
            for number, kept in enumerate(work(store, version), start=1):
                os.write(file, f"{json.dumps(kept)}\n".encode())
                if number == most:
                    hold()
        os._exit(0)
    wait_until(lambda: log.read_bytes().count(b"\n") >= after)
    time.sleep(random.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return [json.loads(line) for line in log.read_text().splitlines()]


def check(store: PreferenceStore, work: Any, kept: list[Any]) -> None:
    """The store is whole and holds what was kept."""
    assert store._database.row("PRAGMA integrity_check") == ("ok",)
    if work is judging:
        assert all(len(store.judgements(name, "en", judge)) == EACH for judge, name in kept)
    elif work is pairing:
        for builder, name, count in kept:
            of_clip = [one for one in store.pairs.all(builder) if one.utterance == name]
            assert len(of_clip) == count  # of what was judged before it was paired
    else:
        assert set(kept) <= {one.id for one in store.annotations.all()}


def kill_often(path: Path) -> None:
    """Children work and write down what they were told is kept; at a random moment each is killed.
    The store must then open and hold all of that; and in the end everything, once."""
    with PreferenceStore(path) as store:
        fill(store, CLIPS, EACH)
        list(judge_all(store, SlowJudge()))
    told = cut_short = 0
    for number in range(ROUNDS):
        work, version = WORK[number % 3], 1 + number // 9
        after = random.choice((0, 1, 1, 2, 5))
        most = after + 3 if number % 6 else 10**6
        kept = run_and_kill(path, work, version, after=after, most=most)
        with PreferenceStore(path) as store:
            check(store, work, kept)
        told += len(kept)
        cut_short += len(kept) < (CHOICES * (version + 1) if work is annotating else CLIPS)
    tables = ("candidates", "judgements", "annotations")
    with PreferenceStore(path) as store:
        for version in range(1, LAST + 1):
            list(judging(store, version))
        list(pairing(store, LAST))
        list(annotating(store, LAST))
        check(store, judging, [(f"evidence|{LAST}", "c03")])
        found = {one: store._database.row(f"SELECT count(*) FROM {one}")[0] for one in tables}
        found["pairs"] = len(list(store.pairs.all(store.pairs.latest())))
    print(json.dumps({"told": told, "cut_short": cut_short, **found}))


@pytest.mark.slow
def test_killed_fifty_times_the_store_loses_nothing_and_counts_nothing_twice(tmp_path) -> None:
    found = json.loads(finish(start_python(__file__, "store", tmp_path / "s.sqlite"))[0])
    assert found.pop("cut_short") >= ROUNDS * 4 // 5  # most were killed at their work
    assert found.pop("told") > ROUNDS  # and had got some of it done
    assert found == {
        "candidates": CLIPS * EACH,
        "judgements": CLIPS * EACH * (1 + LAST),
        "annotations": CHOICES * (LAST + 1),
        "pairs": CLIPS * (EACH - 1),
    }


if __name__ == "__main__":
    if sys.argv[1] == "store":
        kill_often(Path(sys.argv[2]))
    else:
        hold_at_step(HELD_AT)
        train(sys.argv[1], *map(Path, sys.argv[2:5]), resume=False)
