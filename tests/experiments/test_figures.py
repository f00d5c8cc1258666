"""The paper's figures of made-up runs: the numbers drawn by other roads, and pictures that can be
opened."""

import json
import logging
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

from aligncap.clues import find_clues
from aligncap.clues.evidence import ClipKnowledge
from aligncap.errors import DataError, UnknownNameError
from aligncap.experiments import figures
from aligncap.experiments.figures import FIGURES, chosen_clips, clue_spans, distances, figure_of
from aligncap.experiments.plots import DRAWN, draw, write_figure
from aligncap.experiments.runs import read_runs
from aligncap.experiments.statistics import estimate
from support.reproduced import write_run, written_captions

RATES = {"none": 0.2, "cl": 0.4, "cl+ni": 0.4, "cl+proj": 0.6, "kd": 0.8}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every figure, tiny."""
    folder, random = tmp_path_factory.mktemp("reproduced"), np.random.default_rng(0)
    for seed in range(2):
        for alignment, right in RATES.items():
            captions = written_captions(right, seed=seed)
            run = write_run(folder, f"{alignment}.{seed}", captions, seed=seed, alignment=alignment)
            if alignment in ("cl", "kd"):
                speech = random.normal(size=(12, 4))
                text = speech + (5.0 if alignment == "cl" else 0.0)
                with (run.folder / figures.STATES_FILE).open("wb") as file:
                    np.savez(file, speech=speech, text=text, ids=list(captions))
        for axis, values in {"pairs": (20, 40), "steps": (10,)}.items():
            for value in values:
                write_run(
                    folder,
                    f"po-{axis}-{value}.{seed}",
                    written_captions(0.9, seed=seed),
                    seed=seed,
                    preference="po",
                    point={axis: value},
                )
        captions = written_captions(0.5, seed=seed)
        write_run(folder, f"secap.{seed}", captions, seed=seed, system="SECap", alignment="")
        write_run(folder, f"toy.{seed}", captions, seed=seed, system="My system", alignment="")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn(name: str, out: Path, data: Path) -> None:
    paths = draw(name, read_runs(out), out, data, note="One encoder for all.")
    assert [path.name for path in paths] == [f"{name}.{kind}" for kind in ("png", "svg", "json")]
    picture, drawing, numbers = (path.read_bytes() for path in paths)
    assert picture.startswith(b"\x89PNG")
    assert ET.fromstring(drawing).tag.endswith("svg")
    assert json.loads(numbers)["caption"].endswith(". One encoder for all.")
    if name == "figure7":  # from its numbers, and to the same bytes
        write_figure(json.loads(numbers), out / "again")
        assert [(out / "again" / path.name).read_bytes() for path in paths] == [
            picture, drawing, numbers
        ]  # fmt: skip


def test_bars_are_the_scores_of_their_arms(out: Path, data: Path) -> None:
    runs = read_runs(out)
    panels = figure_of("figure8", runs, out, data)["panels"]
    assert [panel["metric"] for panel in panels] == ["BLEU@4", "METEOR", "ROUGE-L"]
    names = [point["name"] for point in panels[0]["points"]]
    assert names == ["No-Align", "CL-Align", "CL+NI-Align", "CL+Proj-Align", "KD-Align"]
    arm = [run for run in runs if run.table["name"].startswith("cl.")]
    found = estimate("bleu4", arm)
    bar = panels[0]["points"][1]
    assert (bar["value"], bar["low"], bar["high"]) == (found.value, found.low, found.high)
    assert np.mean(list(bar["seeds"].values())) == pytest.approx(found.value)
    before = figure_of("figure2", runs, out, data)["panels"][0]["points"]
    assert [point["name"] for point in before] == ["No-Align", "CL-Align", "CL+Proj-Align"]


def test_curves_begin_with_the_model_after_kd(out: Path, data: Path) -> None:
    panels = figure_of("figure9", read_runs(out), out, data)["panels"]
    points = {
        panel["axis"]: [point["at"] for point in panel["points"]]
        for panel in panels
        if panel["metric"] == "METEOR"
    }
    assert points == {"preference pairs": [0, 20, 40], "optimiser steps": [0, 10]}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in FIGURES:
        with pytest.raises(DataError, match=f"{name}: none of its runs is finished"):
            figure_of(name, [], tmp_path, tmp_path)
    with pytest.raises(UnknownNameError, match="figure8"):
        figure_of("figure88", [], tmp_path, tmp_path)


def test_distances_by_other_roads() -> None:
    random = np.random.default_rng(1)
    speech, text = random.normal(size=(9, 3)), random.normal(1.0, 2.0, (9, 3))
    found = distances(speech, text)
    both = np.concatenate([speech, text])
    both = (both - both.mean(0)) / both.std(0)
    one, other = both[:9], both[9:]
    far = cdist(both, both, "sqeuclidean")
    width = np.median([far[i, j] for i in range(18) for j in range(i)])
    k = np.exp(-far / width)
    # The definition, term by term, a point with itself left out.
    same = [k[i, j] for i in range(9) for j in range(9) if i != j]
    same_text = [k[9 + i, 9 + j] for i in range(9) for j in range(9) if i != j]
    expected = np.mean(same) + np.mean(same_text) - 2 * k[:9, 9:].mean()
    assert found["mmd2"] == pytest.approx(expected)
    labels = [0] * 9 + [1] * 9
    assert found["silhouette"] == pytest.approx(silhouette_score(both, labels))
    nearest = cdist(one, other, "cosine").argmin(axis=1)
    assert found["recall_at_1"] == pytest.approx(np.mean(nearest == np.arange(9)))
    assert found["chance"] == pytest.approx(1 / 9)


def test_distances_of_what_is_alike_and_of_what_is_apart() -> None:
    points = np.random.default_rng(0).normal(size=(30, 5))
    alike, apart = distances(points, points), distances(points, points + 20)
    assert alike["mmd2"] < 0.01 < 0.5 < apart["mmd2"]
    assert (alike["recall_at_1"], alike["mmd2_p"]) == (1.0, 1.0)
    assert apart["silhouette"] > 0.5 > alike["silhouette"]
    assert apart["mmd2_p"] == pytest.approx(1 / 201)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("An angry man shouts quickly.", ["angry", "man", "shouts", "quickly"]),
        ("A high-pitched voice, sadly; a sad voice.", ["high-pitched", "sadly", "sad"]),
        ("She speaks slowly and sounds unhappy, not happy.", ["She", "slowly", "unhappy", "happy"]),
    ],
)
def test_clues_are_found_where_they_stand(text: str, marked: list[str]) -> None:
    clues = find_clues(text, "en", repeats=True)
    spans = clue_spans(text, clues, "en")
    assert [text[start:end].removesuffix(" voice") for start, end in spans] == marked


def test_chinese_clues_are_found_where_they_stand() -> None:
    text = "她生气地说，语速很快，生气。"
    clues = find_clues(text, "zh", repeats=True)
    spans = clue_spans(text, clues, "zh")
    assert [text[start:end] for start, end in spans] == ["她", "生气", "语速很快", "生气"]
    assert len(set(spans)) == 4


def test_verdicts_are_those_of_the_clips_evidence(out: Path, data: Path) -> None:
    clips = figure_of("figure7", read_runs(out), out, data)["clips"]
    assert [clip["emotion"] for clip in clips] == ["neutral", "angry", "sad", "happy"]
    assert [one["system"] for one in clips[0]["captions"]] == ["SECap", "AlignCap-KD", "My system"]
    knowledge = ClipKnowledge.of(None, emotion="angry", captions={"en": ["A loud man."]})
    found = figures.judged_clues("A happy, loud man, quickly; a quiet one.", "en", knowledge)
    assert {one["word"]: one["verdict"] for one in found} == {
        "happy": "wrong",
        "loud": "right",
        "man": "right",
        "quickly": "not borne out",
        "quiet": "wrong",
    }


def test_clips_are_chosen_whatever_was_written_of_them() -> None:
    rows = [{"id": f"c{n}", "emotion": ("sad", "happy")[n % 2], "caption": ""} for n in range(20)]
    other = [{**row, "caption": "A sad man."} for row in reversed(rows)]
    chosen = [row["id"] for row in chosen_clips(rows)]
    assert chosen == [row["id"] for row in chosen_clips(other)]
    assert len(chosen) == 2
    assert len(chosen_clips([{**row, "emotion": None} for row in rows])) == 4


def test_letters_that_no_font_has_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, system in enumerate(("SECap", "NoAudioCap")):
        captions = {f"clip-{n}": ("sad", "她\U00010600很难过。") for n in range(3)}
        write_run(tmp_path, f"zh-{seed}", captions, system=system, alignment="", language="zh")
    with caplog.at_level(logging.WARNING):
        draw("figure7", read_runs(tmp_path), tmp_path, tmp_path)
    assert re.search(r"no font here has all letters.*install .*fontlist-\*\.json", caplog.text)
