"""The experiment of preferences on a made-up corpus; what it made is not made again."""

import math
from os.path import relpath
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aligncap.captioner.captioner import StudentInput
from aligncap.experiments import preference
from aligncap.experiments.preference import Options, report
from aligncap.training.loop import read_log
from aligncap.values import SpeechFeatures, SpeechTokens
from support.preferences import train_start, write_corpus


def test_it_writes_tables_and_makes_nothing_twice(tmp_path: Path) -> None:
    start = train_start(tmp_path)
    corpus = write_corpus(tmp_path, start)
    options = Options(
        start=start,
        rows=corpus / "rows.jsonl",
        facts=corpus / "facts.jsonl",
        recipes=corpus,
        runs=tmp_path / "runs",
        clips=8,
        steps=2,
        ppo_steps=4,
        beam=1,
        change=["data.validation_clips=2"],
        dpo=[],
        ppo=[],
        corpora=("odd", "even"),
    )
    page = report(options, 2)
    _, made_by, lines = page
    assert (
        f"Made by `python -m aligncap.experiments.preference --start {relpath(start)} " in made_by
    )
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    heads = [[cell.strip() for cell in row] for row in rows]
    arms = ["KD + DPO", "KD + CE on the chosen", "KD + PPO"]
    assert heads[0] == ["", "KD", *arms]
    assert ["difference", *(f"{arm} less KD" for arm in arms)] in heads
    names = [row[0] for row in heads]
    for name in ("contradicted by the signal", "not borne out", "emotion-recall", "cider-d"):
        assert names.count(name) == 2
    for folder in options.runs.glob("*/seed-*/chosen"):
        losses = [line["loss"] for line in read_log(folder) if "loss" in line]
        margins = [line["margin"] for line in read_log(folder) if "margin" in line]
        # Of DPO's own loss log 2 is left, whatever the margin is.
        assert min(losses) > math.log(2)
        assert max(map(abs, margins)) < 1e-6
    made = {path: path.stat().st_mtime_ns for path in options.runs.rglob("*.safetensors")}
    assert len([path for path in made if "model" in path.parts]) >= 4
    assert report(options, 2) == page
    assert made == {path: path.stat().st_mtime_ns for path in options.runs.rglob("*.safetensors")}


def test_captions_are_kept_by_what_the_model_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StudentInput] = []

    class Generator:
        """Says how often it was asked."""

        def options(self, beam: int) -> None: ...

        def generate(self, inputs: list[StudentInput], **_: object) -> list[Any]:
            asked.extend(inputs)
            return [[SimpleNamespace(text=f"{len(asked)}")] for _ in inputs]

    for name, found in {"model_fingerprint": "f", "read_meta": None}.items():
        monkeypatch.setattr(preference, name, lambda _, found=found: found)
    monkeypatch.setattr(preference, "open_generator", lambda _: Generator())

    def said(beam: int = 4, *, codes: int = 1, vector: float | None = None, **told: str) -> str:
        features = None if vector is None else SpeechFeatures.of(np.full((2, 3), vector, "f4"))
        read = StudentInput(SpeechTokens(np.full((1, 2), codes), features=features), **told)
        clip: Any = SimpleNamespace(
            clip=SimpleNamespace(utterance="a"), student_input=lambda *_: read
        )
        return preference.captions_of(tmp_path, [clip], beam=beam, cache=tmp_path)[0]

    read: list[dict[str, Any]] = [
        {}, {"codes": 2}, {"act": "sad"}, {"plan": "f1 2"}, {"vector": 0.0}, {"vector": 1.0},
        {"beam": 1},
    ]  # fmt: skip
    for _ in range(2):  # the second time nothing is asked
        assert [said(**one) for one in read] == [str(n + 1) for n in range(len(read))]
