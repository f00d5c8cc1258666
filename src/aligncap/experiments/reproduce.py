"""Runs what a comparison needs and is not there yet: trains, captions, scores, stores.

    <out>/shared/<recipe>-<hash>/    stages, each the run of a recipe (`stages`)
          running/<name>-<hash>/     captions of a run so far; the hash is of what it is made of
          runs/<name>/               finished runs (`runs`)

Everything goes on where it was: a stage from its last checkpoint, captions from the last clips
that were written down. Several processes may work in one folder; a stage or a run is made by one.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import RUN_MODEL_FOLDER, model_fingerprint
from aligncap.clues import emotion_of, find_clues
from aligncap.data.captions import write_captions as references_of
from aligncap.data.manifest import Utterance, labelled, measure_all
from aligncap.errors import AlignCapError, InterruptedRunError
from aligncap.experiments import runs as stored
from aligncap.experiments.comparison import Run, Scale, planned_runs, tested_clips
from aligncap.experiments.stages import DONE_FILE, SHARED, Planner, Stage
from aligncap.experiments.validation import REFERENCE_SEED, REFERENCES
from aligncap.metrics.scores import MetricOptions
from aligncap.recipes import run_recipe
from aligncap.storage import atomic_folder, canonical_json, hash_of, lock_file, write_atomic
from aligncap.values import Facts

RUNNING = "running"

BATCH = 16
"""Clips that are captioned, and written down, at a time. Always the same ones: what is padded
together is part of the numbers."""

Told = Callable[[str], None]
"""Is told what is being done, a line at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for."""

    scale: Scale
    items: tuple[str, ...]
    data: Path
    out: Path
    seeds: int
    metrics: MetricOptions = field(default_factory=MetricOptions)
    """The judge and the jars; the language is the corpus'."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run and the stage that gives its model."""

    run: Run
    stage: Stage
    folder: Path
    """Where it is stored when it is finished."""
    made_of: Mapping[str, object]
    """As `Planner.made_of`."""

    @property
    def finished(self) -> bool:
        """Whether it is, and of the same."""
        return stored.made_of(self.folder) == self.made_of


class Reproduction:
    """The runs of some tables and figures in a folder."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._planner = Planner(options.scale, options.data, options.out)
        self._clips: dict[str, list[Utterance]] = {}
        self._broken: dict[str, AlignCapError] = {}
        self.failed: dict[str, AlignCapError] = {}
        """By the names of runs: why they cannot be made."""
        self.faults: list[Exception] = []
        """To be raised when everything else is done."""

    def tasks(self) -> list[Task]:
        """All runs that are needed, the finished ones too, without those that cannot be planned."""
        options, found = self.options, []
        folder = options.out / stored.RUNS_FOLDER
        for run in planned_runs(options.scale, options.items, options.seeds):
            try:
                stage = self._planner.stage_of(run)
            except AlignCapError as error:
                self.failed[run.name] = error
            else:
                made_of = self._planner.made_of(run, stage)
                found.append(Task(run, stage, folder / run.name, made_of))
        return found

    def cannot(self) -> dict[str, list[str]]:
        """Each reason why runs cannot be made, and their names."""
        found: dict[str, list[str]] = {}
        for name, error in self.failed.items():
            found.setdefault(str(error), []).append(name)
        return found

    def missing_stages(self, tasks: Sequence[Task]) -> list[Stage]:
        """The stages that unfinished runs still need, in the order in which they are made."""
        found: dict[str, Stage] = {}
        for task in tasks:
            if not task.finished:
                for stage in task.stage.in_order():
                    if stage.done is None:
                        found.setdefault(stage.key, stage)
        return list(found.values())

    def work(self, tasks: Sequence[Task], told: Told, finished: Callable[[Task], None]) -> None:
        """Make what is missing. A run that cannot be made is told of, and the others go on.

        `finished` is called after each run. One that another process is making is waited for at the
        end. What is wrong otherwise, a fault of ours, is kept in `faults`. Raises
        InterruptedRunError for a training that the user stopped.
        """
        waiting = [task for task in tasks if not task.finished]
        while waiting:
            left = []
            for task in waiting:
                try:
                    if self._make(task, told):
                        finished(task)
                    else:
                        left.append(task)
                except InterruptedRunError:
                    raise
                except AlignCapError as error:
                    self.failed[task.run.name] = error
                    former = "; one of other settings is stored" if task.folder.exists() else ""
                    told(f"{task.run.name}: {error}{former}")
                except Exception as error:  # noqa: BLE001
                    self.faults.append(error)
                    told(f"{task.run.name}: {type(error).__name__}: {error}")
            waiting = [task for task in left if not task.finished]
            if waiting:
                time.sleep(WAIT_S)

    def _make(self, task: Task, told: Told) -> bool:
        """Whether a run is finished; not if another process is at it."""
        for stage in task.stage.in_order():
            if stage.key in self._broken:
                raise self._broken[stage.key]
            try:
                if stage.done is None and not make_stage(stage, told):
                    return False
            except AlignCapError as error:
                self._broken[stage.key] = error
                raise
        if task.finished:
            return True
        with lock(task.folder.parent.parent / RUNNING / f"{task.run.name}.lock") as ours:
            if ours and not task.finished:
                told(f"captions: {task.run.name}")
                self._test(task)
        return ours

    def _test(self, task: Task) -> None:
        """Caption and score; the run's folder is there afterwards."""
        options, test, begun = self.options, task.run.test, time.monotonic()
        corpus = options.scale.corpora[test.test]
        clips, done = self.clips_of(test.test), task.stage.done
        assert done is not None
        model = Path(done["model"])
        key = hash_of(canonical_json(task.made_of))[:12]
        partial = options.out / RUNNING / f"{task.run.name}-{key}"
        rows = list(self._captioned(model, clips, corpus.language, partial))
        metrics = replace(options.metrics, language=corpus.language)
        seconds = time.monotonic() - begun
        with atomic_folder(task.folder) as folder:
            stored.write_captions(folder, rows)
            scored = [stored.scored_clip(row) for row in rows]
            stored.write_scores(folder, scored, metrics)
            table = {**self._described(task, model, len(rows)), "test_seconds": round(seconds, 1)}
            write_atomic(folder / stored.RUN_FILE, json.dumps(table, indent=1) + "\n")
        for file in partial.glob("*"):
            file.unlink()
        partial.rmdir()

    def score_again(self, runs: Sequence[stored.StoredRun], told: Told) -> None:
        """Score stored runs whose metrics could not be given when they were made and now can, and
        those that another judge has marked than the one that is given."""
        for run in runs:
            metrics = replace(self.options.metrics, language=run.language)
            if run.to_be_scored(metrics):
                told(f"scores: {run.name}")
                stored.write_scores(run.folder, run.clips, metrics, former=run)

    def clips_of(self, corpus: str) -> list[Utterance]:
        """The tested clips of a corpus."""
        if corpus not in self._clips:
            scale = self.options.scale
            found = tested_clips(scale.corpora[corpus], self.options.data, scale.clips)
            self._clips[corpus] = found
        return self._clips[corpus]

    def _captioned(
        self, model: Path, clips: Sequence[Utterance], language: str, partial: Path
    ) -> Iterator[Mapping[str, Any]]:
        """The lines of captions.jsonl; those that were written down before are not made again."""
        facts = self._facts([one.path for one in clips])
        captioner = None
        partial.mkdir(parents=True, exist_ok=True)
        pairs = list(zip(clips, facts, strict=True))
        for start in range(0, len(pairs), BATCH):
            batch, file = pairs[start : start + BATCH], partial / f"{start:06}.json"
            if not file.exists():
                captioner = captioner or load(model, beam_size=self.options.scale.beam_size)
                paths = [clip.path for clip, _ in batch]
                said = [
                    "" if isinstance(one, AlignCapError) else one.text
                    for one in captioner.caption_many(paths, language=language, evidence=False)
                ]
                write_atomic(file, json.dumps(said, ensure_ascii=False))
            texts = json.loads(file.read_text("utf-8"))
            for (clip, shown), text in zip(batch, texts, strict=True):
                known = labelled(clip)
                written = references_of(
                    known, shown, language=language, count=REFERENCES, seed=REFERENCE_SEED
                )
                yield {
                    "id": clip.id,
                    "audio": Path(os.path.relpath(clip.path, self.options.data)).as_posix(),
                    "corpus": clip.corpus,
                    "speaker": clip.speaker,
                    "caption": text,
                    "references": written,
                    "emotion": clip.emotion,
                    "named": emotion_of(find_clues(text, language)),
                }

    def _facts(self, files: Sequence[Path]) -> Sequence[Facts]:
        """What is measured of recordings; by one process at a time."""
        path = self.options.out / SHARED / "facts.jsonl"
        while True:
            with lock(path.with_suffix(".lock")) as ours:
                if ours:
                    return measure_all(path, files)
            time.sleep(WAIT_S)

    def _described(self, task: Task, model: Path, clips: int) -> dict[str, object]:
        """run.json."""
        run, arm, test = task.run, task.run.arm, task.run.test
        stages = {one.key: one for one in task.stage.in_order()}
        done = [one.done or {} for one in stages.values()]
        corpus = self.options.scale.corpora[test.test]
        return {
            "name": run.name,
            "arm": run.arm_name,
            "title": arm.title,
            "system": arm.system,
            "alignment": arm.alignment,
            "preference": arm.preference,
            "without": list(arm.without),
            "language_model": arm.language_model,
            "point": dict(arm.point),
            "protocol": test.protocol,
            "train": list(test.train),
            "texts": list(test.texts),
            "test": test.test,
            "test_name": run.test_name,
            "language": corpus.language,
            "split": corpus.split,
            "seed": run.seed,
            "steps": sum(one.get("steps", 0) for one in done),
            "processor_seconds": round(sum(one.get("processor_seconds", 0.0) for one in done), 1),
            "n": clips,
            "model": os.path.relpath(model, self.options.out),
            "stages": [one.folder.name for one in stages.values()],
            "made_of": task.made_of,
            "signature": {
                "commit": commit(),
                "processor": processor(),
                "inputs": self._planner.inputs_hash(run),
                "model": model_fingerprint(model)[:12],
            },
        }


WAIT_S = 5.0
"""Between looks at what another process is making."""


def make_stage(stage: Stage, told: Told) -> bool:
    """Run a stage's recipe; whether it is done, which it is not if another process is at it.

    Rows are made one after another: they are encoded into one cache.
    """
    names = [stage.folder.name, *(["token-rows"] if stage.kind == "token-rows" else [])]
    with ExitStack() as stack:
        locks = [lock(stage.folder.with_name(f"{name}.lock")) for name in names]
        ours = all(stack.enter_context(one) for one in locks)
        if ours and stage.done is None:
            told(f"{stage.recipe} in {stage.folder}")
            begun, wall = processor_seconds(), time.monotonic()
            summary = run_recipe(
                stage.recipe, overrides=stage.overrides, output=stage.folder, resume=True
            )
            took = {
                "processor_seconds": processor_seconds() - begun,
                "seconds": time.monotonic() - wall,
            }
            model = str(summary.get("model", stage.folder / RUN_MODEL_FOLDER))
            steps = _steps(stage.folder)
            table = {"recipe": str(stage.recipe), "model": model, "steps": steps, **took}
            write_atomic(stage.folder / DONE_FILE, canonical_json(table) + "\n")
    return ours


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _steps(folder: Path) -> int:
    """Optimiser steps that the recipes in a run's folder took."""
    found = 0
    for file in folder.rglob("recipe.json"):
        settings = json.loads(file.read_text("utf-8"))["settings"]
        found += settings.get("training", {}).get("steps", 0)
    return found


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Whether this process alone has a name; where another has it, False. It ends with the
    process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield lock_file(file)


def commit() -> str:
    """The commit of the code, where it runs in its repository; else its version."""
    here = Path(__file__).parent
    asked = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        ran = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"aligncap {version('aligncap')}"
    return ran.stdout.strip()


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
