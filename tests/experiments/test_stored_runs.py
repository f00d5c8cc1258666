"""Runs as `reproduce` stores them, of models that nobody trained: what is made again, and when."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aligncap.errors import DataError
from aligncap.experiments import reproduce
from aligncap.experiments.comparison import Scale, read_scale
from aligncap.experiments.reproduce import Options, Reproduction, Task
from aligncap.experiments.runs import MARKS, METRICS, StoredRun, read_runs, write_scores
from aligncap.experiments.statistics import compare
from aligncap.metrics.scores import MetricOptions
from support.comparison import write_comparison
from support.reproduced import write_run, written_captions


class Plan:
    """A comparison whose stages are done, and whose captions say what `says` is."""

    def __init__(self, root: Path, clips: list[Path]) -> None:
        self.root, self.says, self.asked = root, "first", 0
        self.scale = read_scale(str(write_comparison(root, clips)))

    def reproduction(self, **changes: Any) -> Reproduction:
        """Of the scale with these changes."""
        scale: Scale = replace(self.scale, **changes)
        options = Options(
            scale=scale, items=("table1",), data=self.root / "data", out=self.root / "out", seeds=1
        )
        return Reproduction(options)

    def kd(self, found: Reproduction) -> Task:
        """The run of the arm "kd", its stages done."""
        (task,) = (one for one in found.tasks() if one.run.arm_name == "kd")
        for stage in task.stage.in_order():
            stage.folder.mkdir(parents=True, exist_ok=True)
            (stage.folder / "stage.json").write_text(json.dumps({"model": "none"}), "utf-8")
        return task

    def make(self, **changes: Any) -> Task:
        """The run, made."""
        found = self.reproduction(**changes)
        task = self.kd(found)
        found.work([task], lambda _: None, lambda _: None)
        assert not found.failed
        if found.faults:
            raise found.faults[0]
        return task

    def caption_many(self, paths: list[Path], **_: object) -> Iterator[SimpleNamespace]:
        """As a captioner."""
        self.asked += 1
        return iter([SimpleNamespace(text=f"{self.says} {path.stem}") for path in paths])


@pytest.fixture
def plan(tmp_path: Path, example_clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> Plan:
    made = Plan(tmp_path, example_clips[:3])
    monkeypatch.setattr(reproduce, "load", lambda _, beam_size: made)
    monkeypatch.setattr(reproduce, "model_fingerprint", lambda _: "f" * 12)
    monkeypatch.setattr(reproduce.stored, "write_scores", lambda *_, **__: None)
    return made


def captions(task: Task) -> set[str]:
    """The first words of a run's captions."""
    lines = (task.folder / "captions.jsonl").read_text("utf-8").splitlines()
    return {json.loads(line)["caption"].split()[0] for line in lines}


CHANGES: dict[str, Callable[[Scale], dict[str, Any]]] = {
    "recipe": lambda scale: {
        "arms": {**scale.arms, "kd": replace(scale.arms["kd"], changes={"kd": ("batch.rows=2",)})}
    },
    "beam": lambda _: {"beam_size": 1},
    "clips": lambda _: {"clips": 1},
    "split": lambda scale: {
        "corpora": {"mine": replace(scale.corpora["mine"], split="validation")}
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_something_else_is_not_finished(plan: Plan, change: str) -> None:
    task = plan.make()
    assert plan.kd(plan.reproduction()).finished
    plan.says = "second"
    changes = CHANGES[change](plan.scale)
    assert not plan.kd(plan.reproduction(**changes)).finished
    assert captions(plan.make(**changes)) == {"second"}
    assert not plan.kd(plan.reproduction()).finished
    assert task.folder == plan.kd(plan.reproduction()).folder


def test_other_tested_clips_are_another_run(plan: Plan) -> None:
    plan.make()
    manifest = plan.root / "data" / "mine" / "test.jsonl"
    manifest.write_text(manifest.read_text("utf-8").replace('"id": "', '"id": "new-'), "utf-8")
    assert not plan.kd(plan.reproduction()).finished


def test_a_run_of_before_is_captioned_again(plan: Plan) -> None:
    file = plan.make().folder / "run.json"
    told = json.loads(file.read_text("utf-8"))
    del told["made_of"]
    file.write_text(json.dumps(told), "utf-8")
    plan.says = "second"
    found = plan.reproduction()
    assert not plan.kd(found).finished
    assert found.missing_stages([plan.kd(found)]) == []  # nothing is trained again
    assert captions(plan.make()) == {"second"}


def test_half_made_captions_are_gone_on_with_if_they_are_of_the_same(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise DataError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(reproduce.stored, "write_captions", broken)
        found = plan.reproduction()
        task = plan.kd(found)
        found.work([task], lambda _: None, lambda _: None)
        assert set(found.failed) == {task.run.name}
    asked, plan.says = plan.asked, "second"
    assert captions(plan.make(beam_size=1)) == {"second"}
    assert captions(plan.make()) == {"first"}
    assert plan.asked == asked + 1


class Judge:
    """Gives every caption one mark."""

    prompts = None

    def __init__(self, name: str, mark: float) -> None:
        self.model, self.mark = SimpleNamespace(name=name, settings={}), mark

    def ask(self, questions: Sequence[object]) -> list[float]:
        return [self.mark for _ in questions]


def judged(folder: Path, name: str, judge: Judge | None) -> StoredRun:
    """A stored run with a judge's marks, and the metrics that take no time."""
    run = write_run(folder, name, written_captions(1.0, clips=3))
    write_scores(run.folder, run.clips, MetricOptions(judge=cast(Any, judge)))
    return StoredRun(run.folder, run.table)


@pytest.fixture
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {key: METRICS[key] for key in ("bleu4", "spice", *MARKS)}
    monkeypatch.setattr("aligncap.experiments.runs.METRICS", kept)


@pytest.mark.usefixtures("few_metrics")
def test_marks_of_another_judge_are_given_anew_and_not_mixed(tmp_path: Path) -> None:
    small, large = Judge("small", 3.0), Judge("large", 8.0)
    by_small, by_none = judged(tmp_path, "kd", small), judged(tmp_path, "secap", None)
    by_large = judged(tmp_path, "other", large)
    with pytest.raises(DataError, match=r"different judges .*small.*--judge-model"):
        compare("aes_c", [by_small], [by_large])
    assert compare("aes_c", [by_small], [by_none]).delta is None
    assert compare("bleu4", [by_small], [by_large]).delta == pytest.approx(0.0)
    options = MetricOptions(judge=cast(Any, large))
    scale: Any = None  # nothing is planned
    found = Reproduction(
        Options(scale=scale, items=(), data=tmp_path, out=tmp_path, seeds=1, metrics=options)
    )
    told: list[str] = []
    found.score_again(read_runs(tmp_path), told.append)
    assert told == ["scores: kd", "scores: secap"]
    assert [run.scores["aes_c"] for run in read_runs(tmp_path)] == [8.0, 8.0, 8.0]
    found.score_again(read_runs(tmp_path), told.append)
    assert len(told) == 2


@pytest.mark.usefixtures("few_metrics")
def test_marks_are_kept_where_no_judge_is_given(tmp_path: Path) -> None:
    run = judged(tmp_path, "kd", Judge("small", 3.0))
    assert not run.to_be_scored(MetricOptions())
    write_scores(run.folder, run.clips, MetricOptions(), former=run)
    again = StoredRun(run.folder, run.table)
    assert again.scores == run.scores
    assert again.clip_scores == run.clip_scores
